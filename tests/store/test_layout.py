"""A service reads what an older one left: the records of layout 1 were JSON."""

import json

from admission.domain import Status
from admission.outcomes import Confirmed, Left
from admission.store.names import pool_key
from admission.store.redis_store import RedisStore
from tests.store.room import POOL, Room

NOW_MS = 1_800_000_000_000


async def keep(room: Room, ticket: str, user: str, **facts: object) -> None:
    """A ticket's record as layout 1 wrote it."""
    record = {
        "user": user,
        "joined_ms": NOW_MS - 5000,
        "head_start_ms": 0,
        "clients": {"": 1},
        "uses": {},
        "answers": {},
        **facts,
    }
    await room.redis.hset(pool_key(POOL, "tickets"), ticket, json.dumps(record))
    await room.redis.hset(pool_key(POOL, "users"), user, ticket)


async def zadd(room: Room, name: str, ticket: str, score: float) -> None:
    await room.redis.zadd(pool_key(POOL, name), {ticket: score})


async def test_a_ticket_of_layout_1_lives_on(room: Room) -> None:
    await keep(room, "t1", "ada", started_ms=NOW_MS - 1000)
    await zadd(room, "sessions", "t1", NOW_MS + 60_000)
    await keep(room, "t2", "bob")
    await zadd(room, "drafts", "t2", NOW_MS + 60_000)
    await keep(room, "t3", "cem", score="263415377920000")
    await zadd(room, "queue", "t3", 263415377920000)
    await keep(room, "t4", "dan", score="263415377920001")
    await zadd(room, "skipped", "t4", NOW_MS + 60_000)

    assert await room.standings("ada", "bob", "cem") == ["active", "draft", "waiting"]
    assert isinstance(await room.store.confirm(POOL, "bob"), Confirmed)
    assert (await room.join("eve")).position == 2
    await room.store.heartbeat(POOL, "dan")
    assert [(await room.see(user)).position for user in ("cem", "dan", "eve")] == [1, 2, 3]
    assert await room.store.leave(POOL, "ada") == Left(Status.ACTIVE, Status.DISCONNECTED)
    assert await room.standing("cem") == "draft"


async def test_ticks_before_the_first_service_only_end_what_is_due(room: Room) -> None:
    await keep(room, "t1", "ada", started_ms=NOW_MS - 1000, uses={"r": NOW_MS + 1000})
    await zadd(room, "sessions", "t1", NOW_MS + 60_000)
    await zadd(room, "idle", "t1", NOW_MS - 1)
    await keep(room, "t2", "bob")
    await zadd(room, "drafts", "t2", NOW_MS)
    await keep(room, "t3", "cem", score="263415377920000")
    await zadd(room, "queue", "t3", 263415377920000)
    ticks = RedisStore(room.redis, room.clock, None)
    assert await ticks.expire(POOL) == 60_000
    assert await room.standings("ada", "bob", "cem") == ["active", "draft_timeout", "waiting"]
