"""What waits in the stream comes into SQL once, whoever dies on the way."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from admission.accounting.journal import Journal
from admission.accounting.ledger import Ledger, LedgerUnavailable
from admission.accounting.record import Record
from admission.accounting.reports import Question, usage
from admission.accounting.threads import to_read
from admission.clock import ManualClock
from admission.errors import StoreUnavailable
from admission.store import names
from admission.store.fence import Fence
from admission.store.redis_store import RedisStore
from admission.store.usage_store import UsageStore
from scheduler import accounts, clockwork, table
from scheduler.accounts import drain_tick, prune_tick
from scheduler.books import Books
from tests.accounting.conftest import AT_MS, DAY_MS, record
from tests.conftest import service_settings


@pytest.fixture
def stream(redis: Redis, clock: ManualClock) -> UsageStore:
    return UsageStore(redis, clock)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'usage.db'}"


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger(url)


async def send(stream: UsageStore, records: Sequence[Record]) -> None:
    await stream.append([msgspec.msgpack.encode(each) for each in records])


def counted(ledger: Ledger) -> int:
    return sum(row["requests"] for row in usage(ledger, Question("day", 0, 2**60)))


async def test_what_waits_is_written_and_then_forgotten(stream: UsageStore, ledger: Ledger) -> None:
    assert await drain_tick(stream, ledger)
    await send(stream, [record(n) for n in range(1203)])
    assert await drain_tick(stream, ledger)
    assert (await stream.length(), counted(ledger)) == (0, 1203)


async def test_one_tick_is_bounded(
    stream: UsageStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "BATCH", 10)
    monkeypatch.setattr(accounts, "BATCHES", 3)
    await send(stream, [record(n) for n in range(35)])
    assert not await drain_tick(stream, ledger)
    assert counted(ledger) == 30
    assert await drain_tick(stream, ledger)
    assert counted(ledger) == 35


async def test_a_database_that_hangs_takes_the_threads_of_nobody_else(
    stream: UsageStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Providers and reports use threads, too; each drain would keep one."""
    answers, began = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))

    def hang(_: Sequence[Record]) -> int:
        loop.call_soon_threadsafe(began.set)
        answers.wait()
        return 0

    monkeypatch.setattr(ledger, "add", hang)
    await send(stream, [record(1)])
    drains = [asyncio.create_task(drain_tick(stream, ledger)) for _ in range(2)]
    try:
        async with asyncio.timeout(20):
            await began.wait()
            assert await asyncio.to_thread(lambda: "done") == "done"
            assert await to_read(lambda: "read") == "read"
        assert not any(drain.done() for drain in drains)
    finally:
        answers.set()
    await asyncio.gather(*drains)
    monkeypatch.undo()
    assert await drain_tick(stream, ledger)


async def test_two_at_once_count_once(stream: UsageStore, url: str) -> None:
    ledgers = [Ledger(url), Ledger(url)]
    for start in range(0, 2000, 100):
        await send(stream, [record(n) for n in range(start, start + 100)])
        await asyncio.gather(*(drain_tick(stream, ledger) for ledger in ledgers))
    assert (await stream.length(), counted(ledgers[0])) == (0, 2000)


async def test_it_dies_between_the_insert_and_the_delete(
    stream: UsageStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(stream, [record(n) for n in range(50)])

    async def away(_: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(stream, "forget", away)
        with pytest.raises(StoreUnavailable):
            await drain_tick(stream, ledger)
    assert (await stream.length(), counted(ledger)) == (50, 50)
    assert await drain_tick(stream, ledger)
    assert (await stream.length(), counted(ledger)) == (0, 50)


_KILLED = """
import asyncio, sys
from redis.asyncio import Redis
from admission.accounting.ledger import Ledger
from admission.clock import ManualClock
from admission.store.usage_store import UsageStore
from scheduler.accounts import drain_tick

class Slow(UsageStore):
    async def forget(self, entries):
        print("inserted", flush=True)
        await asyncio.sleep(60)

async def main():
    redis = Redis.from_url(sys.argv[1])
    await drain_tick(Slow(redis, ManualClock()), Ledger(sys.argv[2]))

asyncio.run(main())
"""


async def test_a_process_is_killed_between_the_insert_and_the_delete(
    stream: UsageStore, ledger: Ledger, url: str, valkey: str
) -> None:
    await send(stream, [record(n) for n in range(50)])
    command = [sys.executable, "-c", _KILLED, valkey, url]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"inserted\n"
    process.kill()
    await process.wait()
    assert await stream.length() == 50
    assert await drain_tick(stream, ledger)
    assert (await stream.length(), counted(ledger)) == (0, 50)


async def test_a_database_that_is_away_leaves_all_in_the_stream(
    stream: UsageStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(stream, [record()])

    def away(_: object) -> None:
        raise LedgerUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "add", away)
        with pytest.raises(LedgerUnavailable):
            await drain_tick(stream, ledger)
    assert await stream.length() == 1
    assert await drain_tick(stream, ledger)
    assert counted(ledger) == 1


async def test_a_batch_that_was_sent_twice_counts_once(stream: UsageStore, ledger: Ledger) -> None:
    for _ in range(2):
        await send(stream, [record(1), record(2)])
    await drain_tick(stream, ledger)
    assert counted(ledger) == 2


async def test_what_cannot_be_read_is_named_and_holds_nothing_up(
    stream: UsageStore, ledger: Ledger, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.xadd(names.USAGE_KEY, {"r": b"\xc1not a record"})
    await redis.xadd(names.USAGE_KEY, {"other": b""})
    await send(stream, [record()])
    await drain_tick(stream, ledger)
    assert (await stream.length(), counted(ledger)) == (0, 1)
    assert caplog.text.count("usage_unreadable") == 2


async def test_old_requests_go_and_sums_stay(stream: UsageStore, ledger: Ledger) -> None:
    await send(stream, [record(n, at_ms=AT_MS + n * DAY_MS) for n in range(10)])
    assert await prune_tick(stream, ledger, AT_MS + 4 * DAY_MS) == 4
    assert await prune_tick(stream, ledger, AT_MS + 4 * DAY_MS) == 0
    assert counted(ledger) == 10


async def test_nothing_goes_while_something_waits(
    stream: UsageStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written and yet in the stream would count again once its row is gone."""
    monkeypatch.setattr(accounts, "BATCHES", 0)
    ledger.add([record()])
    await send(stream, [record()])
    assert await prune_tick(stream, ledger, AT_MS + DAY_MS) == 0
    monkeypatch.undo()
    assert await prune_tick(stream, ledger, AT_MS + DAY_MS) == 1
    assert counted(ledger) == 1


async def test_the_clockwork_drains(
    store: RedisStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "TICK_S", 0.05)
    settings = service_settings()
    journal = Journal(store.usage, lambda: AT_MS)
    journal.note(record())
    await journal.flush()
    async with (
        asyncio.timeout(10),
        clockwork.running(store, [], books=Books.of(store, store.usage, ledger, settings)),
    ):
        while await store.usage.length():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert counted(ledger) == 1


async def test_what_was_old_when_it_came_is_counted_once(
    stream: UsageStore, ledger: Ledger, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is drained and pruned at the same moment."""
    books = accounts.Accounts(stream, ledger, 1)
    read, go_on = asyncio.Event(), asyncio.Event()
    oldest = stream.oldest

    async def slow(count: int) -> list[tuple[bytes, bytes]]:
        found = await oldest(count)
        if not read.is_set():
            read.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(stream, "oldest", slow)
    await send(stream, [record(1, at_ms=clock.now_ms() - DAY_MS)])
    draining = asyncio.create_task(books.drain(Fence("drain", 1)))
    await read.wait()
    pruning = asyncio.create_task(books.prune(Fence("prune", 1)))
    await asyncio.wait({pruning}, timeout=0.3)
    go_on.set()
    await asyncio.gather(draining, pruning)
    assert counted(ledger) == 1


async def test_what_is_old_is_so_by_the_stores_clock(
    stream: UsageStore, ledger: Ledger, clock: ManualClock
) -> None:
    """A host whose own clock is years ahead would forget everything."""
    day_s = DAY_MS // 1000
    await send(stream, [record(1, at_ms=clock.now_ms()), record(2, at_ms=clock.now_ms() - DAY_MS)])
    await accounts.Accounts(stream, ledger, 2 * day_s).prune(Fence("prune", 1))
    assert ledger.prune(2**60) == 2
    await send(stream, [record(3, at_ms=clock.now_ms()), record(4, at_ms=clock.now_ms() - DAY_MS)])
    await accounts.Accounts(stream, ledger, day_s // 2).prune(Fence("prune", 1))
    assert ledger.prune(2**60) == 1
