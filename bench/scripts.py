"""What one transition costs, as a multiple of a bare PING over the same connection."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from admission.clock import RedisClock
from admission.domain import DEFAULT_POOL, PoolPolicy
from admission.store.connection import open_redis
from admission.store.redis_store import RedisStore
from infra import embedded
from infra.children import Children
from infra.state import StateFolder

CALLS = 500
QUEUES = (0, 10_000, 100_000)

Call = Callable[[], Awaitable[object]]


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    """An embedded Valkey in a folder of its own, as ``vestibule up`` starts it."""
    with tempfile.TemporaryDirectory(prefix="vst-") as name:
        folder = StateFolder(Path(name))
        children = Children(folder.path)
        try:
            yield await embedded.start(folder, children)
        finally:
            await children.stop()


async def main() -> None:
    """Print the median of each call in µs, by the length of the queue."""
    print(f"scripts: median of {CALLS} calls, one connection, every write synced to disk")
    async with server() as url:
        redis = open_redis(url)
        store = RedisStore(redis, RedisClock(), PoolPolicy(capacity=50))
        await store.load()
        joined = 0
        for waiting in QUEUES:
            joined = await _fill(store, joined, waiting + 50)
            await _row(store, redis.ping, waiting)
        await redis.aclose()


async def _row(store: RedisStore, ping: Call, waiting: int) -> None:
    last = f"u{waiting + 49}"
    calls: dict[str, Call] = {
        "ping": ping,
        "status": lambda: store.status(DEFAULT_POOL, last),
        "join again": lambda: store.join(DEFAULT_POOL, last, ticket="x"),
        "heartbeat": lambda: store.heartbeat(DEFAULT_POOL, last),
        "use": lambda: store.use(DEFAULT_POOL, "u0", request="r", concurrency=4),
        "expire": lambda: store.expire(DEFAULT_POOL),
        "announce": lambda: store.announce(DEFAULT_POOL),
    }
    times = {name: await _median_us(call) for name, call in calls.items()}
    shown = "  ".join(f"{n} {us:.0f} ({us / times['ping']:.1f}x)" for n, us in times.items())
    print(f"  {waiting:>7} waiting  {shown}")


async def _median_us(call: Call) -> float:
    taken = []
    for _ in range(CALLS):
        start = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - start) * 1e6)
    return median(taken)


async def _fill(store: RedisStore, joined: int, wanted: int) -> int:
    """Join users until ``wanted`` did; the first 50 get sessions."""
    while joined < wanted:
        many = range(joined, min(joined + 200, wanted))
        await asyncio.gather(
            *(store.join(DEFAULT_POOL, f"u{i}", ticket=f"t{i}", auto_confirm=i < 50) for i in many)
        )
        joined = many.stop
    return joined
