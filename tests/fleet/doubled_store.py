"""The plain store and the real one side by side: each call goes to both, and they must agree."""

import asyncio
import json
from collections.abc import Sequence
from typing import Literal

from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.instance import Command, Event, Instance
from admission.store import names
from admission.store.fence import Fence
from admission.store.fleet_store import FleetStore
from tests.fleet.plain_store import PlainFleetStore

MANY = 10**6


class DoubledStore(PlainFleetStore):
    """What it says is the real store's answer."""

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

    async def _lend(self) -> None:
        for tick, epoch in self._leases.items():
            value = json.dumps({"epoch": epoch})
            await self._redis.hset(names.TICKS_KEY, tick, value)
        self._leases.clear()

    async def instances(self, *, archived: bool = False) -> list[Instance]:
        async with self._one:
            real = await self._real.instances(archived=archived)
            assert real == await super().instances(archived=archived)
            return real

    async def instance(self, instance_id: str) -> Instance | None:
        async with self._one:
            real = await self._real.instance(instance_id)
            assert real == await super().instance(instance_id)
            return real

    async def write(
        self, fence: Fence, instance: Instance, read_version: int, events: Sequence[Event]
    ) -> bool:
        async with self._one:
            await self._lend()
            real = await self._real.write(fence, instance, read_version, events)
            assert real == await super().write(fence, instance, read_version, events)
            return real

    async def note(self, fence: Fence, events: Sequence[Event]) -> None:
        async with self._one:
            await self._lend()
            await self._real.note(fence, events)
            await super().note(fence, events)

    async def ask(self, command: Command, said: bytes | None = None) -> bool:
        async with self._one:
            real = await self._real.ask(command, said)
            assert real == await super().ask(command, said)
            return real

    async def commands(self, count: int = MANY) -> list[tuple[str, Command]]:
        async with self._one:
            real = await self._real.commands(count)
            plain = await super().commands(count)
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
            await self._lend()
            real = await self._real.take(fence, entry, changes, events)
            assert real == await super().take(fence, self._entries[entry], changes, events)
            return real
