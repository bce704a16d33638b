"""Runs the ticks with APScheduler, under their leases. Wiring only: what there is to do stands in
``table``, who may do it in ``leases``.

Any number of clockworks may run over one Redis; one leads. A job is on only while the lease of its
tick is held here. Expire and announce, atomic scripts that may run anywhere at once, have leases
like all others: they are kept between the runs and told of in one beat, so that a tick at the next
deadline costs no call more than it did, and those who do not lead make one call a second instead of
three. The price: who leads and is killed leaves the others waiting for at most one lease.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from admission import background
from admission.errors import StoreUnavailable
from admission.settings import Upstream
from admission.store.redis_store import RedisStore
from scheduler.leases import Leases
from scheduler.table import table
from scheduler.tick import Tick

if TYPE_CHECKING:
    from scheduler.books import Books

AT_ONCE_MS = 10  # not at once: APScheduler skips a job that has not returned yet
SET_S = 0.5  # a wall clock that moves by more between two beats was set, or the host slept


@asynccontextmanager
async def running(
    store: RedisStore,
    upstreams: Sequence[Upstream],
    agent_sha256: str | None = None,
    books: "Books | None" = None,
    also: Sequence[Tick] = (),
) -> AsyncIterator[None]:
    """The ticks run while this is open.

    Args:
        agent_sha256: the only agent file to use.
        books: without them what was used stays in Redis, and there is no history.
        also: ticks of whoever composes.
    """
    async with table(store, upstreams, agent_sha256, books) as ticks:
        clockwork = Clockwork(Leases(store.ticks, [*ticks, *also]), [*ticks, *also])
        async with clockwork.running():
            yield


class Clockwork:
    """Turns the ticks whose leases are held here."""

    def __init__(self, leases: Leases, ticks: Sequence[Tick]) -> None:
        self._leases, self._ticks = leases, ticks
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._running: set[asyncio.Task[None]] = set()
        self._ahead_s = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The ticks run while this is open; then the leases are left."""
        for tick in self._ticks:
            self._scheduler.add_job(
                self._run,
                "interval",
                [tick],
                id=tick.name,
                seconds=tick.period_s,
                next_run_time=None,
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
            )
        self._is_clock_set()
        self._scheduler.start()
        try:
            async with background.running("leases", lambda: self._leases.keep(self._follow)):
                yield
        finally:
            self._scheduler.shutdown(wait=False)
            await self._end()
            with suppress(StoreUnavailable):
                await self._leases.release()

    async def _end(self) -> None:
        """What was cancelled may still hold a connection that is about to be closed."""
        while self._running:
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running, timeout=0.02)

    def _follow(self) -> None:
        """A job is on while its lease is held here, and goes on when it is due."""
        is_set = self._is_clock_set()
        for tick in self._ticks:
            is_on = self._scheduler.get_job(tick.name).next_run_time is not None
            is_held = self._leases.epoch(tick) is not None
            if is_held and (not is_on or (is_set and not self._leases.is_running(tick))):
                self._next(tick, self._leases.due_in_ms(tick))
            elif is_on and not is_held:
                self._scheduler.pause_job(tick.name)

    def _is_clock_set(self) -> bool:
        """Since the last look. APScheduler plans by the wall clock: one that was set back would
        stop all ticks for as long, and leave their leases held."""
        before_s = self._ahead_s
        self._ahead_s = datetime.now(UTC).timestamp() - asyncio.get_running_loop().time()
        return abs(self._ahead_s - before_s) > SET_S

    async def _run(self, tick: Tick) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            run = await self._leases.run(tick)
        except asyncio.CancelledError:
            return  # the clockwork stops; APScheduler would log it as a failure
        finally:
            self._running.discard(task)
        if run is not None and self._leases.epoch(tick) and self._scheduler.running:
            self._next(tick, self._leases.due_in_ms(tick))

    def _next(self, tick: Tick, in_ms: float) -> None:
        at = datetime.now(UTC) + timedelta(milliseconds=max(in_ms, AT_ONCE_MS))
        self._scheduler.modify_job(tick.name, next_run_time=at)
