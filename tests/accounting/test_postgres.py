"""The same accounting over a real PostgreSQL: two that drain at once, crashes, a newer schema."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec
import pytest
from sqlalchemy import delete, select, update

from admission.accounting import cost_tables, instance_tables, instances
from admission.accounting.budgets import Budget, look, standings, tell, untold
from admission.accounting.cost import BY
from admission.accounting.costs import Asked, costs
from admission.accounting.history import Period, Sample, history, keep
from admission.accounting.ledger import Ledger, LedgerUnavailable, UnfitLedger, begin_of
from admission.accounting.reports import Question, usage, used_models
from admission.accounting.tables import metadata, requests, schema
from admission.instance import State
from admission.store.fleet_records import Recorded
from admission.store.usage_store import UsageStore
from scheduler.accounts import drain_tick, prune_tick
from tests.accounting import postgres
from tests.accounting.conftest import AT_MS, DAY_MS, HOUR_MS, record
from tests.accounting.postgres import Postgres
from tests.accounting.test_costs import BEGIN_MS, END_MS, billed
from tests.fleet.words import DISK, NOW_MS, happened, machine

pytestmark = pytest.mark.long
RECORDS = 3000


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    found = postgres.programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    with postgres.running(found) as server:
        yield server


@pytest.fixture
def ledgers(server: Postgres) -> Iterator[list[Ledger]]:
    """Two over one database, which has no tables yet."""
    both = [Ledger(server.url), Ledger(server.url)]
    with both[0].transaction() as connection:
        metadata.drop_all(connection)
    both[0].close()
    both[0] = Ledger(server.url)
    yield both
    for ledger in both:
        ledger.close()


async def fill(stream: UsageStore, count: int = RECORDS) -> None:
    """Records of 7 users over 3 days."""
    for start in range(0, count, 500):
        await stream.append(
            [
                msgspec.msgpack.encode(
                    record(n, user=f"u{n % 7}", at_ms=AT_MS + n * 3 * DAY_MS // count)
                )
                for n in range(start, min(start + 500, count))
            ]
        )


def check(ledger: Ledger, count: int = RECORDS) -> None:
    """Every record is there once, in its row and in its sums."""
    with ledger.transaction() as connection:
        rows = connection.execute(select(requests.c.at_ms, requests.c.user)).all()
    assert len(rows) == count
    for span in ("hour", "day", "week"):
        expected: dict[tuple[int, str], int] = {}
        for at_ms, user in rows:
            key = begin_of(span, at_ms), user
            expected[key] = expected.get(key, 0) + 1
        found = usage(ledger, Question(span, 0, 2**60, by=("user",)))
        assert {(row["begin_ms"], row["user"]): row["requests"] for row in found} == expected
    assert [model["uses"] for model in used_models(ledger)] == [count]


async def test_two_that_begin_at_once_and_drain_at_once(
    usage: UsageStore, ledgers: list[Ledger]
) -> None:
    await asyncio.gather(*(asyncio.to_thread(ledger.open) for ledger in ledgers))
    for _ in range(4):
        await fill(usage)  # each record four times
        await asyncio.gather(*(drain_tick(usage, ledger) for ledger in ledgers))
    assert await usage.length() == 0
    check(ledgers[0])


async def test_a_database_that_crashes_meanwhile(
    usage: UsageStore, ledgers: list[Ledger], server: Postgres
) -> None:
    await fill(usage)

    async def drain(ledger: Ledger) -> None:
        while await usage.length():
            with suppress(LedgerUnavailable):
                await drain_tick(usage, ledger)
            await asyncio.sleep(0.01)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for ledger in ledgers:
            group.create_task(drain(ledger))
        for _ in range(3):
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
    check(ledgers[1])


async def test_away_it_says_so_soon_and_comes_back(ledgers: list[Ledger], server: Postgres) -> None:
    ledgers[0].add([record()])
    server.stop()
    try:
        async with asyncio.timeout(10):
            with pytest.raises(LedgerUnavailable):
                await asyncio.to_thread(ledgers[0].add, [record(2)])
    finally:
        server.start()
    assert ledgers[0].add([record(1), record(2)]) == 1


async def test_old_rows_go_and_their_sums_stay(usage: UsageStore, ledgers: list[Ledger]) -> None:
    ledgers[0].add([record(n, at_ms=AT_MS + n * HOUR_MS) for n in range(10)])
    assert await prune_tick(usage, ledgers[0], AT_MS + 4 * HOUR_MS) == 4
    assert used_models(ledgers[1])[0]["uses"] == 10


def test_what_cannot_be_written_does_not_hold_up_the_others(ledgers: list[Ledger]) -> None:
    assert ledgers[0].add([record(1), record(2, model="nul\0"), record(3)]) == 2


def test_who_only_reads_makes_no_tables(ledgers: list[Ledger], server: Postgres) -> None:
    reader = Ledger(server.url, writes=False)
    with pytest.raises(LedgerUnavailable, match="no scheduler"):
        used_models(reader)
    ledgers[0].add([record()])
    assert len(used_models(reader)) == 1
    reader.close()


def test_the_fleets_past_is_written_once_by_two_at_once(ledgers: list[Ledger]) -> None:
    lines = [machine(f"i-{n % 9}", version=n, volumes=(DISK,)) for n in range(1, 400)]
    entries = [Recorded(f"{n}-0", happened(one, "a\0b"), one) for n, one in enumerate(lines, 1)]
    with ThreadPoolExecutor(2) as threads:
        new = list(threads.map(lambda ledger: instances.add(ledger, entries), ledgers))
    assert sum(new) == len(lines)
    assert instances.add(ledgers[0], entries[:50]) == 0
    found = instances.instance(ledgers[1], "i-3")
    assert found is not None
    assert found.version == 399
    assert len(instances.history(ledgers[1], "i-3", 1000)) == 45
    gone = machine("i-3", version=400, state=State.ARCHIVED, volumes=(DISK,))
    instances.add(ledgers[1], [Recorded("400-0", happened(gone), gone)])
    assert instances.found(ledgers[0], State.ARCHIVED) == [gone]
    assert instances.prune(ledgers[0], NOW_MS + 1) == 1
    assert instances.instance(ledgers[1], "i-3") is None


def test_the_history_is_written_once_by_two_at_once_and_read_in_steps(
    ledgers: list[Ledger],
) -> None:
    ledgers[0].add([record(n, at_ms=AT_MS + n * 1000) for n in range(60)])
    seen = [Sample("default", "", 2, 4, 3, 7, wait_ms=10), Sample("default", "w-1", 1, 2, 1, 0)]
    intervals = [AT_MS + n * 10_000 for n in range(6)]

    def write(ledger: Ledger) -> int:
        return sum(
            keep(ledger, seen, begin_ms=begin_ms, end_ms=begin_ms + 10_000, forget_ms=0)
            for begin_ms in intervals
        )

    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(write, ledgers)) == 12
    begin_ms = AT_MS // 60_000 * 60_000
    rows = history(ledgers[1], Period(begin_ms, begin_ms + HOUR_MS, 60_000, "default", "w-1"))
    assert sum(row["requests"] for row in rows) == 60
    assert {row["since_ms"] % 60_000 for row in rows} == {0}
    assert [(row["ready"], row["slots"], row["wait_ms"]) for row in rows] == [(1, 2, None)] * 2
    keep(ledgers[0], [], begin_ms=AT_MS, end_ms=AT_MS, forget_ms=AT_MS + HOUR_MS)
    assert not history(ledgers[0], Period(0, 2**60, 60_000, "default"))


def test_costs_are_shared_exactly_and_budgets_alarm_once(ledgers: list[Ledger]) -> None:
    running = msgspec.structs.replace(billed("i-3", price_per_hour=0.1), ended_ms=None)
    entries = [
        Recorded(f"{n}-0", happened(one), one)
        for n, one in enumerate([billed(hours=2), billed("i-2", currency="EUR"), running], 1)
    ]
    records = [
        record(n, worker=f"i-{n % 2 + 1}", user=f"u{n % 7}", at_ms=AT_MS + n) for n in range(700)
    ]
    budget = Budget(name="lab", amount=1, per="day")

    def write(ledger: Ledger) -> int:
        instances.add(ledger, entries)
        ledger.add(records)
        return len(look(ledger, [budget], END_MS))

    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(write, ledgers)) == 3
    for by in BY:
        found = costs(ledgers[0], Asked(by, BEGIN_MS, END_MS, END_MS))
        assert sum(row.used + row.unused for row in found.rows) == 3_400_000
        assert found.totals == {"EUR": (1_000_000, 0), "USD": (1_000_000, 1_400_000)}
    users = costs(ledgers[1], Asked("user", BEGIN_MS, END_MS, END_MS)).rows
    assert {row.used for row in users if row.name} == {142_857, 142_858}
    [stands] = standings(ledgers[1], END_MS)
    assert (stands.spent, len(stands.alarms), stands.uncounted) == (2_400_000, 3, 1)
    for alarm in untold(ledgers[0]):
        tell(ledgers[1], alarm)
    assert untold(ledgers[0]) == look(ledgers[0], [budget], END_MS) == []


def test_version_2_gets_its_costs(ledgers: list[Ledger], server: Postgres) -> None:
    one = billed()
    instances.add(ledgers[0], [Recorded("1-0", happened(one), one)])
    ledgers[0].add([record(n, worker="i-1", user=f"u{n % 3}") for n in range(9)])
    asked = Asked("user", BEGIN_MS, END_MS, END_MS)
    before = costs(ledgers[0], asked)
    with ledgers[0].transaction() as connection:
        for table in (cost_tables.uptimes, cost_tables.work):
            table.drop(connection)
        connection.execute(update(schema).values(version=2))
    both = [Ledger(server.url), Ledger(server.url)]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda ledger: costs(ledger, asked), both)) == [before, before]
    for ledger in both:
        ledger.close()


def test_version_1_is_upgraded_by_one_of_two(ledgers: list[Ledger], server: Postgres) -> None:
    ledgers[0].add([record()])
    with ledgers[0].transaction() as connection:
        instance_tables.events.drop(connection)
        connection.execute(update(schema).values(version=1))
    both = [Ledger(server.url), Ledger(server.url)]
    one = machine()
    entries = [Recorded("1-0", happened(one), one)]
    with ThreadPoolExecutor(2) as threads:
        new = list(threads.map(lambda ledger: instances.add(ledger, entries), both))
    assert sum(new) == 1
    assert used_models(both[0])[0]["uses"] == 1, "what was there stays"
    for ledger in both:
        ledger.close()


def test_a_newer_schema_is_refused(ledgers: list[Ledger], server: Postgres) -> None:
    with ledgers[0].transaction() as connection:
        connection.execute(update(schema).values(version=99))
    try:
        with pytest.raises(UnfitLedger, match="version 99"):
            ledgers[1].open()
    finally:
        with ledgers[0].transaction() as connection:
            connection.execute(delete(schema))
