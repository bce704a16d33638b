"""A lost reply: the call is repeated by the client, and has happened once."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, PoolPolicy, Status, Ticket
from admission.errors import StoreUnavailable
from admission.outcomes import Confirmed, Joined, Left
from admission.store.connection import open_redis
from admission.store.redis_store import RedisStore
from tests.store.lossy import LossyWay, lossy_way
from tests.store.room import Room, join, report

POOL = DEFAULT_POOL


@dataclass
class Far:
    """A store whose replies may get lost on the way."""

    store: RedisStore
    way: LossyWay

    def lose(self, replies: int = 1) -> RedisStore:
        """The store; the next replies do not reach it."""
        self.way.lose = replies
        return self.store


@pytest.fixture
async def far(valkey: str, redis: Redis, clock: ManualClock) -> AsyncIterator[Far]:
    async with lossy_way(valkey) as way:
        client = open_redis(way.url)
        store = RedisStore(client, clock, PoolPolicy(capacity=2))
        await store.load()
        yield Far(store, way)
        await client.aclose()


async def test_join_gives_one_ticket(far: Far, room: Room) -> None:
    joined = await join(far.lose(), "ada")
    assert far.way.lose == 0
    assert (await room.see("ada")).ticket_id == joined.ticket_id
    assert await room.held() == 1


async def test_confirm_use_and_leave_happen_once(far: Far, room: Room) -> None:
    await room.join("ada")
    assert isinstance(await far.lose().confirm(POOL, "ada"), Confirmed)
    for _ in range(2):
        await far.lose().use(POOL, "ada", request="r", message="m", concurrency=1)
    assert (await far.lose().leave(POOL, "ada")) == Left(Status.DISCONNECTED, Status.DISCONNECTED)
    assert await room.standing("ada") == "left"


async def test_a_worker_is_registered_by_its_repeated_call(far: Far, room: Room) -> None:
    identity = {"url": "http://127.0.0.1:1", "kind": "agent"}
    known = await far.lose().register_worker(
        POOL, "w", identity=identity, slots=1, token_hash="new", presented_hash="shared"
    )
    assert known
    assert far.way.lose == 0
    await room.store.report_worker(POOL, "w", report(), token_hash="new")
    assert not await room.store.register_worker(
        POOL, "w", identity=identity, slots=1, token_hash="newer", presented_hash="shared"
    )


async def test_a_join_repeated_after_the_leave_brings_nobody_back(room: Room) -> None:
    """Its ticket ended in between: taken for a new one, it would be forgotten while it lasts."""
    first = await room.store.join(POOL, "ada", ticket="t")
    assert isinstance(first, Joined)
    await room.store.leave(POOL, "ada")
    again = await room.store.join(POOL, "ada", ticket="t")
    assert isinstance(again, Joined)
    assert (again.ticket.status, again.ticket.reason, again.new) == ("disconnected", "left", False)
    assert await room.held() == 0
    assert isinstance(await room.store.join(POOL, "ada", ticket="other"), Joined)
    assert isinstance(await room.store.status(POOL, "ada"), Ticket)
    assert await room.held() == 1


async def test_a_plain_command_is_repeated_too(far: Far) -> None:
    assert await far.lose().pools() == [POOL]
    assert far.way.lose == 0


async def test_what_is_lost_again_and_again_is_said(far: Far) -> None:
    with pytest.raises(StoreUnavailable):
        await far.lose(1000).join(POOL, "ada", ticket="t")
    far.way.lose = 0
    assert isinstance(await far.store.join(POOL, "ada", ticket="t"), Joined)
