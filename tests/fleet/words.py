"""Instances, events and commands in the short words of the fleet's tests."""

import msgspec
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.instance import Command, Event, Instance, Kind, Order, State, Volume
from admission.store.fence import Fence
from admission.store.fleet_store import FleetStore
from admission.store.tick_store import TickStore, Word

TICK = "instances"
NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
ORDER = Order("local", options={"gpus": "1"})
DISK = Volume("vol-1", "gp3", 100, is_boot=True)


def machine(identity: str = "i-1", version: int = 1, **changes: object) -> Instance:
    """An instance as a scheduler would write it."""
    first = Instance(identity, ORDER, State.PROVISIONING, version, 5, NOW_MS, NOW_MS, NOW_MS)
    return msgspec.structs.replace(first, **changes)


def happened(instance: Instance | str, name: str = "provision", **more: object) -> Event:
    """A line of its history."""
    if isinstance(instance, Instance):
        return Event(instance.id, NOW_MS, instance.version, name, **more)  # type: ignore[arg-type]
    return Event(instance, NOW_MS, 0, name, **more)  # type: ignore[arg-type]


def asked(identity: str = "c-1", *instances: str, **changes: object) -> Command:
    """A command to drain, unless told otherwise."""
    drain = Command(identity, Kind.DRAIN, NOW_MS, "ops", instances or ("i-1",))
    return msgspec.structs.replace(drain, **changes)


async def taken(redis: Redis, clock: ManualClock, owner: str) -> Fence:
    """The lease of the tick, as a clockwork gets it."""
    lease = (await TickStore(redis, clock).beat(owner, {TICK: Word(1000)}))[TICK]
    assert lease.epoch
    return Fence(TICK, lease.epoch)


async def names_of(fleet: FleetStore) -> list[str]:
    """What the history holds."""
    return [entry.event.name for entry in await fleet.history()]
