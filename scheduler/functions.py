"""The ticks as a function of AWS Lambda, for EventBridge: ``scheduler.functions.handler``.

A schedule calls at most once a minute: in between, joins and heartbeats end what is due and offer
what is free, and what is past its deadline counts nowhere (DESIGN section 4, invariant 4). The
ticks are those of the clockwork (``table``), under the same leases: a schedule that calls twice, or
a clockwork beside it, does none of them again. Each is bounded in time, and one that fails stops no
other.

The schedule's input may name some: ``{"ticks": ["expire", "announce"]}``.
"""

import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from admission import background
from admission.clock import Clock, RedisClock
from admission.errors import StoreUnavailable
from admission.settings import Settings, SettingsError, read_settings
from admission.store.connection import open_redis
from admission.store.usage_store import UsageStore
from admission.warm import Warm
from scheduler import measures
from scheduler.leases import Leases
from scheduler.table import NAMES, table
from scheduler.tick import Tick

if TYPE_CHECKING:  # the package of who keeps no accounts here is without SQL
    from scheduler.books import Books

PASSES = 50  # of expire, 100 deadlines each (DESIGN section 4): the next call takes up the rest
SPARE_S = 0.5  # of what is left of an invocation, to tell how it went


class TicksFailed(Exception):
    """Some of the ticks were not done. Lambda counts it, so that an alarm can."""


class Ticks:
    """The ticks over one Redis, one invocation at a time."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Connects at the first invocation. ``clock`` is the store's, by default Redis' own.

        Raises:
            SettingsError: no Redis is named, or a fleet is.
        """
        if settings.fleet is not None:
            raise SettingsError(
                "VESTIBULE_FLEET: a function neither makes nor ends machines, which take longer"
                " than an invocation: run `vestibule scheduler` with this file over the same Redis"
            )
        self._settings, self._clock = settings, clock or RedisClock()
        self._warm = Warm(settings, None, self._clock)
        self._is_checked = False

    def __call__(self, event: dict[str, Any], context: Any = None) -> dict[str, Any]:
        """Run the ticks: ``{"done": [names], "left": [names]}``. Left are those that another
        scheduler leads or has just done, and those that need a database and have none.

        Raises:
            ValueError: the event names a tick which there is not.
            TicksFailed: says which failed, and of what.
            StoreUnavailable, UnfitServer: none was begun.
        """
        names = event.get("ticks", list(NAMES))
        if not isinstance(names, list) or not set(names) <= set(NAMES):
            raise ValueError(f"ticks: a list of {', '.join(NAMES)}")
        left_ms = getattr(context, "get_remaining_time_in_millis", None)
        name = getattr(context, "function_name", None)
        return self._warm.run(lambda: self._run(names, left_ms, name))

    def close(self) -> None:
        """Close the connection to Redis."""
        self._warm.close()

    async def _run(
        self, names: Collection[str], left_ms: Callable[[], float] | None, function: str | None
    ) -> dict[str, Any]:
        await self._warm.hear(self._warm.store.ping)
        if not self._is_checked:
            await self._warm.check()
            self._is_checked = True
        settings, store = self._settings, self._warm.store
        if function is not None:
            await measures.tell(store, function)
        async with (
            self._books() as books,
            table(store, settings.upstreams, settings.worker_agent_sha256, books) as ticks,
        ):
            chosen = [tick for tick in ticks if tick.name in names]
            leases = Leases(store.ticks, chosen)
            await leases.beat()
            try:
                async with background.running("leases", leases.keep):
                    done = await _done(leases, chosen, left_ms)
            finally:
                with suppress(StoreUnavailable):
                    await leases.release()
        return {
            "done": done,
            "left": [name for name in NAMES if name in names and name not in done],
        }

    @asynccontextmanager
    async def _books(self) -> AsyncIterator["Books | None"]:
        """Where a database is named that a function can reach; else what was used waits in Redis,
        for a scheduler that has one."""
        if self._settings.database_url is None:
            yield None
            return
        from admission.accounting.ledger import Ledger
        from scheduler.books import Books

        ledger = Ledger(self._settings.database_url)
        try:
            async with self._usage() as usage:
                yield Books.of(self._warm.store, usage, ledger, self._settings)
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


async def _done(
    leases: Leases, ticks: Sequence[Tick], left_ms: Callable[[], float] | None
) -> list[str]:
    """Run those that are held here and due, one after the other; the names of those done.

    Raises:
        TicksFailed.
    """
    done, failed = [], {}
    for tick in ticks:
        # One that is due in less than half its period waits a minute otherwise.
        if leases.epoch(tick) is None or leases.due_in_ms(tick) > tick.period_s * 500:
            continue
        for _ in range(PASSES):
            limit_s = tick.limit_s
            if left_ms is not None:
                limit_s = min(limit_s, left_ms() / 1000 - SPARE_S)
            run = await leases.run(tick, limit_s)
            if run is None or run.error is not None:
                failed[tick.name] = run.error if run else "its lease was lost"
            if run is None or run.more_ms != 0:
                break
        if tick.name not in failed:
            done.append(tick.name)
    if failed:
        raise TicksFailed("; ".join(f"{name}: {why}" for name, why in failed.items()))
    return done


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
