"""Counts calls in Redis with the library ``limits``, so that all processes share one count.

A moving window: the times of someone's latest calls, as many as are allowed. A refused call is not
among them.
"""

from typing import Any

from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import Redis

from admission.store import names
from admission.store.connection import answering


class RateStore:
    """One window for each limit and each name. Raises StoreUnavailable when Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._window = MovingWindowRateLimiter(_Storage(redis))

    async def full_until(self, limit: RateLimitItem, name: str) -> float | None:
        """When ``name`` may call again, in s since 1970; None: now."""
        with answering():
            free_from_s, left = await self._window.get_window_stats(limit, name)
        return None if left > 0 else free_from_s

    async def count(self, limit: RateLimitItem, name: str) -> bool:
        """Count one call; False, and it is not counted, when the window is full."""
        with answering():
            return await self._window.hit(limit, name)


class _Storage(RedisStorage):
    """The library's storage over our own client, whichever kind that is (limits 5.8 would open
    another one from a URL)."""

    STORAGE_SCHEME = ["vestibule+redis"]

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        super().__init__("redis://", implementation="redispy", key_prefix=names.RATES_PREFIX)

    def configure_bridge(self) -> None:
        assert isinstance(self.bridge, RedispyBridge)
        client: Any = self._redis  # the library's protocol for it names parameters differently
        self.bridge.storage = client
        self.bridge.connection_getter = lambda _: client
