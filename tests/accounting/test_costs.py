"""Whose the machines' costs are: shared by use, exact, and nothing made up."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from admission.accounting import cost_tables, instance_tables, instances, uptimes
from admission.accounting.budgets import look
from admission.accounting.burn import burn
from admission.accounting.cost import BY, HOUR_MS, MICRO, Uptime
from admission.accounting.costs import Asked, Costs, Row, costs
from admission.accounting.ledger import Ledger
from admission.accounting.reports import TooManyRows
from admission.accounting.tables import metadata, schema
from admission.instance import Instance, Order, State
from admission.store.fleet_records import Recorded
from tests.accounting.conftest import AT_MS, record
from tests.fleet.words import happened, machine

BEGIN_MS = AT_MS // HOUR_MS * HOUR_MS
END_MS = BEGIN_MS + 4 * HOUR_MS
DOLLAR = 1 * MICRO


def billed(identity: str = "i-1", hours: float = 1, at: float = 0, **more: Any) -> Instance:
    """A machine at a dollar an hour, billed from BEGIN_MS + ``at`` hours on."""
    began_ms = BEGIN_MS + round(at * HOUR_MS)
    order = {"provider": "aws", "price_per_hour": 1.0, **more}
    return machine(
        identity,
        state=State.ARCHIVED,
        order=Order(**order),
        launched_ms=began_ms,
        ended_ms=began_ms + round(hours * HOUR_MS),
    )


def keep(ledger: Ledger, *machines: Instance, first: int = 1) -> None:
    instances.add(
        ledger,
        [Recorded(f"{n}-0", happened(one), one) for n, one in enumerate(machines, first)],
    )


def ask(ledger: Ledger, by: str = "user", **more: int) -> Costs:
    given = {"from_ms": BEGIN_MS, "to_ms": END_MS, "now_ms": END_MS, **more}
    return costs(ledger, Asked(by, **given))


def parts(found: Costs) -> dict[Any, tuple[int, int]]:
    return {row.name: (row.used, row.unused) for row in found.rows}


def test_a_machine_is_shared_by_what_it_did_for_whom(ledger: Ledger) -> None:
    keep(ledger, billed(hours=2))
    ledger.add(
        [
            record(1, worker="i-1", user="ada", prompt_tokens=40, completion_tokens=0),
            record(2, worker="i-1", user="bob", prompt_tokens=0, completion_tokens=10),
            record(3, worker="i-1", user="eve", prompt_tokens=0, completion_tokens=5),
            record(4, worker="i-1", user="nil", prompt_tokens=0, completion_tokens=0),
        ]
    )
    found = ask(ledger)
    assert parts(found) == {
        "ada": (400_000, 0),
        "bob": (400_000, 0),
        "eve": (200_000, 0),
        None: (0, DOLLAR),  # its second hour
    }
    assert found.totals == {"USD": (DOLLAR, DOLLAR)}
    assert [(row.prompt_tokens, row.completion_tokens) for row in found.rows][0] == (40, 0)
    assert found.unpriced_instances == found.unpriced_prompt_tokens == 0


def test_who_was_sent_to_the_dear_machine_pays_no_more(ledger: Ledger) -> None:
    keep(ledger, billed(), billed("i-2", price_per_hour=3.0), billed("i-3", price_per_hour=8.0))
    ledger.add([record(1, worker="i-1", user="ada"), record(2, worker="i-2", user="bob")])
    assert parts(ask(ledger)) == {
        "ada": (2 * DOLLAR, 0),
        "bob": (2 * DOLLAR, 0),
        None: (0, 8 * DOLLAR),  # the machine that did nothing
    }


def test_pools_and_models_with_machines_of_their_own_are_apart(ledger: Ledger) -> None:
    keep(
        ledger,
        billed(pool="a", model="big", price_per_hour=4.0),
        billed("i-2", pool="a", model="small"),
        billed("i-3", pool="b"),
    )
    ledger.add(
        [
            record(1, worker="i-1", user="ada", model="big"),
            record(2, worker="i-2", user="bob", model="small"),
            record(3, worker="i-2", user="eve", model="small", project="bio", key="k"),
        ]
    )
    assert parts(ask(ledger))["ada"] == (4 * DOLLAR, 0)
    assert parts(ask(ledger))["bob"] == (DOLLAR // 2, 0)
    assert parts(ask(ledger, "model")) == {
        "big": (4 * DOLLAR, 0),
        "small": (DOLLAR, 0),
        None: (0, DOLLAR),
    }
    assert parts(ask(ledger, "project"))["bio"] == (DOLLAR // 2, 0)
    assert parts(ask(ledger, "key"))["k"] == (DOLLAR // 2, 0)
    pools = ask(ledger, "pool")
    assert parts(pools) == {"a": (5 * DOLLAR, 0), "b": (0, DOLLAR)}
    assert [(row.name, row.prompt_tokens, row.pool) for row in pools.rows] == [
        ("a", 30, "a"),
        ("b", 0, "b"),
    ]


def test_by_machine_hour_and_day(ledger: Ledger) -> None:
    keep(ledger, billed(hours=2.5), billed("i-2", at=1))
    ledger.add([record(1, worker="i-1"), record(2, worker="i-2", at_ms=AT_MS + HOUR_MS)])
    assert parts(ask(ledger, "instance")) == {
        "i-1": (DOLLAR, DOLLAR * 3 // 2),
        "i-2": (DOLLAR, 0),
    }
    assert parts(ask(ledger, "hour")) == {
        BEGIN_MS: (DOLLAR, 0),
        BEGIN_MS + HOUR_MS: (DOLLAR, DOLLAR),
        BEGIN_MS + 2 * HOUR_MS: (0, DOLLAR // 2),
    }
    [day] = ask(ledger, "day").rows
    assert (day.name, day.used, day.unused) == (
        AT_MS // (24 * HOUR_MS) * 24 * HOUR_MS,
        2 * DOLLAR,
        DOLLAR * 3 // 2,
    )


def test_what_has_no_price_is_counted_and_never_0(ledger: Ledger) -> None:
    keep(ledger, billed(price_per_hour=None, hours=1.5), billed("i-2", price_per_hour=0.0))
    ledger.add(
        [
            record(1, worker="i-1", user="ada"),
            record(2, worker="i-2", user="bob"),
            record(3, worker="static", user="eve"),
        ]
    )
    found = ask(ledger)
    assert parts(found) == {"bob": (0, 0)}, "a price of 0 is known"
    assert found.totals == {"USD": (0, 0)}
    assert (found.unpriced_instances, found.unpriced_hours) == (1, 1.5)
    assert (found.unpriced_prompt_tokens, found.unpriced_completion_tokens) == (20, 10)


def test_what_static_workers_did_takes_no_part(ledger: Ledger) -> None:
    keep(ledger, billed())
    ledger.add([record(1, worker="static", user="eve"), record(2, worker="i-1", user="ada")])
    assert parts(ask(ledger)) == {"ada": (DOLLAR, 0)}


def test_what_cannot_be_halved_is_shared_all_the_same(ledger: Ledger) -> None:
    keep(ledger, billed())
    ledger.add([record(n, worker="i-1", user=user) for n, user in enumerate("abc")])
    assert sorted(row.used for row in ask(ledger).rows) == [333_333, 333_333, 333_334]


def test_a_request_that_is_told_twice_counts_once(ledger: Ledger) -> None:
    keep(ledger, billed())
    ada, bob = record(1, worker="i-1", user="ada"), record(2, worker="i-1", user="bob")
    ledger.add([ada, ada])
    ledger.add([ada, bob])
    assert parts(ask(ledger)) == {"ada": (DOLLAR // 2, 0), "bob": (DOLLAR // 2, 0)}


def test_what_is_billed_at_least_reaches_into_the_next_hour(ledger: Ledger) -> None:
    seconds = 1 / 3600
    keep(ledger, billed(hours=10 * seconds, at=-30 * seconds, billed_least_s=60, price_per_hour=60))
    assert ask(ledger, "pool").totals == {"USD": (0, DOLLAR // 2)}


def test_currencies_are_never_added(ledger: Ledger) -> None:
    keep(ledger, billed(), billed("i-2", currency="EUR", price_per_hour=2.0))
    ledger.add([record(1, worker="i-1"), record(2, worker="i-2")])
    found = ask(ledger)
    assert [(row.name, row.currency, row.used) for row in found.rows] == [
        ("ada", "EUR", 2 * DOLLAR),
        ("ada", "USD", DOLLAR),
    ]
    assert found.totals == {"EUR": (2 * DOLLAR, 0), "USD": (DOLLAR, 0)}


def test_a_worker_that_two_machines_were_one_after_the_other(ledger: Ledger) -> None:
    one = msgspec.structs.replace(billed(hours=0.5), worker_id="rack-1")
    two = msgspec.structs.replace(
        billed("i-2", hours=0.5, at=0.5, currency="EUR"), worker_id="rack-1"
    )
    keep(ledger, one, two)
    ledger.add([record(1, worker="rack-1", user="ada"), record(2, worker="rack-1", user="bob")])
    assert [(row.name, row.currency, row.used) for row in ask(ledger).rows] == [
        ("ada", "EUR", DOLLAR // 4),
        ("bob", "EUR", DOLLAR // 4),
        ("ada", "USD", DOLLAR // 4),
        ("bob", "USD", DOLLAR // 4),
    ]


def test_what_runs_is_billed_until_now_and_a_time_is_cut(ledger: Ledger) -> None:
    running = msgspec.structs.replace(billed(), state=State.READY, ended_ms=None)
    keep(ledger, running)
    assert ask(ledger, "pool", now_ms=BEGIN_MS + HOUR_MS // 4).totals == {"USD": (0, DOLLAR // 4)}
    late = ask(ledger, "pool", from_ms=BEGIN_MS + HOUR_MS)
    assert late.totals == {"USD": (0, 3 * DOLLAR)}
    assert ask(ledger, "pool", now_ms=BEGIN_MS - 1).rows == []


def test_it_stays_when_instance_and_request_are_forgotten(ledger: Ledger) -> None:
    keep(ledger, billed())
    ledger.add([record(1, worker="i-1")])
    assert instances.prune(ledger, 2**60) == 1
    assert ledger.prune(2**60) == 1
    assert parts(ask(ledger)) == {"ada": (DOLLAR, 0)}


def test_an_older_entry_takes_nothing_back(ledger: Ledger) -> None:
    keep(ledger, billed(hours=2), first=7)
    keep(ledger, billed(hours=9), first=3)
    assert ask(ledger, "pool", to_ms=2**50, now_ms=2**50).totals == {"USD": (0, 2 * DOLLAR)}


def test_a_machine_that_was_forgotten_and_found_keeps_its_price_and_its_beginning(
    ledger: Ledger,
) -> None:
    keep(ledger, msgspec.structs.replace(billed(pool="gpu", currency="EUR"), ended_ms=None))
    assert uptimes.running(ledger) == {"i-1"}
    uptimes.end(ledger, {"i-1", "i-9"}, BEGIN_MS + HOUR_MS)
    assert ask(ledger, "pool").totals == {"EUR": (0, DOLLAR)}
    uptimes.end(ledger, {"i-1"}, BEGIN_MS + 3 * HOUR_MS)
    assert uptimes.running(ledger) == set()
    late = BEGIN_MS + 2 * HOUR_MS
    found = machine("i-1", state=State.TERMINATING, order=Order("aws"), launched_ms=late)
    keep(ledger, found, first=2)
    assert ask(ledger, "pool").totals == {"EUR": (0, 4 * DOLLAR)}
    keep(ledger, msgspec.structs.replace(found, ended_ms=late), first=3)
    assert parts(ask(ledger, "pool")) == {"gpu": (0, 2 * DOLLAR)}


def test_a_version_without_costs_is_filled(ledger: Ledger, url: str) -> None:
    keep(ledger, billed(), machine("i-2"))
    ledger.add([record(n, worker="i-1", user=user) for n, user in enumerate("aab")])
    tables = (cost_tables.uptimes, cost_tables.work, cost_tables.budgets, cost_tables.alarms)
    before = ask(ledger)
    with ledger.transaction() as connection:
        work = connection.execute(select(cost_tables.work)).all()
        metadata.drop_all(connection, tables)
        connection.execute(update(schema).values(version=2))
    upgraded = Ledger(url)
    assert ask(upgraded) == before
    with upgraded.transaction() as connection:
        assert sorted(connection.execute(select(cost_tables.work)).all()) == sorted(work)
    upgraded.close()


def test_a_record_that_cannot_be_read_stops_no_upgrade(
    ledger: Ledger, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    keep(ledger, billed())
    before = ask(ledger)
    keep(ledger, machine("i-2"))
    with ledger.transaction() as connection:
        records = update(instance_tables.instances)
        connection.execute(
            records.where(instance_tables.instances.c.id == "i-2").values(record='{"id": 2}')
        )
        connection.execute(delete(cost_tables.uptimes))
        connection.execute(update(schema).values(version=2))
    upgraded = Ledger(url)
    assert ask(upgraded) == before
    assert "instance_unreadable" in caplog.text
    upgraded.close()


def test_more_than_an_answer_holds_is_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(ledger, billed(hours=3))
    monkeypatch.setattr("admission.accounting.costs.HOURS_MAX", 2)
    with pytest.raises(TooManyRows):
        ask(ledger)
    monkeypatch.setattr("admission.accounting.costs.HOURS_MAX", 3)
    monkeypatch.setattr("admission.accounting.costs.ROWS_MAX", 2)
    with pytest.raises(TooManyRows):
        ask(ledger, "hour")


def test_how_fast_money_is_spent(ledger: Ledger) -> None:
    running = msgspec.structs.replace(billed(), ended_ms=None)
    unknown = msgspec.structs.replace(billed("i-4", price_per_hour=None), ended_ms=None)
    keep(ledger, running, billed("i-2"), billed("i-3", currency="EUR", at=-48), unknown)
    now_ms = BEGIN_MS + 2 * HOUR_MS  # 13:00 on the 18th of a month of 30 days
    euro, dollar = burn(ledger, now_ms)
    assert (euro.currency, euro.instances, euro.per_hour, euro.today) == ("EUR", 0, 0, 0)
    assert (euro.month, euro.month_expected) == (DOLLAR, DOLLAR)
    assert (dollar.instances, dollar.unpriced, dollar.per_hour) == (2, 1, DOLLAR)
    assert (dollar.today, dollar.today_expected) == (3 * DOLLAR, 14 * DOLLAR)
    assert (dollar.month, dollar.month_expected) == (3 * DOLLAR, (14 + 12 * 24) * DOLLAR)


# --- as a property --------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", ""])
hours = st.integers(-2, 6)
lives: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    at=st.floats(-2, 5, allow_nan=False),
    hours=st.none() | st.floats(-1, 6, allow_nan=False),
    price=st.none() | st.floats(0, 1000, allow_nan=False) | st.just(0.0),
    currency=st.sampled_from(["USD", "EUR"]),
    pool=names,
    model=names,
    least=st.sampled_from([0, 60]),
)
requests: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    at=st.floats(0, 4, exclude_max=True, allow_nan=False),
    worker=st.sampled_from(["i-0", "i-1", "i-2", "static"]),
    user=names,
    project=names,
    key=names,
    model=names,
    prompt=st.integers(0, 10**9),
    completion=st.integers(0, 10**9),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path_factory.mktemp('costs') / 'usage.db'}")
    yield ledger
    ledger.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(lives, max_size=3), st.lists(requests, max_size=12), st.integers(0, 5 * HOUR_MS))
def test_the_parts_come_to_what_the_machines_cost(
    shared: Ledger, machines: list[dict[str, Any]], used: list[dict[str, Any]], now: int
) -> None:
    """By whatever it is told apart."""
    _empty(shared)
    known = [_machine(f"i-{n}", **each) for n, each in enumerate(machines)]
    keep(shared, *known)
    if used:
        shared.add([_record(n, **each) for n, each in enumerate(used)])
    expected: Counter[str] = Counter()
    for one in known:
        uptime = Uptime.of(one)
        assert uptime is not None
        if uptime.is_priced:
            expected[uptime.currency] += uptime.cost(BEGIN_MS, END_MS, BEGIN_MS + now)
    for by in BY:
        found = ask(shared, by, now_ms=BEGIN_MS + now)
        come_to = _sums(found.rows)
        for name in ("USD", "EUR"):
            sums = come_to.get(name, (0, 0))
            assert sum(sums) == expected[name]
            assert found.totals.get(name, (0, 0)) == sums
        assert all(row.used >= 0 and row.unused >= 0 for row in found.rows)


def _sums(rows: list[Row]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        used, unused = found.get(row.currency, (0, 0))
        found[row.currency] = used + row.used, unused + row.unused
    return found


def _machine(
    identity: str, *, at: float, hours: float | None, price: float | None, least: int, **more: str
) -> Instance:
    one = billed(identity, hours or 0, at, price_per_hour=price, billed_least_s=least, **more)
    return one if hours is not None else msgspec.structs.replace(one, ended_ms=None)


def _record(number: int, *, at: float, prompt: int, completion: int, **more: str) -> Any:
    at_ms = BEGIN_MS + int(at * HOUR_MS)
    return record(number, at_ms=at_ms, prompt_tokens=prompt, completion_tokens=completion, **more)


def _empty(ledger: Ledger) -> None:
    look(ledger, [], 0)  # makes the tables
    with ledger.transaction() as connection:
        for table in metadata.sorted_tables:
            if table is not schema:
                connection.execute(table.delete())
