"""The sampling tick writes each interval once, from what the gate counts and the workers report."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from admission.accounting.history import EACH_WORKER, Period, history
from admission.accounting.ledger import Ledger, LedgerUnavailable
from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, WorkerReport
from admission.store.fence import Fence
from admission.store.redis_store import RedisStore
from scheduler.samples import AFTER_MS, Samples
from tests.accounting.conftest import MINUTE_MS, record

FENCE = Fence("sample", 1)
LOAD = {"gpu_load": 0.5, "gpu_memory_used_mb": 30, "gpu_memory_total_mb": 40}
REPORT = WorkerReport(True, None, ("tiny",), slots=4, in_flight=3, queue_depth=1, load=LOAD)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'usage.db'}")


@pytest.fixture
def samples(store: RedisStore, ledger: Ledger) -> Samples:
    return Samples(store, ledger, interval_s=60, retention_s=3600)


def read(ledger: Ledger, worker: str = "", pool: str = DEFAULT_POOL) -> list[dict[str, Any]]:
    return history(ledger, Period(0, 2**60, MINUTE_MS, pool, worker))


async def fill(store: RedisStore) -> None:
    """Two slots, five users; one ready agent, a silent one, and a static upstream with traffic."""
    for n in range(5):
        await store.join(DEFAULT_POOL, f"u{n}", ticket=f"t{n}")
    for name, report in (("a", REPORT), ("b", replace(REPORT, ready=False, load=None))):
        identity = {"url": f"http://{name}", "kind": "agent"}
        await store.register_worker(
            DEFAULT_POOL, name, identity=identity, slots=4, token_hash=name, presented_hash=""
        )
        await store.report_worker(DEFAULT_POOL, name, report, token_hash=name)
    static = {"url": "http://s", "kind": "static"}
    quiet = replace(REPORT, in_flight=0, queue_depth=0, load=None)
    await store.report_worker(DEFAULT_POOL, "s", quiet, identity=static)
    await store.traffic.exchange({"s": 2, "a": 1})


async def test_a_pool_and_its_workers(
    store: RedisStore, samples: Samples, ledger: Ledger, clock: ManualClock
) -> None:
    await fill(store)
    end_ms = clock.now_ms() // MINUTE_MS * MINUTE_MS
    clock.advance_ms(end_ms + MINUTE_MS + AFTER_MS - clock.now_ms())
    await store.traffic.exchange({"s": 2, "a": 1})
    ledger.add([record(1, at_ms=end_ms + 1, worker="a")])
    assert await samples.take(FENCE) == MINUTE_MS, "until the next interval has ended"
    [pool] = read(ledger)
    assert pool["since_ms"] == end_ms
    assert (pool["slots"], pool["busy"], pool["waiting"], pool["requests"]) == (2, 2, 3, 1)
    assert (pool["ready"], pool["gpu_load"], pool["gpu_memory"]) == (0, None, None)
    a, b, s = read(ledger, EACH_WORKER)
    assert (a["worker"], a["slots"], a["busy"], a["waiting"]) == ("a", 4, 3, 1)
    assert (a["gpu_load"], a["gpu_memory"], a["requests"]) == (0.5, 0.75, 1)
    assert (b["worker"], b["gpu_load"]) == ("b", None)
    assert (s["worker"], s["busy"]) == ("s", 2), "a static upstream tells of none itself"


async def test_ready_workers_are_counted_and_only_they_make_the_mean(
    store: RedisStore, samples: Samples, ledger: Ledger
) -> None:
    await fill(store)
    await samples.take(FENCE)
    [pool] = read(ledger)
    assert (pool["ready"], pool["gpu_load"], pool["gpu_memory"]) == (2, 0.5, 0.75)
    assert [row["ready"] for row in read(ledger, EACH_WORKER)] == [1, 0, 1]
    assert pool["wait_ms"] is not None


async def test_an_interval_is_written_when_its_requests_are_in_sql(
    samples: Samples, ledger: Ledger, clock: ManualClock
) -> None:
    end_ms = clock.now_ms() // MINUTE_MS * MINUTE_MS + MINUTE_MS
    clock.advance_ms(end_ms + AFTER_MS - 1 - clock.now_ms())
    assert await samples.take(FENCE) == 1
    clock.advance_ms(1)
    assert await samples.take(FENCE) == MINUTE_MS
    begins = [row["since_ms"] for row in read(ledger)]
    assert begins == [end_ms - 2 * MINUTE_MS, end_ms - MINUTE_MS]


async def test_every_pool_and_every_interval_once(
    store: RedisStore, samples: Samples, ledger: Ledger, clock: ManualClock
) -> None:
    await store.configure("other", {"capacity": 9})
    for _ in range(10):
        clock.advance_ms(await samples.take(FENCE))
    clock.advance_ms(await samples.take(FENCE) // 2)
    await samples.take(FENCE)
    for pool in (DEFAULT_POOL, "other"):
        begins = [row["since_ms"] for row in read(ledger, pool=pool)]
        assert len(begins) == 11
        assert {later - earlier for earlier, later in zip(begins, begins[1:], strict=False)} == {
            MINUTE_MS
        }


async def test_what_is_old_is_forgotten(
    store: RedisStore, samples: Samples, ledger: Ledger, clock: ManualClock
) -> None:
    await samples.take(FENCE)
    clock.advance_ms(3_600_000 + MINUTE_MS)
    await samples.take(FENCE)
    assert len(read(ledger)) == 1


async def test_a_database_that_is_away_is_said(
    samples: Samples, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise LedgerUnavailable("away")

    monkeypatch.setattr(ledger, "transaction", away)
    with pytest.raises(LedgerUnavailable):
        await samples.take(FENCE)
