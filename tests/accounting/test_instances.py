"""What became of the fleet, in SQL: each entry once, each record the newest, nothing lost."""

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from sqlalchemy import select, update

from admission.accounting import instances
from admission.accounting.instance_tables import events, volumes
from admission.accounting.ledger import Ledger, LedgerUnavailable
from admission.accounting.tables import SCHEMA, schema
from admission.clock import ManualClock
from admission.instance import Event, Instance, State, Volume
from admission.store.fence import Fence
from admission.store.fleet_records import Recorded
from admission.store.fleet_store import FleetStore
from scheduler import fleet_accounts
from scheduler.fleet_accounts import FleetAccounts, drain_tick, prune_tick
from tests.fleet.words import DISK, NOW_MS, happened, machine, taken

DAY_S = 86_400
DAY_MS = DAY_S * 1000


def entry(number: int, event: Event, instance: Instance | None = None) -> Recorded:
    return Recorded(f"{number}-0", event, instance)


def past(*, version: int = 1, **changes: Any) -> Recorded:
    """The entry of a change of an instance, by its version."""
    one = machine(version=version, **changes)
    return entry(version, happened(one, f"v{version}"), one)


def archived(ledger: Ledger, **only: str) -> list[str]:
    found = instances.found(ledger, State.ARCHIVED, **only)  # type: ignore[arg-type]
    return [one.id for one in found]


def rows(ledger: Ledger, table: Any = events) -> list[dict[str, object]]:
    with ledger.transaction() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def test_an_entry_counts_once_and_comes_back_as_it_was(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    one = machine(volumes=(DISK,), error="é", launched_ms=NOW_MS)
    first = entry(9, happened(one, target="provisioning", reason="a surge", detail={"n": 1.5}))
    last = entry(10, happened(one, "launch", ok=False, progress=20), one)
    assert instances.add(ledger, [first, last, last]) == 2
    assert instances.add(ledger, [last, first]) == 0
    assert instances.add(ledger, []) == 0
    assert instances.instance(ledger, "i-1") == one
    assert instances.history(ledger, "i-1", 10) == [first.event, last.event]
    assert instances.history(ledger, "i-1", 1) == [last.event]
    assert instances.instance(ledger, "i-2") is None
    assert not caplog.records


def test_entries_are_in_their_order_inside_a_millisecond(ledger: Ledger) -> None:
    numbers = ["7-9", "7-10", "8-0", "10-0"]
    entries = [Recorded(number, happened("m", number), None) for number in numbers]
    instances.add(ledger, entries[::-1])
    assert [event.name for event in instances.history(ledger, "m", 10)] == numbers


def test_a_row_never_goes_back_to_an_older_entry(ledger: Ledger) -> None:
    bare, disk = machine(version=3), msgspec.structs.replace(DISK, state="deleted", deleted_ms=5)
    instances.add(ledger, [past(version=2, volumes=(disk,)), past(volumes=(DISK,))])
    instances.add(ledger, [past(volumes=(DISK,), address="old")])
    assert instances.instance(ledger, "i-1") == machine(version=2, volumes=(disk,))
    [row] = rows(ledger, volumes)
    assert (row["state"], row["deleted_ms"], row["entry_ms"]) == ("deleted", 5, 2)
    instances.add(ledger, [entry(3, happened(bare), bare)])
    assert len(rows(ledger, volumes)) == 1, "a disk that its instance no longer names stays"
    again = machine(version=1, address="adopted")
    instances.add(ledger, [entry(4, happened(again), again)])
    assert instances.instance(ledger, "i-1") == again, "its record was forgotten, and made anew"


def test_disks_are_told_apart_by_their_provider(ledger: Ledger) -> None:
    kept = Volume("vol-1", "gp3", 5, delete_on_terminate=False)
    aws = msgspec.structs.replace(machine("i-2").order, provider="aws")
    instances.add(ledger, [past(volumes=(DISK,))])
    other = machine("i-2", order=aws, volumes=(kept,))
    instances.add(ledger, [entry(2, happened(other), other)])
    found = {row["instance_id"]: row["delete_on_terminate"] for row in rows(ledger, volumes)}
    assert found == {"i-1": True, "i-2": False}


def test_instances_are_found_by_their_last_state(ledger: Ledger) -> None:
    gpu = msgspec.structs.replace(machine().order, pool="gpu", provider="aws")
    made = [
        machine("i-1", state=State.ARCHIVED),
        machine("i-2", state=State.ARCHIVED, order=gpu, requested_ms=NOW_MS + 5),
        machine("i-3", state=State.READY),
    ]
    instances.add(ledger, [entry(n, happened(one), one) for n, one in enumerate(made, 1)])
    assert archived(ledger) == ["i-2", "i-1"]
    assert archived(ledger, pool="gpu") == archived(ledger, provider="aws") == ["i-2"]
    assert archived(ledger, pool="gpu", provider="local") == []


def test_a_text_that_sql_cannot_hold_is_held_without_it(ledger: Ledger) -> None:
    one = machine(error="a\0b")
    instances.add(ledger, [entry(1, happened(one, reason="a\0b"), one)])
    assert instances.history(ledger, "i-1", 1)[0].reason == "ab"
    assert instances.instance(ledger, "i-1") == one, "inside JSON it is told"


def test_what_cannot_be_written_holds_up_no_other(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    bad = entry(1, happened("i-1", reason=None))
    assert instances.add(ledger, [bad, past(version=2)]) == 1
    assert instances.instance(ledger, "i-1") == machine(version=2)
    assert "fleet_unwritable entry=1-0" in caplog.text


def test_what_is_old_goes_with_all_that_belongs_to_it(ledger: Ledger) -> None:
    old = machine("i-1", state=State.ARCHIVED, volumes=(DISK,), since_ms=NOW_MS - 1)
    alive = machine("i-2", state=State.READY, since_ms=NOW_MS - 1)
    new = machine("i-3", state=State.ARCHIVED, since_ms=NOW_MS)
    instances.add(ledger, [entry(n, happened(one), one) for n, one in enumerate([old, alive, new])])
    past_event = msgspec.structs.replace(happened(alive), at_ms=NOW_MS - 1)
    instances.add(ledger, [entry(9, past_event)])
    assert instances.prune(ledger, NOW_MS) == 1
    assert instances.prune(ledger, NOW_MS) == 0
    found = [instances.instance(ledger, name) for name in ("i-1", "i-2", "i-3")]
    assert found == [None, alive, new]
    assert rows(ledger, volumes) == []
    assert len(instances.history(ledger, "i-2", 9)) == 1


def test_a_database_of_version_1_is_upgraded_by_who_writes(url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    writer = Ledger(url)
    writer.open()
    with writer.transaction() as connection:
        connection.execute(update(schema).values(version=1))
    writer.close()
    raw = sqlite3.connect(path)
    raw.executescript("DROP TABLE vestibule_instances; DROP TABLE vestibule_instance_events;")
    raw.close()
    reader = Ledger(url, writes=False)
    with pytest.raises(LedgerUnavailable):
        instances.instance(reader, "i-1")
    writer = Ledger(url)
    assert instances.add(writer, [past()]) == 1
    with writer.transaction() as connection:
        assert connection.execute(select(schema.c.version)).scalar_one() == SCHEMA
    assert instances.instance(reader, "i-1") == machine()
    writer.close()
    reader.close()


# --- the ticks ---------------------------------------------------------------------------------


@pytest.fixture
async def fleet(redis: Redis, clock: ManualClock) -> FleetStore:
    """Seven lines of two instances, one of them archived."""
    store = FleetStore(redis, clock, history_kept=2)
    fence = await taken(redis, clock, "a")
    for version in range(1, 6):
        one = machine(version=version, state=State.READY if version < 5 else State.ARCHIVED)
        assert await store.write(fence, one, version - 1, [happened(one, f"v{version}")])
    other = machine("i-2")
    assert await store.write(fence, other, 0, [happened(other), happened(other, "launch")])
    return store


async def test_all_of_the_history_comes_into_sql_in_steps(
    fleet: FleetStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_accounts, "BATCH", 2)
    monkeypatch.setattr(fleet_accounts, "BATCHES", 2)
    assert not await drain_tick(fleet, ledger)
    assert len(rows(ledger)) == 4
    assert await drain_tick(fleet, ledger)
    assert len(rows(ledger)) == 7
    assert await fleet.drained() == (await fleet.ends())[1]
    assert await drain_tick(fleet, ledger)
    assert archived(ledger) == ["i-1"]
    assert [e.name for e in instances.history(ledger, "i-2", 9)] == ["provision", "launch"]


async def test_a_crash_between_sql_and_redis_loses_nothing_and_doubles_nothing(
    fleet: FleetStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(entry: str) -> None:
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr(fleet, "drain", crash)
        with pytest.raises(RuntimeError):
            await drain_tick(fleet, ledger)
    assert await fleet.drained() == "0-0"
    assert await drain_tick(fleet, ledger)
    assert len(rows(ledger)) == 7


async def test_a_database_that_is_away_leaves_it_in_redis(
    fleet: FleetStore, ledger: Ledger, tmp_path: Path
) -> None:
    nowhere = Ledger(f"sqlite:///{tmp_path}/file/under/x.db")
    (tmp_path / "file").touch()
    with pytest.raises(LedgerUnavailable):
        await drain_tick(fleet, nowhere)
    assert await fleet.drained() == "0-0"
    assert await drain_tick(fleet, ledger)
    assert len(rows(ledger)) == 7
    nowhere.close()


async def test_the_duties_keep_what_is_young(
    fleet: FleetStore, ledger: Ledger, clock: ManualClock
) -> None:
    fence = Fence("fleet_drain", 1)
    accounts = FleetAccounts(fleet, ledger, retention_s=DAY_S)
    assert await accounts.drain(fence) is None
    clock.advance_ms(DAY_MS)
    await accounts.prune(fence)
    assert archived(ledger) == ["i-1"]
    clock.advance_ms(1)
    await accounts.prune(fence)
    assert archived(ledger) == []
    assert await prune_tick(ledger, NOW_MS + DAY_MS) == 0
    assert instances.instance(ledger, "i-2") is not None
