"""The plain store and the real one side by side: each call goes to both, and they must agree."""

import asyncio
import json
from collections.abc import Awaitable, Sequence
from typing import Literal, TypeVar

from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.instance import Command, Event, Instance
from admission.store import names
from admission.store.fence import Fence, Fenced
from admission.store.fleet_store import FleetStore
from tests.fleet.plain_store import PlainFleetStore

MANY = 10**6

T = TypeVar("T")


class DoubledStore(PlainFleetStore):
    """What it says is the real store's answer; one call at a time."""

    def __init__(self, redis: Redis, clock: ManualClock) -> None:
        super().__init__(clock.now_ms(), history_kept=MANY, history_max=MANY)
        self._redis = redis
        self._real = FleetStore(redis, clock, history_kept=MANY, history_max=MANY)
        self._one = asyncio.Lock()
        self._leases: dict[str, int] = {}
        self._entries: dict[str, str] = {}  # the real one's -> the plain one's

    def lease(self, tick: str) -> Fence:
        fence = super().lease(tick)
        self._leases[tick] = fence.epoch
        return fence

    async def _both(self, real: Awaitable[T], plain: Awaitable[T]) -> T:
        """The plain one does not wait for anything, so nobody takes a lease while it answers."""
        while self._leases:
            tick, epoch = self._leases.popitem()
            await self._redis.hset(names.TICKS_KEY, tick, json.dumps({"epoch": epoch}))
        wanted = await _outcome(plain)
        answer = await _outcome(real)
        if isinstance(answer, Fenced):
            assert isinstance(wanted, Fenced)
            raise answer
        assert not isinstance(wanted, Fenced)
        assert answer == wanted
        return answer

    async def instances(self, *, archived: bool = False) -> list[Instance]:
        async with self._one:
            real = self._real.instances(archived=archived)
            return await self._both(real, super().instances(archived=archived))

    async def instance(self, instance_id: str) -> Instance | None:
        async with self._one:
            return await self._both(self._real.instance(instance_id), super().instance(instance_id))

    async def write(
        self, fence: Fence, instance: Instance, read_version: int, events: Sequence[Event]
    ) -> bool:
        async with self._one:
            return await self._both(
                self._real.write(fence, instance, read_version, events),
                super().write(fence, instance, read_version, events),
            )

    async def note(self, fence: Fence, events: Sequence[Event]) -> None:
        async with self._one:
            await self._both(self._real.note(fence, events), super().note(fence, events))

    async def ask(self, command: Command, said: bytes | None = None) -> bool:
        async with self._one:
            return await self._both(self._real.ask(command, said), super().ask(command, said))

    async def commands(self, count: int = MANY) -> list[tuple[str, Command]]:
        async with self._one:
            plain = await super().commands(count)
            real = await self._real.commands(count)
            assert [command for _, command in real] == [command for _, command in plain]
            self._entries |= {mine: its for (mine, _), (its, _) in zip(real, plain, strict=True)}
            return real

    async def take(
        self,
        fence: Fence,
        entry: str,
        changes: Sequence[tuple[Instance, int]],
        events: Sequence[Event],
    ) -> Literal["taken", "gone", "stale"]:
        async with self._one:
            return await self._both(
                self._real.take(fence, entry, changes, events),
                super().take(fence, self._entries[entry], changes, events),
            )


async def _outcome(call: Awaitable[T]) -> T | Fenced:
    try:
        return await call
    except Fenced as fenced:
        return fenced
