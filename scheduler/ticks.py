"""One bounded step of each periodic duty. Each is idempotent: run twice, it does once."""

import logging

from admission import logs
from admission.store.redis_store import RedisStore

log = logging.getLogger(__name__)


async def expire_tick(store: RedisStore) -> int | None:
    """End what is due and offer what is free; ms until the next deadline, None without one."""
    nearest = [await store.expire(pool) for pool in await store.pools()]
    return min((ms for ms in nearest if ms is not None), default=None)


async def announce_tick(store: RedisStore, pace_ms: int = 0) -> None:
    """Tell who waits what changed, unless somebody did less than ``pace_ms`` ago."""
    for pool in await store.pools():
        await store.announce(pool, pace_ms=pace_ms)


async def workers_tick(store: RedisStore) -> None:
    """Stop counting on workers that fell silent."""
    for pool in await store.pools():
        for worker in await store.expire_workers(pool):
            logs.event(log, "worker_lost", logging.WARNING, worker_id=worker, pool=pool)
