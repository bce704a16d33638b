"""What the store's tests share: rooms of any policy on the real Valkey, more clients, an ear."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from admission.clock import Clock, ManualClock
from admission.domain import PoolPolicy
from admission.store.fence import Fence
from admission.store.fleet_store import FleetStore
from admission.store.redis_store import RedisStore
from tests.fleet.words import taken
from tests.store.room import Ear, Room

RoomOf = Callable[..., Room]
StoresOf = Callable[..., list[RedisStore]]


@pytest.fixture
def room_of(redis: Redis, clock: ManualClock) -> RoomOf:
    """Makes a room by the names of PoolPolicy; capacity 2 unless told."""

    def make(**policy: object) -> Room:
        settings = PoolPolicy(**{"capacity": 2, **policy})  # type: ignore[arg-type]
        return Room(RedisStore(redis, clock, settings), clock, redis)

    return make


@pytest.fixture
def room(room_of: RoomOf) -> Room:
    return room_of()


@pytest.fixture
async def full(room: Room) -> Room:
    """Both slots are taken."""
    await room.sit("s1", "s2")
    return room


@pytest.fixture
async def stores_of(redis: Redis, valkey: str) -> AsyncIterator[StoresOf]:
    """Makes stores that stand for as many processes: each has its own connections."""
    async with AsyncExitStack() as open_clients:

        def make(number: int, clock: Clock, **policy: object) -> list[RedisStore]:
            clients = [Redis.from_url(valkey) for _ in range(number)]
            for client in clients:
                open_clients.push_async_callback(client.aclose)
            settings = PoolPolicy(**policy)  # type: ignore[arg-type]
            return [RedisStore(client, clock, settings) for client in clients]

        yield make


@pytest.fixture
async def ear(redis: Redis) -> AsyncIterator[Ear]:
    """Hears every user's channel from the begin of the test."""
    async with redis.pubsub() as pubsub:
        await pubsub.psubscribe("queue_status:*")
        yield Ear(pubsub)


@pytest.fixture
def fleet(redis: Redis, clock: ManualClock) -> FleetStore:
    """With a history of 3 to 6 entries."""
    return FleetStore(redis, clock, history_kept=3, history_max=6)


@pytest.fixture
async def fence(redis: Redis, clock: ManualClock) -> Fence:
    """Of who holds the lease of the tick "instances"."""
    return await taken(redis, clock, "a")
