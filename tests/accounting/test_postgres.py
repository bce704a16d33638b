"""The same accounting over a real PostgreSQL: two that drain at once, crashes, a newer schema."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import pytest
from sqlalchemy import delete, select, update

from admission.accounting.ledger import Ledger, LedgerUnavailable, UnfitLedger, begin_of
from admission.accounting.reports import Question, usage, used_models
from admission.accounting.tables import metadata, requests, schema
from admission.store.usage_store import UsageStore
from scheduler.accounts import drain_tick, prune_tick
from tests.accounting import postgres
from tests.accounting.conftest import AT_MS, DAY_MS, HOUR_MS, record
from tests.accounting.postgres import Postgres

pytestmark = pytest.mark.soak
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


def test_a_newer_schema_is_refused(ledgers: list[Ledger], server: Postgres) -> None:
    with ledgers[0].transaction() as connection:
        connection.execute(update(schema).values(version=99))
    try:
        with pytest.raises(UnfitLedger, match="version 99"):
            ledgers[1].open()
    finally:
        with ledgers[0].transaction() as connection:
            connection.execute(delete(schema))
