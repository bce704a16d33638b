"""What a function keeps from one invocation to the next: an event loop and a connection to Redis.

Nothing else survives. Between two invocations the process may lie frozen for hours: then the
connection is most likely dead, perhaps without a sign of it, and no clock of this process tells for
how long. So each invocation begins with a question to Redis, which is soon asked again over a new
connection; and what it began ends with it.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from admission.clock import Clock
from admission.domain import PoolPolicy
from admission.errors import StoreUnavailable
from admission.settings import Settings, SettingsError
from admission.store.connection import check_server, disconnect, open_redis
from admission.store.redis_store import RedisStore

HEAR_S = 1.0  # a connection that lives has answered by then; Redis takes microseconds
REOPENED_S = 3.0  # with a new connection: 2 s to connect, and the same again

T = TypeVar("T")


class Warm:
    """Serves one invocation at a time, as a function's environment does."""

    def __init__(self, settings: Settings, policy: PoolPolicy | None, clock: Clock) -> None:
        """Connects at the first question. ``policy``: see RedisStore.

        Raises:
            SettingsError: no Redis is named.
        """
        url = settings.redis_address()
        if url is None:
            raise SettingsError("REDIS_URL: needed; a function has no server of its own")
        # An environment has one call at a time, so a thousand of them are a thousand connections.
        self._redis = open_redis(
            url,
            mode=settings.redis_mode,
            sentinel_master=settings.redis_sentinel_master,
            connections=1,
        )
        self.store = RedisStore(self._redis, clock, policy)
        self._loop = asyncio.new_event_loop()
        self._one_at_a_time = threading.Lock()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` answers; when this returns, nothing of it goes on."""
        with self._one_at_a_time:
            return self._loop.run_until_complete(_alone(work))

    async def hear(self, question: Callable[[], Awaitable[T]]) -> T:
        """What Redis answers to the first question of an invocation, which only reads.

        Raises:
            StoreUnavailable: no answer over a new connection either, after at most 4 s.
        """
        try:
            async with asyncio.timeout(HEAR_S):
                return await question()
        except (TimeoutError, StoreUnavailable):
            pass
        try:
            async with asyncio.timeout(REOPENED_S):
                await disconnect(self._redis)
                return await question()
        except TimeoutError as error:
            raise StoreUnavailable from error

    async def check(self) -> None:
        """Refuse a Redis that must not be used.

        Raises:
            StoreUnavailable, UnfitServer.
        """
        await check_server(self._redis)

    def close(self) -> None:
        """Close the connection and the loop."""
        with self._one_at_a_time:
            self._loop.run_until_complete(self._redis.aclose())
            self._loop.close()


async def _alone(work: Callable[[], Awaitable[T]]) -> T:
    try:
        return await work()
    finally:
        await _end_the_others()


async def _end_the_others() -> None:
    """A batch to Redis outlives a caller who gave up: its late answer must meet nobody."""
    own = asyncio.current_task()
    while others := asyncio.all_tasks() - {own}:
        # redis-py 8.1 swallows a cancellation that arrives while it connects: asked until it ends.
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=0.02)
