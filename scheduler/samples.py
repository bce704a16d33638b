"""Writes into SQL, for the history, how each pool and each worker is at the end of an interval."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from admission.accounting.history import Sample, keep
from admission.accounting.ledger import Ledger
from admission.accounting.threads import in_thread
from admission.domain import PoolMetrics, Worker
from admission.store.fence import Fence
from admission.store.redis_store import RedisStore

# After the end of an interval its last requests are in SQL: a second in the gateway, one to drain.
AFTER_MS = 3_000


class Samples:
    """The history's way from Redis into SQL. Any number may write: an interval is written once."""

    def __init__(
        self, store: RedisStore, ledger: Ledger, *, interval_s: int, retention_s: int
    ) -> None:
        self._store, self._ledger = store, ledger
        self._retention_ms = retention_s * 1000
        self.interval_s = interval_s

    async def take(self, _: Fence) -> int:
        """Write the interval that ended last; in how many ms the next one has.

        Raises:
            StoreUnavailable, LedgerUnavailable, UnfitLedger: that interval has no row, unless
            another try comes in time.
        """
        now_ms, seen = 0, []
        running = await self._store.traffic.running()
        for pool in await self._store.pools():
            metrics = await self._store.metrics(pool)
            now_ms = metrics.now_ms
            seen += samples_of(pool, metrics, await self._store.workers(pool), running)
        length_ms = self.interval_s * 1000
        end_ms = (now_ms - AFTER_MS) // length_ms * length_ms
        await in_thread(
            keep,
            self._ledger,
            seen,
            begin_ms=end_ms - length_ms,
            end_ms=end_ms,
            forget_ms=now_ms - self._retention_ms,
        )
        return end_ms + length_ms + AFTER_MS - now_ms


def samples_of(
    pool: str, metrics: PoolMetrics, workers: Sequence[Worker], running: Mapping[str, int]
) -> list[Sample]:
    """A pool as a whole, and each of its workers.

    Args:
        running: requests of the gateways on each worker: a static upstream tells of none itself.
    """
    own = [_of_worker(w, running.get(w.worker_id, 0)) for w in workers if not w.revoked]
    as_a_whole = Sample(
        pool,
        "",
        ready=metrics.ready_workers,
        slots=metrics.capacity,
        busy=metrics.active + metrics.draft + metrics.finishing,
        waiting=metrics.waiting,
        wait_ms=None if metrics.wait_ms is None else round(metrics.wait_ms),
        gpu_load=_mean([each.gpu_load for each in own if each.ready]),
        gpu_memory=_mean([each.gpu_memory for each in own if each.ready]),
    )
    return [as_a_whole, *own]


def _of_worker(worker: Worker, running: int) -> Sample:
    load = worker.load or {}
    used, total = load.get("gpu_memory_used_mb"), load.get("gpu_memory_total_mb")
    return Sample(
        worker.pool,
        worker.worker_id,
        ready=int(worker.ready),
        slots=worker.slots,
        busy=max(worker.in_flight, running) if worker.kind == "agent" else running,
        waiting=worker.queue_depth,
        gpu_load=load.get("gpu_load"),
        gpu_memory=None if used is None or not total else used / total,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return fmean(told) if told else None
