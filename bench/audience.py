"""How soon 10,000 attached to one process get a changed position, and what that costs it."""

import asyncio
import time
from statistics import median

from admission.domain import DEFAULT_POOL
from bench.attached import CAPACITY, Client, Room, room

ATTACHED = 10_000
ROUNDS = 5
ROUND_S = 3.0  # from one release to the next, when each is looked at by itself
STEADY_S = 10  # of one release a second
QUIET_S = 15.0  # in which everybody is pinged once, and presence renewed
TO_REACH_S, TO_REACH_CORES = 2.0, 1.0


class Audience:
    """Who has yet to hear of the last release."""

    def __init__(self) -> None:
        self._heard: set[str] = set()
        self._wanted = 0
        self._all = asyncio.Event()

    def heard(self, client: Client) -> None:
        self._heard.add(client.user)
        if len(self._heard) == self._wanted:
            self._all.set()

    async def everybody(self, wanted: int) -> None:
        """Wait until ``wanted`` clients heard something new."""
        self._heard.clear()
        self._all.clear()
        self._wanted = wanted
        async with asyncio.timeout(30):
            await self._all.wait()


async def main() -> None:
    """Print the seconds until the last client heard, and the service's processor time."""
    print(f"audience: {ATTACHED} attached over SSE to one process, {CAPACITY} slots, 1 pool")
    async with room() as place:
        sitting = [f"s{i}" for i in range(CAPACITY)]
        await place.join(*sitting)
        for user in sitting:
            await place.store.confirm(DEFAULT_POOL, user)
        waiting = [f"u{i}" for i in range(ATTACHED)]
        await place.join(*waiting)
        audience = Audience()
        start_s, cpu_s = time.perf_counter(), place.cpu_s()
        clients = await place.attach(waiting, audience.heard)
        taken_s, used_s = time.perf_counter() - start_s, place.cpu_s() - cpu_s
        print(f"  attached in {taken_s:.1f} s, {used_s * 1e6 / ATTACHED:.0f} µs of CPU each")
        await asyncio.sleep(3)
        await _rounds(place, audience, sitting[:ROUNDS])
        await _steady(place, sitting[ROUNDS : ROUNDS + STEADY_S])
        cpu_s = place.cpu_s()
        await asyncio.sleep(QUIET_S)
        cores = (place.cpu_s() - cpu_s) / QUIET_S
        print(f"  nothing changes     {cores:5.2f} cores: pings and presence")
        for client in clients:
            if client.transport:
                client.transport.abort()


async def _rounds(place: Room, audience: Audience, sitting: list[str]) -> None:
    """One release, and all are told before the next."""
    last, used = [], []
    for number, user in enumerate(sitting):
        start_s, cpu_s = time.perf_counter(), place.cpu_s()
        everybody = asyncio.create_task(audience.everybody(ATTACHED - number))
        await asyncio.sleep(0)
        await place.store.leave(DEFAULT_POOL, user)
        await everybody
        last.append(time.perf_counter() - start_s)
        await asyncio.sleep(max(0.0, start_s + ROUND_S - time.perf_counter()))
        used.append(place.cpu_s() - cpu_s)
    print(
        f"  one release         all told after {median(last):.2f} s (worst {max(last):.2f}; to"
        f" reach: {TO_REACH_S:.0f}), {median(used):.2f} s of CPU"
    )


async def _steady(place: Room, sitting: list[str]) -> None:
    """A release a second, whether or not all were told of the last."""
    cpu_s = place.cpu_s()
    for user in sitting:
        start_s = time.perf_counter()
        await place.store.leave(DEFAULT_POOL, user)
        await asyncio.sleep(max(0.0, start_s + 1 - time.perf_counter()))
    cores = (place.cpu_s() - cpu_s) / len(sitting)
    print(f"  one release a second {cores:4.2f} cores (to reach: {TO_REACH_CORES:.0f})")


if __name__ == "__main__":
    asyncio.run(main())
