"""Budgets: so much for a pool in a day, a week or a month, and the shares of it that alarm.

An alarm tells; it ends no machine (what bounds the autoscaler is ``hourly_budget``). Whoever first
sees that a threshold is passed writes it down, so each alarms once in its period; then it is told,
and written down that it was.

What is asked of SQL blocks; call it in a thread.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, delete, select, update

from admission import logs
from admission.accounting.cost import HOUR_MS, MICRO, Uptime
from admission.accounting.cost_tables import alarms
from admission.accounting.cost_tables import budgets as table
from admission.accounting.costs import billed
from admission.accounting.ledger import Ledger
from admission.accounting.upsert import upsert
from admission.domain import POOL_NAME

AMOUNT_MIN, AMOUNT_MAX = 0.01, 1e9
ALARMS_MAX = 20
SHARE_MAX = 10  # of an amount; beyond, percent is meant
NAME_MAX = 64

T = TypeVar("T")

log = logging.getLogger(__name__)


class Budget(Struct, frozen=True, kw_only=True):
    """``[[budgets]]`` of the fleet file. It begins anew at midnight of each day, Monday or first of
    the month there (``timezone``).

    Raises:
        ValueError: names the field.
    """

    name: str  # of the operator's own
    amount: float
    currency: str = "USD"
    pool: str = ""  # "" for all of them together
    per: Literal["day", "week", "month"] = "month"
    alarm_at: tuple[float, ...] = (0.5, 0.8, 1.0)  # shares of the amount
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if not (0 < len(self.name) <= NAME_MAX and self.name.isprintable()):
            raise ValueError(f"name: 1 to {NAME_MAX} printable characters")
        if not AMOUNT_MIN <= self.amount <= AMOUNT_MAX:
            raise ValueError(f"amount: from {AMOUNT_MIN} to {AMOUNT_MAX:,.0f}")
        if not self.currency:
            raise ValueError("currency: as the machines' prices have it")
        if self.pool and not POOL_NAME.fullmatch(self.pool):
            raise ValueError("pool: a pool's name is 1 to 64 characters of a-z 0-9 -")
        if len(self.alarm_at) > ALARMS_MAX or not all(0 < at <= SHARE_MAX for at in self.alarm_at):
            raise ValueError(f"alarm_at: {ALARMS_MAX} shares at most, as 0.8 for 80 %")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"timezone: {self.timezone!r} is not known") from error

    @property
    def thresholds(self) -> dict[int, float]:
        """Micro -> its share of the amount; the lowest first."""
        micro = self.amount * MICRO
        return {max(1, round(micro * share)): share for share in sorted(self.alarm_at)}

    def window(self, now_ms: int) -> tuple[int, int]:
        """When the period of now began, and when it ends."""
        now = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(ZoneInfo(self.timezone))
        begin = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        if self.per == "month":
            begin = begin.replace(day=1)
            end = begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
        elif self.per == "week":
            begin -= timedelta(days=begin.weekday())
            end = begin + timedelta(days=7)
        else:
            end = begin + timedelta(days=1)
        return _ms(begin), _ms(end)


class Alarm(Struct, frozen=True, kw_only=True):
    """A threshold was passed in the period from ``begin_ms`` on. Money in micro."""

    budget: Budget
    begin_ms: int
    share: float
    threshold: int
    at_ms: int  # when it was seen
    spent: int
    used_up_ms: int | None = None  # as it seemed then


class Standing(NamedTuple):
    """How a budget stands. Money in micro. ``used_up_ms``: when it will be at this rate, if that is
    in this period and not over; ``expected``: at its end; ``uncounted``: machines of the pool that
    were billed in it without a known price or in another currency."""

    budget: Budget
    now_ms: int
    begin_ms: int
    end_ms: int
    spent: int
    per_hour: int
    expected: int
    used_up_ms: int | None
    uncounted: int
    alarms: tuple[Alarm, ...] = ()  # of this period
    looked_ms: int = 0  # when a scheduler last did


def standing(budget: Budget, machines: Sequence[Uptime], now_ms: int) -> Standing:
    """Pure. ``machines``: all that may be billed in the period (``costs.billed``)."""
    begin_ms, end_ms = budget.window(now_ms)
    ours = [
        one
        for one in machines
        if budget.pool in ("", one.pool) and max(one.launched_ms, begin_ms) < one.end_ms(now_ms)
    ]
    counted = [one for one in ours if one.is_priced and one.currency == budget.currency]
    spent = sum(one.cost(begin_ms, now_ms, now_ms) for one in counted)
    per_hour = sum(one.per_hour for one in counted if one.ended_ms is None)
    expected = spent + per_hour * (end_ms - now_ms) // HOUR_MS
    left, used_up_ms = round(budget.amount * MICRO) - spent, None
    if left > 0 and expected >= spent + left and per_hour:
        used_up_ms = now_ms + -(-left * HOUR_MS // per_hour)
    return Standing(
        budget,
        now_ms,
        begin_ms,
        end_ms,
        spent,
        per_hour,
        expected,
        used_up_ms,
        len(ours) - len(counted),
    )


def look(ledger: Ledger, wanted: Sequence[Budget], now_ms: int) -> list[Alarm]:
    """Write down which budgets there are, and which thresholds are passed; those that are new.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    with ledger.transaction() as connection:
        rows = connection.execute(select(table.c.name, table.c.looked_ms)).all()
        looked = {name: looked_ms for name, looked_ms in rows}
        # What was spent in the last moments of a period is seen in the next one.
        instants = [(each, each.window(looked.get(each.name, now_ms))[1] - 1) for each in wanted]
        instants += [(each, now_ms) for each in wanted]
        found = _standings(connection, [(each, min(at, now_ms)) for each, at in instants])
        _keep(connection, wanted, now_ms)
        passed = [alarm for each in found for alarm in _of(each)]
        return [alarm for alarm in passed if _is_new(connection, alarm)]


def standings(ledger: Ledger, now_ms: int) -> list[Standing]:
    """All budgets, as they stand now, with the alarms of their periods.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    with ledger.transaction() as connection:
        rows = connection.execute(select(table).order_by(table.c.place)).mappings().all()
        looked = {row["name"]: row["looked_ms"] for row in rows}
        asked = [(each, now_ms) for each in _read(_BUDGET, [row["record"] for row in rows])]
        found = []
        for each in _standings(connection, asked):
            name = each.budget.name
            told = (
                select(alarms.c.record)
                .where(alarms.c.budget == name, alarms.c.begin_ms == each.begin_ms)
                .order_by(alarms.c.threshold)
            )
            own = tuple(_read(_ALARM, connection.execute(told).scalars()))
            found.append(each._replace(alarms=own, looked_ms=looked[name]))
    return found


def untold(ledger: Ledger) -> list[Alarm]:
    """Alarms that are not on ``/admin/events`` yet, in their order.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    columns = alarms.c
    statement = (
        select(columns.record)
        .where(columns.told.is_(False))
        .order_by(columns.begin_ms, columns.budget, columns.threshold)
    )
    with ledger.transaction() as connection:
        return list(_read(_ALARM, connection.execute(statement).scalars()))


def tell(ledger: Ledger, alarm: Alarm) -> None:
    """It is told.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    columns = alarms.c
    statement = (
        update(alarms)
        .where(columns.budget == alarm.budget.name, columns.begin_ms == alarm.begin_ms)
        .where(columns.threshold == alarm.threshold)
        .values(told=True)
    )
    with ledger.transaction() as connection:
        connection.execute(statement)


def _standings(connection: Connection, asked: Sequence[tuple[Budget, int]]) -> list[Standing]:
    if not asked:
        return []
    from_ms = min(budget.window(at_ms)[0] for budget, at_ms in asked)
    machines = billed(connection, from_ms, max(at_ms for _, at_ms in asked))
    return [standing(budget, machines, at_ms) for budget, at_ms in asked]


def _of(found: Standing) -> list[Alarm]:
    return [
        Alarm(
            budget=found.budget,
            begin_ms=found.begin_ms,
            share=share,
            threshold=threshold,
            at_ms=found.now_ms,
            spent=found.spent,
            used_up_ms=found.used_up_ms,
        )
        for threshold, share in found.budget.thresholds.items()
        if found.spent >= threshold
    ]


def _keep(connection: Connection, wanted: Sequence[Budget], now_ms: int) -> None:
    """One that the file has no more is taken out, unless somebody looked later than now."""
    names = [budget.name for budget in wanted]
    gone = delete(table).where(table.c.name.not_in(names), table.c.looked_ms <= now_ms)
    connection.execute(gone)
    statement = upsert(connection, table)
    new = statement.excluded
    later = statement.on_conflict_do_update(
        index_elements=[table.c.name],
        set_={name: new[name] for name in ("place", "record", "looked_ms")},
        where=table.c.looked_ms <= new.looked_ms,
    )
    # Two who write the same rows take their locks in one order.
    rows = [
        {"name": name, "place": place, "record": record, "looked_ms": now_ms}
        for name, place, record in sorted(
            (budget.name, place, msgspec.json.encode(budget).decode())
            for place, budget in enumerate(wanted)
        )
    ]
    if rows:
        connection.execute(later, rows)


def _is_new(connection: Connection, alarm: Alarm) -> bool:
    statement = upsert(connection, alarms).on_conflict_do_nothing()
    row = {
        "budget": alarm.budget.name,
        "begin_ms": alarm.begin_ms,
        "threshold": alarm.threshold,
        "at_ms": alarm.at_ms,
        "record": msgspec.json.encode(alarm).decode(),
        "told": False,
    }
    return bool(connection.execute(statement.returning(alarms.c.threshold), row).all())


def _read(decoder: msgspec.json.Decoder[T], records: Iterable[str]) -> Iterator[T]:
    """Those that can be read: a newer Vestibule may have written one, or know more time zones."""
    for record in records:
        try:
            yield decoder.decode(record)
        except msgspec.MsgspecError:
            logs.event(log, "budget_unreadable", logging.ERROR)


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


_BUDGET = msgspec.json.Decoder(Budget)
_ALARM = msgspec.json.Decoder(Alarm)
