"""The ticks as a function of AWS Lambda, for EventBridge: ``scheduler.functions.handler``.

A schedule calls at most once a minute: in between, joins and heartbeats end what is due and offer
what is free, and what is past its deadline counts nowhere (DESIGN section 4, invariant 4). Each
tick is atomic or idempotent, so that a schedule which calls twice, or a clockwork beside it, does
no harm; each is bounded in time, and one that fails stops no other.

The schedule's input may name some: ``{"ticks": ["expire", "announce"]}``.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from aiohttp import ClientSession, DummyCookieJar

from admission import logs
from admission.clock import Clock, RedisClock
from admission.settings import Settings, read_settings
from admission.store.connection import open_redis
from admission.store.usage_store import UsageStore
from admission.warm import Warm
from scheduler.probe import agents_tick, probe_tick
from scheduler.ticks import announce_tick, expire_tick, workers_tick

PASSES = 50  # of expire, 100 deadlines each (DESIGN section 4): the next call takes up the rest
LIMITS_S = {"expire": 10, "announce": 10, "workers": 5, "probe": 5, "agents": 15, "accounts": 15}
"""Every tick in the order in which they run, and the seconds each may take."""
SPARE_S = 0.5  # of what is left of an invocation, to tell how it went

log = logging.getLogger(__name__)


class TicksFailed(Exception):
    """Some of the ticks were not done. Lambda counts it, so that an alarm can."""


class Ticks:
    """The ticks over one Redis, one invocation at a time."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Connects at the first invocation. ``clock`` is the store's, by default Redis' own.

        Raises:
            SettingsError: no Redis is named.
        """
        self._settings, self._clock = settings, clock or RedisClock()
        self._warm = Warm(settings, None, self._clock)
        self._is_checked = False
        self._ticks: dict[str, Callable[[], Awaitable[None]]] = {
            "expire": self._expire,
            "announce": self._announce,
            "workers": self._workers,
            "probe": self._probe,
            "agents": self._agents,
            "accounts": self._accounts,
        }

    def __call__(self, event: dict[str, Any], context: Any = None) -> dict[str, Any]:
        """Run the ticks: ``{"done": [names]}``.

        Raises:
            ValueError: the event names a tick which there is not.
            TicksFailed: says which failed, and of what.
            StoreUnavailable, UnfitServer: none was begun.
        """
        names = event.get("ticks", list(LIMITS_S))
        if not isinstance(names, list) or not set(names) <= LIMITS_S.keys():
            raise ValueError(f"ticks: a list of {', '.join(LIMITS_S)}")
        left_ms = getattr(context, "get_remaining_time_in_millis", None)
        return self._warm.run(lambda: self._run(names, left_ms))

    def close(self) -> None:
        """Close the connection to Redis."""
        self._warm.close()

    async def _run(
        self, names: Sequence[str], left_ms: Callable[[], float] | None
    ) -> dict[str, Any]:
        await self._warm.hear(self._warm.store.ping)
        if not self._is_checked:
            await self._warm.check()
            self._is_checked = True
        failed = {}
        for name in names:
            limit_s: float = LIMITS_S[name]
            if left_ms is not None:
                limit_s = min(limit_s, left_ms() / 1000 - SPARE_S)
            error = await _why_not(self._ticks[name], limit_s)
            if error is not None:
                failed[name] = error
                logs.event(log, "tick_failed", logging.WARNING, tick=name, why=error)
        if failed:
            raise TicksFailed("; ".join(f"{name}: {why}" for name, why in failed.items()))
        return {"done": list(names)}

    # --- the ticks -------------------------------------------------------------------------------

    async def _expire(self) -> None:
        for _ in range(PASSES):
            if await expire_tick(self._warm.store) != 0:  # the next deadline is to come
                return

    async def _announce(self) -> None:
        await announce_tick(self._warm.store)

    async def _workers(self) -> None:
        await workers_tick(self._warm.store)

    async def _probe(self) -> None:
        if self._settings.upstreams:
            async with _session() as session:
                await probe_tick(self._warm.store, self._settings.upstreams, session)

    async def _agents(self) -> None:
        async with _session() as session:
            await agents_tick(self._warm.store, self._settings.worker_agent_sha256, session)

    async def _accounts(self) -> None:
        """Where a database is named that a function can reach; else what was used waits in Redis,
        for a scheduler that has one."""
        if self._settings.database_url is None:
            return
        # The package of who keeps no accounts here is without SQL.
        from admission.accounting.ledger import Ledger
        from scheduler.accounts import Accounts

        ledger = Ledger(self._settings.database_url)
        try:
            async with self._usage() as usage:
                accounts = Accounts(usage, ledger, self._settings.accounting_retention)
                await accounts.drain()
                await accounts.prune()
        finally:
            ledger.close()

    @asynccontextmanager
    async def _usage(self) -> AsyncIterator[UsageStore]:
        """The accounting's stream, in its own Redis where the settings name one."""
        url = self._settings.accounting_redis_url
        if url is None:
            yield self._warm.store.usage
            return
        redis = open_redis(url, connections=1)
        try:
            yield UsageStore(redis, self._clock)
        finally:
            await redis.aclose()


async def _why_not(tick: Callable[[], Awaitable[None]], limit_s: float) -> str | None:
    """Run a tick; None when it is done, else why it is not."""
    try:
        async with asyncio.timeout(limit_s):
            await tick()
    except TimeoutError:
        return f"not done within {limit_s:.1f} s"
    except Exception as error:  # noqa: BLE001 - the outermost place of a tick
        return f"{type(error).__name__}: {error}"
    return None


def _session() -> ClientSession:
    return ClientSession(cookie_jar=DummyCookieJar())


@cache
def _ticks() -> Ticks:
    logging.getLogger().setLevel(logging.INFO)  # Lambda has its own handler there
    return Ticks(read_settings(os.environ))


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """What Lambda calls. The environment's variables are the service's settings.

    Raises:
        SettingsError: lists every bad value; at each invocation, until they are changed.
        ValueError, TicksFailed, StoreUnavailable, UnfitServer: see ``Ticks``.
    """
    return _ticks()(event, context)
