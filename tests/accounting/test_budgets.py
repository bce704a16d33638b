"""Budgets: what counts in which period, and that each threshold alarms once in it."""

from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, update

from admission.accounting import cost_tables
from admission.accounting.budgets import (
    Alarm,
    Budget,
    look,
    standing,
    standings,
    tell,
    untold,
)
from admission.accounting.cost import HOUR_MS, MICRO
from admission.accounting.ledger import Ledger
from admission.cost_views import words_of
from tests.accounting.test_cost import BEGIN_MS, uptime
from tests.accounting.test_costs import billed, keep

DAY_MS = 24 * HOUR_MS
DAILY = Budget(name="lab", amount=10, per="day")
MIDNIGHT_MS = BEGIN_MS // DAY_MS * DAY_MS
RUNNING = msgspec.structs.replace(billed(), ended_ms=None, launched_ms=MIDNIGHT_MS)


@pytest.mark.parametrize(
    ("at", "per", "timezone", "period"),
    [
        ("11-18T11:06Z", "day", "UTC", "11-18T00:00Z 11-19T00:00Z"),
        ("11-22T00:50Z", "week", "UTC", "11-16T00:00Z 11-23T00:00Z"),
        ("11-30T16:30Z", "month", "Asia/Tokyo", "11-30T15:00Z 12-31T15:00Z"),
        ("10-25T12:00Z", "day", "Europe/Berlin", "10-24T22:00Z 10-25T23:00Z"),
        ("03-29T00:30Z", "month", "Europe/Berlin", "02-28T23:00Z 03-31T22:00Z"),
    ],
)
def test_a_period_begins_at_midnight_there(at: str, per: Any, timezone: str, period: str) -> None:
    budget = Budget(name="b", amount=1, per=per, timezone=timezone)
    assert budget.window(instant(at)) == tuple(map(instant, period.split()))


def instant(text: str) -> int:
    """Ms since 1970, of the year 2026."""
    return round(datetime.fromisoformat(f"2026-{text}").timestamp() * 1000)


@given(
    st.integers(0, 4_000_000_000_000),
    st.sampled_from(["day", "week", "month"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Africa/Cairo"]),
)
def test_every_instant_is_in_one_period(now_ms: int, per: Any, timezone: str) -> None:
    budget = Budget(name="b", amount=1, per=per, timezone=timezone)
    begin_ms, end_ms = budget.window(now_ms)
    assert begin_ms <= now_ms < end_ms
    assert budget.window(begin_ms) == budget.window(end_ms - 1) == (begin_ms, end_ms)
    assert budget.window(end_ms)[0] == end_ms


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\n"}, "name"),
        ({"amount": 0.0}, "amount"),
        ({"amount": float("nan")}, "amount"),
        ({"currency": ""}, "currency"),
        ({"pool": "A"}, "pool"),
        ({"alarm_at": (0.0,)}, "alarm_at"),
        ({"alarm_at": (0.5,) * 21}, "alarm_at"),
        ({"alarm_at": (50.0, 100.0)}, "alarm_at"),  # percent: they would never alarm
        ({"timezone": "Mars/Base"}, "timezone"),
    ],
)
def test_what_makes_no_sense_is_named(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        Budget(**{"name": "b", "amount": 1, **wrong})


def test_how_it_stands() -> None:
    begin_ms, now_ms = MIDNIGHT_MS, MIDNIGHT_MS + 6 * HOUR_MS
    machines = [
        uptime(launched_ms=begin_ms - HOUR_MS),
        uptime(pool="gpu", launched_ms=begin_ms, ended_ms=begin_ms + HOUR_MS),
        uptime(currency="EUR", launched_ms=begin_ms),
        uptime(price_per_hour=None, launched_ms=begin_ms),
        uptime(price_per_hour=None, launched_ms=begin_ms, ended_ms=begin_ms),
    ]
    found = standing(DAILY, machines, now_ms)
    assert (found.spent, found.per_hour, found.uncounted) == (7 * MICRO, 1 * MICRO, 2)
    assert found.expected == 25 * MICRO
    assert found.used_up_ms == now_ms + 3 * HOUR_MS
    of_pool = standing(msgspec.structs.replace(DAILY, pool="gpu"), machines, now_ms)
    assert (of_pool.spent, of_pool.per_hour, of_pool.used_up_ms) == (1 * MICRO, 0, None)
    enough = standing(msgspec.structs.replace(DAILY, amount=25.1), machines, now_ms)
    assert enough.used_up_ms is None
    over = standing(msgspec.structs.replace(DAILY, amount=5), machines, now_ms)
    assert (over.used_up_ms, over.spent) == (None, 7 * MICRO)


def shares(found: list[Alarm]) -> list[float]:
    return [alarm.share for alarm in found]


def test_each_threshold_alarms_once_in_each_period(ledger: Ledger) -> None:
    keep(ledger, RUNNING)
    at = {hour: look(ledger, [DAILY], MIDNIGHT_MS + hour * HOUR_MS) for hour in range(23)}
    assert {hour: shares(found) for hour, found in at.items() if found} == {
        5: [0.5],
        8: [0.8],
        10: [1.0],
    }
    assert at[5][0].used_up_ms == MIDNIGHT_MS + 10 * HOUR_MS
    assert words_of(at[5][0]) == (
        "50% of the budget lab is spent: 5.00 of 10 USD today; at this rate it is used up on"
        " 2026-11-18 at 10:00 (UTC)"
    )
    assert at[10][0].used_up_ms is None
    tomorrow = look(ledger, [DAILY], MIDNIGHT_MS + DAY_MS + 8 * HOUR_MS)
    assert shares(tomorrow) == [0.5, 0.8]
    assert look(ledger, [DAILY], MIDNIGHT_MS + 9 * HOUR_MS) == [], "a clock that went back"


def test_the_last_moments_of_a_period_are_seen_in_the_next(ledger: Ledger) -> None:
    budget = msgspec.structs.replace(DAILY, amount=24, alarm_at=(0.99,))
    keep(ledger, RUNNING)
    assert look(ledger, [budget], MIDNIGHT_MS + 23 * HOUR_MS) == []
    [alarm] = look(ledger, [budget], MIDNIGHT_MS + DAY_MS + 1)
    assert (alarm.begin_ms, alarm.at_ms) == (MIDNIGHT_MS, MIDNIGHT_MS + DAY_MS - 1)
    assert look(ledger, [budget], MIDNIGHT_MS + DAY_MS + 2) == []
    new = msgspec.structs.replace(budget, name="new")
    assert look(ledger, [new], MIDNIGHT_MS + DAY_MS + 3) == [], "it was not there yesterday"


def test_a_budget_that_grew_alarms_at_its_new_thresholds(ledger: Ledger) -> None:
    keep(ledger, RUNNING)
    assert shares(look(ledger, [DAILY], MIDNIGHT_MS + 8 * HOUR_MS)) == [0.5, 0.8]
    grown = msgspec.structs.replace(DAILY, amount=16)
    assert look(ledger, [grown], MIDNIGHT_MS + 8 * HOUR_MS) == [], "of 8.00 it was told"
    assert shares(look(ledger, [grown], MIDNIGHT_MS + 13 * HOUR_MS)) == [0.8]


def test_what_is_untold_is_told_in_order_and_once(ledger: Ledger) -> None:
    keep(ledger, RUNNING)
    look(ledger, [DAILY], MIDNIGHT_MS + 11 * HOUR_MS)
    assert shares(untold(ledger)) == [0.5, 0.8, 1.0]
    tell(ledger, untold(ledger)[0])
    assert shares(untold(ledger)) == [0.8, 1.0]


def test_what_cannot_be_read_stops_no_other(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    keep(ledger, RUNNING)
    now_ms = MIDNIGHT_MS + 9 * HOUR_MS
    look(ledger, [DAILY, Budget(name="new", amount=1)], now_ms)
    with ledger.transaction() as connection:
        for of in (cost_tables.budgets, cost_tables.alarms):
            name = of.c.name if of is cost_tables.budgets else of.c.budget
            word = func.replace(of.c.record, '"UTC"', '"Mars/Base"')
            connection.execute(update(of).where(name == "new").values(record=word))
    assert [each.budget for each in standings(ledger, now_ms)] == [DAILY]
    assert {alarm.budget for alarm in untold(ledger)} == {DAILY}
    assert "budget_unreadable" in caplog.text


def test_who_only_reads_sees_how_they_stand(ledger: Ledger, url: str) -> None:
    reader = Ledger(url, writes=False)
    keep(ledger, RUNNING)
    other = Budget(name="a", amount=1e9)
    now_ms = MIDNIGHT_MS + 9 * HOUR_MS
    look(ledger, [DAILY, other], now_ms - HOUR_MS)
    one, two = standings(reader, now_ms)
    assert (one.budget, two.budget) == (DAILY, other), "in the order of the file"
    assert one.spent == 9 * MICRO
    assert shares(list(one.alarms)) == [0.5, 0.8]
    assert (one.looked_ms, two.alarms) == (now_ms - HOUR_MS, ())
    look(ledger, [other], now_ms)
    assert [each.budget.name for each in standings(reader, now_ms)] == ["a"]
    older = msgspec.structs.replace(other, amount=5)
    look(ledger, [DAILY, older], now_ms - 1)  # who slept meanwhile
    assert {each.budget.name for each in standings(reader, now_ms)} == {"a", "lab"}
    assert other in [each.budget for each in standings(reader, now_ms)]
    reader.close()
