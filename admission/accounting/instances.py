"""The fleet's past in SQL: what machines there were, what became of them, which disks they had.

An entry of the history counts once, however often it comes, and a row of an instance or a disk
never goes back to an older entry: so any number of schedulers may drain the same stream, and die
at any moment.

Everything here blocks; call it in a thread.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, and_, delete, select, tuple_
from sqlalchemy.exc import DataError, IntegrityError

from admission import logs
from admission.accounting import uptimes
from admission.accounting.cost import Uptime
from admission.accounting.instance_tables import ENTRY, events, instances, volumes
from admission.accounting.ledger import Ledger, LedgerUnavailable
from admission.accounting.upsert import upsert
from admission.instance import Event, Instance, State
from admission.store.fleet_records import Recorded

PRUNED_AT_ONCE = 1_000  # instances, with all that belongs to them

_INSTANCE = msgspec.json.Decoder(Instance)

log = logging.getLogger(__name__)


def add(ledger: Ledger, entries: Sequence[Recorded]) -> int:
    """Write entries of the history; how many of them were new.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    try:
        with ledger.transaction() as connection:
            return _add(connection, entries)
    except LedgerUnavailable as error:
        if not isinstance(error.__cause__, DataError | IntegrityError):
            raise
        if len(entries) > 1:  # one cannot be written, and must not hold up the others
            return sum(add(ledger, [entry]) for entry in entries)
        logs.event(log, "fleet_unwritable", logging.ERROR, entry=entries[0].entry)
        return 0


def found(
    ledger: Ledger,
    state: State,
    *,
    pool: str | None = None,
    provider: str | None = None,
    offset: int = 0,
    limit: int = 1_000,
) -> list[Instance]:
    """One page of the instances that were last seen in a state, the newest first.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    wanted = [instances.c.state == state.value]
    wanted += [instances.c.pool == pool] if pool is not None else []
    wanted += [instances.c.provider == provider] if provider is not None else []
    statement = (
        select(instances.c.record)
        .where(and_(*wanted))
        .order_by(instances.c.requested_ms.desc(), instances.c.id)
        .offset(offset)
        .limit(limit)
    )
    with ledger.transaction() as connection:
        records = connection.execute(statement).scalars().all()
    return [_INSTANCE.decode(record) for record in records]


def instance(ledger: Ledger, instance_id: str) -> Instance | None:
    """An instance as it last was.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    statement = select(instances.c.record).where(instances.c.id == instance_id)
    with ledger.transaction() as connection:
        record = connection.execute(statement).scalar()
    return None if record is None else _INSTANCE.decode(record)


def history(ledger: Ledger, instance_id: str, most: int) -> list[Event]:
    """The newest ``most`` lines of an instance's history, the oldest of them first.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    columns = events.c
    statement = (
        select(events)
        .where(columns.instance_id == instance_id)
        .order_by(columns.entry_ms.desc(), columns.entry_number.desc())
        .limit(most)
    )
    with ledger.transaction() as connection:
        rows = connection.execute(statement).mappings().all()
    return [
        Event(
            **{name: row[name] for name in Event.__struct_fields__ if name != "detail"},
            detail=msgspec.json.decode(row["detail"]),
        )
        for row in reversed(rows)
    ]


def prune(ledger: Ledger, before_ms: int) -> int:
    """Forget events that are older, and up to ``PRUNED_AT_ONCE`` instances that were archived
    before, with their disks; how many instances it were.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    old = (
        select(instances.c.id)
        .where(instances.c.state == State.ARCHIVED.value, instances.c.since_ms < before_ms)
        .order_by(instances.c.requested_ms)
        .limit(PRUNED_AT_ONCE)
    )
    with ledger.transaction() as connection:
        gone = connection.execute(old).scalars().all()
        connection.execute(delete(volumes).where(volumes.c.instance_id.in_(gone)))
        connection.execute(delete(instances).where(instances.c.id.in_(gone)))
        connection.execute(delete(events).where(events.c.at_ms < before_ms))
    return len(gone)


def _add(connection: Connection, entries: Sequence[Recorded]) -> int:
    rows = {(row["entry_ms"], row["entry_number"]): row for row in map(_event_row, entries)}
    if not rows:
        return 0
    statement = upsert(connection, events).on_conflict_do_nothing().returning(events.c.entry_number)
    # Two who write the same rows take their locks in one order, and none waits for the other.
    new = connection.execute(statement, [rows[key] for key in sorted(rows)]).all()
    newest: dict[str, Recorded] = {}
    for entry in sorted(entries, key=_place):
        if entry.instance is not None:
            newest[entry.instance.id] = entry
    last = [newest[name] for name in sorted(newest)]
    if last:
        connection.execute(_later(connection, instances), list(map(_instance_row, last)))
    uptimes.keep(connection, _uptimes(last))
    disks = {(row["provider"], row["provider_volume_id"]): row for row in _volume_rows(last)}
    if disks:
        connection.execute(_later(connection, volumes), [disks[key] for key in sorted(disks)])
    return len(new)


def _later(connection: Connection, table: Table) -> Any:
    """The insert that takes the place of a row from an earlier entry."""
    statement = upsert(connection, table)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={each.name: new[each.name] for each in table.columns if not each.primary_key},
        where=tuple_(*(table.c[name] for name in ENTRY)) <= tuple_(*(new[name] for name in ENTRY)),
    )


def _place(entry: Recorded) -> tuple[int, ...]:
    return tuple(map(int, entry.entry.split("-")))


def _entry(entry: Recorded) -> dict[str, int]:
    return dict(zip(ENTRY, _place(entry), strict=True))


def _event_row(entry: Recorded) -> dict[str, Any]:
    fields = {name: getattr(entry.event, name) for name in Event.__struct_fields__}
    detail = msgspec.json.encode(entry.event.detail).decode()
    return _clean({**_entry(entry), **fields, "detail": detail})


def _instance_row(entry: Recorded) -> dict[str, Any]:
    one = entry.instance
    assert one is not None
    order, names = one.order, ("requested_ms", "since_ms", "launched_ms", "ended_ms", "version")
    of_order = ("provider", "pool", "type", "zone", "market", "model", "currency", "price_per_hour")
    return _clean(
        {
            **_entry(entry),
            "id": one.id,
            "state": one.state.value,
            **{name: getattr(order, name) for name in of_order},
            **{name: getattr(one, name) for name in names},
            "record": msgspec.json.encode(one).decode(),
        }
    )


def _uptimes(entries: Sequence[Recorded]) -> Iterator[tuple[dict[str, int], Uptime]]:
    for entry in entries:
        if entry.instance is not None and (uptime := Uptime.of(entry.instance)) is not None:
            yield _entry(entry), uptime


def _volume_rows(entries: Sequence[Recorded]) -> list[dict[str, Any]]:
    return [
        _clean(
            {
                **_entry(entry),
                "provider": one.order.provider,
                "instance_id": one.id,
                **{name: getattr(disk, name) for name in disk.__struct_fields__},
            }
        )
        for entry in entries
        if (one := entry.instance) is not None
        for disk in one.volumes
    ]


def _clean(row: dict[str, Any]) -> dict[str, Any]:
    """PostgreSQL has no NUL in a text, and a provider's words may be of any kind."""
    return {
        name: value.replace("\0", "") if isinstance(value, str) else value
        for name, value in row.items()
    }
