"""Clockworks in processes of their own over one Redis: one leads, and dies, or sleeps, or is cut
off."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from admission.clock import RedisClock
from admission.store.tick_store import LEASE_MS, TickStore
from tests.api.calls import until
from tests.api.valkey import OwnValkey, own_valkey

PERIOD_S = 0.4
LATE_S = 1.5  # a process that is woken up, on a machine with other work

# A tick that begins, takes its time, and then writes down that it was done: unless it is fenced.
_CLOCKWORK = """
import asyncio, sys, time
from redis.asyncio import Redis
from admission.clock import RedisClock
from admission.store import fence, names, tick_store
from scheduler import clockwork, leases
from scheduler.tick import Tick

url, lease_ms = sys.argv[1], int(sys.argv[2])
tick_store.LEASE_MS = leases.LEASE_MS = lease_ms
leases.BEAT_S = lease_ms / 5000
DONE = fence.LUA + '''
if fenced(KEYS[1], ARGV[1], ARGV[2]) then return "fenced" end
redis.call("RPUSH", KEYS[2], ARGV[3])
return "done"
'''

async def main():
    redis = Redis.from_url(url, socket_timeout=5)

    async def write(held, began):
        keys = names.TICKS_KEY, "done:{_global}"
        print((await redis.eval(DONE, 2, *keys, *held, began)).decode(), flush=True)

    async def work(held):
        began = time.monotonic()  # one clock for all processes of this machine
        print("begun", flush=True)
        await asyncio.sleep(0.1)
        await asyncio.shield(write(held, began))  # as if it were on its way already

    ticks = [Tick("work", "", PERIOD_S, 5, work)]
    own = leases.Leases(tick_store.TickStore(redis, RedisClock()), ticks)
    async with clockwork.Clockwork(own, ticks).running():
        print(own.owner, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
""".replace("PERIOD_S", str(PERIOD_S))


@dataclass
class Process:
    """One clockwork, and what it says."""

    process: asyncio.subprocess.Process
    owner: str

    async def begins(self) -> None:
        """Returns when its next run has begun."""
        assert self.process.stdout is not None
        with suppress(TimeoutError):
            while True:  # what it said so far
                async with asyncio.timeout(0.02):
                    await self.process.stdout.readline()
        await self.says("begun")

    async def says(self, word: str) -> None:
        """Returns when it has said so."""
        assert self.process.stdout is not None
        async with asyncio.timeout(10):
            while (await self.process.stdout.readline()).decode().strip() != word:
                assert not self.process.stdout.at_eof()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@dataclass
class Scene:
    """Three clockworks over a Valkey of their own."""

    server: OwnValkey
    redis: Redis
    lease_s: float
    processes: list[Process]

    async def leader(self) -> Process:
        """Who holds the lease now."""
        [tick] = await TickStore(self.redis, RedisClock()).all()
        return next(each for each in self.processes if each.owner == tick.holder)

    async def other_than(self, former: Process) -> Process:
        """Who leads once that is not ``former``."""

        async def is_so() -> bool:
            with suppress(StopIteration, RuntimeError):
                return await self.leader() is not former
            return False

        await until(is_so)
        return await self.leader()

    async def done(self) -> list[float]:
        """When the runs began that were done (s)."""
        found: Any = self.redis.lrange("done:{_global}", 0, -1)
        return [float(at) for at in await found]

    async def more(self, count: int = 2) -> None:
        """Returns when it was done so many times more."""
        before = len(await self.done())

        async def is_so() -> bool:
            with suppress(RedisError, OSError):
                return len(await self.done()) >= before + count
            return False

        await until(is_so)

    async def check(self, since: int, gaps: int) -> None:
        """Never twice within a period, and never long without, but for ``gaps`` of one lease."""
        times = (await self.done())[since:]
        between = [later - earlier for earlier, later in pairwise(times)]
        assert min(between) > PERIOD_S / 2, between
        late = [gap for gap in between if gap > PERIOD_S + LATE_S]
        assert len(late) <= gaps, between
        assert not [gap for gap in late if gap > self.lease_s + PERIOD_S + LATE_S], between


@pytest.fixture(
    params=[
        pytest.param(1500, marks=pytest.mark.long),
        pytest.param(LEASE_MS, marks=pytest.mark.long),
    ]
)
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    lease_ms: int = request.param
    async with own_valkey() as server:
        redis = Redis.from_url(server.url)
        made = await asyncio.gather(
            *(
                asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", _CLOCKWORK, server.url, str(lease_ms)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
                for _ in range(3)
            )
        )
        processes = []
        for each in made:
            assert each.stdout is not None
            processes.append(Process(each, (await each.stdout.readline()).decode().strip()))
        yield Scene(server, redis, lease_ms / 1000, processes)
        for one in processes:
            with suppress(ProcessLookupError):
                one.send(signal.SIGKILL)
            await one.process.wait()
        await redis.aclose()


async def test_leaders_that_are_killed_and_paused_and_a_redis_that_was_away(scene: Scene) -> None:
    await scene.more()
    first = await scene.leader()
    first.send(signal.SIGKILL)
    second = await scene.other_than(first)
    await scene.more()
    await scene.check(0, gaps=1)

    await second.begins()
    second.send(signal.SIGSTOP)
    third = await scene.other_than(second)
    await scene.more(1)
    second.send(signal.SIGCONT)
    await second.says("fenced")
    await scene.more()
    assert await scene.leader() is third
    await scene.check(0, gaps=2)

    before = len(await scene.done())
    await scene.server.kill()
    await scene.server.start()
    await scene.more()
    await scene.check(before, gaps=1)

    third.process.stdin.close()  # type: ignore[union-attr]
    await third.process.wait()
    await scene.more(1)
    assert await scene.leader() is second
    await scene.check(before, gaps=1)
    [tick] = await TickStore(scene.redis, RedisClock()).all()
    done = len(await scene.done())
    untold = 2 * (scene.lease_s / 5 / PERIOD_S + 1)  # of who was killed, and of who was paused
    assert done - untold - 1 <= tick.runs <= done
