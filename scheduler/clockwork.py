"""Runs the ticks with APScheduler. Wiring only: the duties are in ``ticks`` and ``probe``.

Any number of clockworks may run over one Redis: each tick is one atomic script.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from aiohttp import ClientSession
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from admission import logs
from admission.errors import StoreUnavailable
from admission.settings import Upstream
from admission.store.redis_store import RedisStore
from scheduler.probe import probe_tick
from scheduler.ticks import announce_tick, expire_tick, workers_tick

TICK_S = 1.0  # a tick runs at the next deadline, at latest every second (DESIGN section 4)
AT_ONCE_MS = 10
WORKERS_S = 5.0
PROBE_S = 5.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def running(store: RedisStore, upstreams: Sequence[Upstream]) -> AsyncIterator[None]:
    """The ticks run while this is open."""
    scheduler = AsyncIOScheduler(timezone=UTC)
    async with ClientSession() as session:

        async def expire() -> None:
            next_ms = await expire_tick(store)
            if next_ms is not None and next_ms < TICK_S * 1000:
                # Not at once: APScheduler skips a job that has not returned yet.
                at = datetime.now(UTC) + timedelta(milliseconds=max(next_ms, AT_ONCE_MS))
                scheduler.modify_job("expire", next_run_time=at)

        async def announce() -> None:
            await announce_tick(store, pace_ms=round(TICK_S * 800))  # of whichever clockwork

        async def workers() -> None:
            await workers_tick(store)

        async def probe() -> None:
            await probe_tick(store, upstreams, session)

        duties: list[tuple[Callable[[], Awaitable[None]], float]] = [
            (expire, TICK_S),
            (announce, TICK_S),
            (workers, WORKERS_S),
        ]
        if upstreams:
            duties.append((probe, PROBE_S))
        for duty, seconds in duties:
            scheduler.add_job(
                _guarded(duty),
                "interval",
                id=duty.__name__,
                seconds=seconds,
                next_run_time=datetime.now(UTC),
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
            )
        scheduler.start()
        try:
            yield
        finally:
            scheduler.shutdown(wait=False)


def _guarded(duty: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """One failing tick is logged and tried again at its next time; it stops no other."""

    async def run() -> None:
        try:
            await duty()
        except StoreUnavailable:
            logs.event(log, "tick_without_store", logging.WARNING, tick=duty.__name__)
        except Exception:  # noqa: BLE001 - the outermost place of a tick
            log.exception("tick_failed tick=%s", duty.__name__)

    return run
