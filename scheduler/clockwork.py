"""Runs the ticks with APScheduler. Wiring only: the duties are in ``ticks`` and ``probe``.

Any number of clockworks may run over one Redis: each tick is one atomic script.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from aiohttp import ClientSession
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from admission import logs
from admission.accounting.ledger import LedgerUnavailable, UnfitLedger
from admission.errors import StoreUnavailable
from admission.settings import Upstream
from admission.store.redis_store import RedisStore
from scheduler.accounts import Accounts
from scheduler.probe import agents_tick, probe_tick
from scheduler.ticks import announce_tick, expire_tick, workers_tick

TICK_S = 1.0  # a tick runs at the next deadline, at latest every second (DESIGN section 4)
AT_ONCE_MS = 10
WORKERS_S = 5.0
PROBE_S = 5.0
AGENTS_S = 10.0
PRUNE_S = 600.0

Duty = tuple[Callable[[], Awaitable[None]], float]  # what is done, every so many seconds

log = logging.getLogger(__name__)


@asynccontextmanager
async def running(
    store: RedisStore,
    upstreams: Sequence[Upstream],
    agent_sha256: str | None = None,
    accounts: Accounts | None = None,
) -> AsyncIterator[None]:
    """The ticks run while this is open. ``agent_sha256``: the only agent file to use. Without
    ``accounts`` what was used stays in Redis."""
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

        async def agents() -> None:
            await agents_tick(store, agent_sha256, session)

        duties: list[Duty] = [
            (expire, TICK_S),
            (announce, TICK_S),
            (workers, WORKERS_S),
            (agents, AGENTS_S),
        ]
        if accounts:
            duties += [(accounts.drain, TICK_S), (accounts.prune, PRUNE_S)]
        if upstreams:
            duties.append((probe, PROBE_S))
        _add(scheduler, duties)
        scheduler.start()
        try:
            yield
        finally:
            scheduler.shutdown(wait=False)


def _add(scheduler: AsyncIOScheduler, duties: list[Duty]) -> None:
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


def _guarded(duty: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """One failing tick is logged and tried again at its next time; it stops no other."""

    async def run() -> None:
        try:
            await duty()
        except asyncio.CancelledError:
            return  # the clockwork stops; APScheduler would log it as a failure
        except StoreUnavailable:
            logs.event(log, "tick_without_store", logging.WARNING, tick=duty.__name__)
        except (LedgerUnavailable, UnfitLedger) as error:
            logs.event(log, "tick_without_ledger", logging.WARNING, tick=duty.__name__, why=error)
        except Exception:  # noqa: BLE001 - the outermost place of a tick
            log.exception("tick_failed tick=%s", duty.__name__)

    return run
