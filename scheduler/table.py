"""The table of ticks: what is done, how often, for how long at most.

Imports no SQL: a function whose package is without it has the same table without those rows.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

from aiohttp import ClientSession, DummyCookieJar

from admission.settings import Upstream
from admission.store.fence import Fence
from admission.store.redis_store import RedisStore
from scheduler.probe import agents_tick, probe_tick
from scheduler.tick import Tick
from scheduler.ticks import announce_tick, expire_tick, workers_tick

if TYPE_CHECKING:
    from scheduler.books import Books

NAMES = (
    "expire",
    "announce",
    "workers",
    "agents",
    "probe",
    "drain",
    "prune",
    "sample",
    "fleet_drain",
    "fleet_prune",
)
"""All there may be, in the order in which one who runs them one by one does so."""
TICK_S = 1.0  # a tick runs at the next deadline, at latest every second (DESIGN section 4)
WORKERS_S = 5.0
PROBE_S = 5.0
AGENTS_S = 10.0
PRUNE_S = 600.0


@asynccontextmanager
async def table(
    store: RedisStore,
    upstreams: Sequence[Upstream] = (),
    agent_sha256: str | None = None,
    books: "Books | None" = None,
) -> AsyncIterator[tuple[Tick, ...]]:
    """The ticks there are with what is given, in the order of NAMES."""
    async with ClientSession(cookie_jar=DummyCookieJar()) as session:

        async def expire(_: Fence) -> int | None:
            return await expire_tick(store)

        async def announce(_: Fence) -> None:
            await announce_tick(store, pace_ms=round(TICK_S * 800))  # of whoever did it last

        async def workers(_: Fence) -> None:
            await workers_tick(store)

        async def probe(_: Fence) -> None:
            await probe_tick(store, upstreams, session)

        async def agents(_: Fence) -> None:
            await agents_tick(store, agent_sha256, session)

        ticks = [
            Tick("expire", "ends what is due, offers what is free", TICK_S, 10, expire),
            Tick("announce", "tells who waits what changed", TICK_S, 10, announce),
            Tick("workers", "no longer counts on who fell silent", WORKERS_S, 5, workers),
            Tick("agents", "asks agents what they are, and who is silent", AGENTS_S, 15, agents),
        ]
        if upstreams:
            told = ",".join(sorted(f"{each.url};{each.slots}" for each in upstreams))
            # Another scheduler may have been told of others.
            lease = f"probe-{sha256(told.encode()).hexdigest()[:6]}"
            does = "asks static upstreams whether they live"
            ticks.append(Tick("probe", does, PROBE_S, 5, probe, lease))
        if books:
            of, samples, fleet = books.accounts, books.samples, books.fleet
            does = "writes load, waits and use of pools and workers into SQL"
            ticks += [
                Tick("drain", "brings what was used into SQL", TICK_S, 15, of.drain),
                Tick("prune", "forgets requests that are old", PRUNE_S, 60, of.prune),
                Tick("sample", does, samples.interval_s, 15, samples.take),
                Tick("fleet_drain", "brings the fleet's past into SQL", TICK_S, 15, fleet.drain),
                Tick("fleet_prune", "forgets instances long gone", PRUNE_S, 60, fleet.prune),
            ]
        yield tuple(ticks)
