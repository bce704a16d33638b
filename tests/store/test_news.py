"""What changed is heard through lost connections, and what may have been missed is said."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from admission.domain import Change
from admission.store.connection import open_redis
from admission.store.news import changes
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Room

PUBSUB_CLIENTS = "pubsub"
EVERYTHING = Change(None, None)
CHANNEL = "vestibule:{default}:changed"

Heard = AsyncIterator[Change]


@pytest.fixture
async def heard(valkey: str) -> AsyncIterator[Heard]:
    """What a service of its own hears; it has heard that it is connected."""
    client = open_redis(valkey)
    news = changes(client)
    assert await anext(news) == EVERYTHING
    yield news
    await news.aclose()  # type: ignore[attr-defined]
    await client.aclose()


async def kill_subscribers(redis: Redis) -> int:
    return await redis.client_kill_filter(_type=PUBSUB_CLIENTS)


async def test_one_event_names_everybody_a_script_moved(heard: Heard, room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    await room.join("a")
    assert await anext(heard) == Change(POOL, ("a",))
    await room.join("b:c|d")
    assert await anext(heard) == Change(POOL, ("b:c|d",))
    await room.store.leave(POOL, "a")  # which offers its slot
    assert await anext(heard) == Change(POOL, ("a", "b:c|d"))


async def test_more_than_500_moved_are_not_named(heard: Heard, room_of: RoomOf) -> None:
    room = room_of(capacity=0)
    for number in range(501):
        await room.join(f"u{number}", will_return=True)
        await anext(heard)
    await room.configure(capacity=500)
    named = (await anext(heard)).users
    assert named is not None
    assert len(named) == 500
    await room.store.leave(POOL, "u0")
    assert await anext(heard) == Change(POOL, ("u0", "u500"))


async def test_all_of_a_large_move_are_meant(heard: Heard, room_of: RoomOf) -> None:
    room = room_of(capacity=0)
    for number in range(501):
        await room.join(f"u{number}", will_return=True)
        await anext(heard)
    await room.configure(capacity=501)
    assert await anext(heard) == Change(POOL, None)


async def test_other_slots_are_told_without_anybody_moving(heard: Heard, room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    await room.sit("a")
    await room.join("b", will_return=True)
    await room.store.announce(POOL)
    await room.configure(capacity=0)
    await room.store.announce(POOL)
    told = [await anext(heard) for _ in range(4)]
    assert told[-2:] == [Change(POOL, ("b",)), Change(POOL, ())]


async def test_reading_and_renewing_move_nobody(heard: Heard, room: Room) -> None:
    ticket = await room.join("a", auto_confirm=True)
    await anext(heard)
    await room.store.status(POOL, "a")
    await room.store.heartbeat(POOL, "a")
    await room.store.attend(POOL, [ticket.ticket_id])
    await room.store.positions(POOL, [ticket.ticket_id])
    await room.store.announce(POOL)
    await room.join("b")
    assert await anext(heard) == Change(POOL, ("b",))


async def test_a_lost_connection_is_made_again_and_told(heard: Heard, room: Room) -> None:
    for user in ("a", "b"):
        assert await kill_subscribers(room.redis) == 1
        async with asyncio.timeout(5):
            assert await anext(heard) == EVERYTHING
        await room.join(user)
        assert await anext(heard) == Change(POOL, (user,))


@pytest.mark.parametrize("said", [b"\xff", b"3", b'"x"', b"[" * 100_000, b'{"moved":"all"}'])
async def test_what_cannot_be_read_may_mean_anybody(
    heard: Heard, redis: Redis, said: bytes
) -> None:
    await redis.publish(CHANNEL, said)
    assert await anext(heard) == Change(POOL, None)


async def test_what_is_no_name_is_left_out(heard: Heard, redis: Redis) -> None:
    await redis.publish(CHANNEL, b'{"moved":["a",3,null,{}]}')
    assert await anext(heard) == Change(POOL, ("a",))
