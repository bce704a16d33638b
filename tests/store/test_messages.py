"""What is published on ``queue_status:<user>``: these messages, in this order, and nothing else."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import PoolPolicy, Priority
from admission.store.redis_store import RedisStore
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Ear, Room, join

NOW_MS = 1_800_000_000_000
SESSION_MS = 1_200_000
DRAFT_MS = 300_000


def iso(ms: int) -> str:
    """By Python's calendar, to the millisecond."""
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def message(user: str, status: str, **facts: Any) -> dict[str, Any]:
    return {"user_id": user, "pool": POOL, "status": status, **facts}


def waiting(user: str, position: int, estimated_wait: int | None) -> dict[str, Any]:
    return message(user, "waiting", position=position, estimated_wait=estimated_wait)


def slot(user: str, until_ms: int, now_ms: int = NOW_MS) -> dict[str, Any]:
    duration = -((now_ms - until_ms) // 1000)
    return message(user, "slot_available", duration=duration, expires_at=iso(until_ms))


def connected(user: str, until_ms: int) -> dict[str, Any]:
    return message(user, "connected", session_duration=1200, expires_at=iso(until_ms))


def expired(user: str, reason: str) -> dict[str, Any]:
    return message(user, "expired", reason=reason)


def gone(user: str, reason: str, requeue_position: int | None = None) -> dict[str, Any]:
    return message(user, "disconnected", reason=reason, requeue_position=requeue_position)


@pytest.fixture
def one(room_of: RoomOf) -> Room:
    return room_of(capacity=1)


async def test_a_whole_life_by_draft(one: Room, ear: Ear) -> None:
    await one.join("a")
    assert await ear.heard() == [slot("a", NOW_MS + DRAFT_MS)]
    await one.store.confirm(POOL, "a")
    assert await ear.heard() == [connected("a", NOW_MS + SESSION_MS)]
    await one.join("b", will_return=True)
    assert await ear.heard() == [waiting("b", 1, 1200)]
    await one.store.leave(POOL, "a")
    assert await ear.heard() == [gone("a", "left"), slot("b", NOW_MS + DRAFT_MS)]


async def test_an_auto_confirmed_join_is_connected_at_once(one: Room, ear: Ear) -> None:
    await one.join("a", auto_confirm=True)
    assert await ear.heard() == [connected("a", NOW_MS + SESSION_MS)]


@pytest.mark.parametrize(
    ("flags", "after_ms", "reason"),
    [
        ({}, DRAFT_MS, "draft_timeout"),
        ({"auto_confirm": True}, 60_000, "idle"),
    ],
)
async def test_a_deadline_says_expired_and_then_disconnected(
    one: Room, ear: Ear, flags: dict[str, bool], after_ms: int, reason: str
) -> None:
    await one.join("a", **flags)
    await ear.heard()
    one.clock.advance_ms(after_ms)
    await one.tick()
    assert await ear.heard() == [expired("a", reason), gone("a", reason)]
    await one.tick()
    assert await ear.heard() == []


async def test_a_session_that_runs_out_frees_its_slot_after_the_news(one: Room, ear: Ear) -> None:
    await one.sit("a")
    await one.join("b", will_return=True)
    await ear.heard()
    one.clock.advance_ms(SESSION_MS)
    await one.tick()
    offered = slot("b", NOW_MS + SESSION_MS + DRAFT_MS, NOW_MS + SESSION_MS)
    ended = [expired("a", "session_timeout"), gone("a", "session_timeout")]
    assert await ear.heard() == [*ended, offered]


async def test_waiting_ends_by_queue_timeout_or_abandonment(room_of: RoomOf, ear: Ear) -> None:
    room = room_of(capacity=0, queue_timeout_ms=100_000)
    await room.join("a")
    room.clock.advance_ms(100_000)
    await room.tick()
    assert (await ear.heard())[1:] == [expired("a", "queue_timeout"), gone("a", "queue_timeout")]
    await room.configure(queue_timeout_ms=10_000_000)
    await room.join("b", auto_confirm=True)
    room.clock.advance_ms(60_000)
    await room.tick()
    room.clock.advance_ms(600_000)
    await room.tick()
    assert (await ear.heard())[1:] == [expired("b", "abandoned"), gone("b", "abandoned")]


async def test_requeue_names_the_new_position(room_of: RoomOf, ear: Ear) -> None:
    room = room_of(capacity=1, requeue=True)
    await room.sit("a")
    for user in "bc":
        await room.join(user, will_return=True)
    room.clock.advance_ms(SESSION_MS)
    await ear.heard()
    await room.tick()
    assert (await ear.of("a"))[-1] == gone("a", "session_timeout", requeue_position=3)


@pytest.mark.parametrize(("end", "reason"), [("leave", "left"), ("cancel", "removed")])
async def test_an_end_before_its_time_sends_disconnected_alone(
    one: Room, ear: Ear, end: str, reason: str
) -> None:
    await one.sit("a")
    await ear.heard()
    for _ in range(2):
        await getattr(one.store, end)(POOL, "a")
    assert await ear.heard() == [gone("a", reason)]


async def test_a_draft_is_announced_again_every_5_s(one: Room, ear: Ear) -> None:
    await one.join("a")
    await ear.heard()
    for after_ms, said in [(0, False), (4999, False), (1, True), (4999, False), (1, True)]:
        one.clock.advance_ms(after_ms)
        assert await one.store.announce(POOL) == int(said)
    now_ms = NOW_MS + 10_000
    assert (await ear.heard())[-1] == slot("a", NOW_MS + DRAFT_MS, now_ms)
    one.clock.advance_ms(DRAFT_MS - 10_000)
    assert await one.store.announce(POOL) == 0  # over, ticked or not


async def test_the_end_of_draft_and_session_is_announced_once_each(one: Room, ear: Ear) -> None:
    await one.join("a")
    one.clock.advance_ms(DRAFT_MS - 60_001)
    await one.store.announce(POOL)
    await ear.heard()

    async def soon() -> list[dict[str, Any]]:
        one.clock.advance_ms(1)
        await one.store.announce(POOL)
        return [said for said in await ear.heard() if said["status"] == "expiring_soon"]

    facts = {"remaining_time": 60}
    assert await soon() == [message("a", "expiring_soon", session_type="draft", **facts)]
    assert await soon() == []
    await one.store.confirm(POOL, "a")
    one.clock.advance_ms(SESSION_MS - 60_001)
    assert await soon() == [message("a", "expiring_soon", session_type="active", **facts)]
    assert await soon() == []


async def test_an_idle_session_is_warned_once(one: Room, ear: Ear) -> None:
    await one.sit("a")
    await one.join("b", will_return=True)
    await ear.heard()
    one.clock.advance_ms(300_000)
    for _ in range(3):
        await one.tick()
    warning = message("a", "expiring_soon", session_type="active", remaining_time=60)
    assert await ear.heard() == [warning]


async def test_a_join_tells_its_own_place_and_announce_only_what_changed(
    room: Room, ear: Ear
) -> None:
    await room.sit("s1", "s2")
    await ear.heard()
    for user in "abc":
        await room.join(user, will_return=True)
    heard = [(said["user_id"], said["position"]) for said in await ear.heard()]
    assert heard == [("a", 1), ("b", 2), ("c", 3)]
    assert await room.store.announce(POOL) == 0
    await room.join("b", will_return=True)
    await room.store.leave(POOL, "b")
    assert await room.store.announce(POOL) == 1
    assert await ear.heard() == [gone("b", "left"), waiting("c", 2, 1200)]


async def test_an_unknown_estimate_is_null(room_of: RoomOf, ear: Ear) -> None:
    await room_of(capacity=0).join("a")
    assert await ear.heard() == [waiting("a", 1, None)]


async def test_beyond_the_first_thousand_only_the_attached_are_told(
    room_of: RoomOf, ear: Ear
) -> None:
    room = room_of(capacity=0)
    await room.join("first", will_return=True)
    for number in range(1000):
        await room.join(f"u{number}", will_return=True)
    await room.join("attached", auto_confirm=True)
    await room.join("last", will_return=True)
    await ear.heard()
    await room.store.leave(POOL, "first")
    assert await room.store.announce(POOL) == 1001
    heard = [said for said in await ear.heard() if said["status"] == "waiting"]
    assert [said["position"] for said in heard[-2:]] == [1000, 1001]
    assert heard[-1]["user_id"] == "attached"


async def test_what_makes_a_place_worse_is_said(room_of: RoomOf, ear: Ear) -> None:
    room = room_of(capacity=2, priorities={"vip": Priority(60_000)})
    await room.sit("s1", "s2")
    await room.join("a", will_return=True)
    await room.join("b", priority="vip", will_return=True)
    await ear.heard()

    async def told(user: str) -> list[tuple[int, str | None]]:
        await room.store.announce(POOL)
        heard = [said for said in await ear.of(user) if said["status"] == "waiting"]
        return [(said["position"], said.get("because")) for said in heard]

    assert await told("a") == [(2, "passed")]
    await room.store.leave(POOL, "b")
    assert await told("a") == [(1, None)]
    await room.configure(capacity=0)
    assert await told("a") == [(1, "capacity")]
    assert await told("a") == []
    await room.configure(capacity=2)
    assert await told("a") == [(1, "capacity")]


async def test_a_release_that_does_not_come_is_said(room_of: RoomOf, ear: Ear) -> None:
    room = room_of(capacity=1)
    for number in range(20):  # sessions lately lasted a minute
        await room.sit(f"s{number}")
        room.clock.advance_ms(60_000)
        await room.store.leave(POOL, f"s{number}")
    await room.sit("stays")
    await room.join("a", will_return=True)
    await ear.heard()
    reasons = []
    for _ in range(60):
        room.clock.advance_ms(10_000)
        await room.tick()
        await room.store.announce(POOL)
        reasons += [said.get("because") for said in await ear.of("a")]
    assert "overdue" in reasons
    assert len(reasons) < 60  # what moved by less than 15 s is no news


async def test_what_was_told_is_kept_for_those_who_are_told_again(
    room_of: RoomOf, redis: Redis
) -> None:
    room = room_of(capacity=0)
    for number in range(1010):
        await room.join(f"u{number}", will_return=True)
    await room.join("attached", auto_confirm=True)
    await room.store.announce(POOL)
    assert await redis.hlen("vestibule:{default}:told") == 1001


async def test_what_is_said_can_be_read(one: Room, ear: Ear) -> None:
    """No push without a snapshot that a later subscriber can fetch."""
    draft = await one.join("a")
    [said] = await ear.heard()
    assert draft.expires_ms is not None
    assert said["expires_at"] == iso(draft.expires_ms)
    await one.store.confirm(POOL, "a")
    seen = await one.see("a")
    assert seen.expires_ms is not None
    assert (await ear.heard())[0]["expires_at"] == iso(seen.expires_ms)


async def test_reading_and_renewing_say_nothing(room: Room, ear: Ear) -> None:
    await room.sit("s1", "s2")
    await room.join("a", auto_confirm=True)
    await ear.heard()
    await room.store.status(POOL, "a")
    await room.metrics()
    await room.store.heartbeat(POOL, "a")
    await room.use("s1")
    assert await ear.heard() == []


INSTANTS = [
    "2028-02-28T23:59:59.999",
    "2028-02-29T00:00:00.000",
    "2028-02-29T23:59:59.999",
    "2028-03-01T00:00:00.000",
    "2027-12-31T23:59:59.999",
    "2100-02-28T23:59:59.999",
    "2100-03-01T00:00:00.000",
    "2400-02-29T12:00:00.001",
]


async def test_instants_are_those_of_the_calendar(redis: Redis, ear: Ear) -> None:
    chance = random.Random(1)
    known = [datetime.fromisoformat(f"{text}+00:00") for text in INSTANTS]
    instants = [round(when.timestamp() * 1000) for when in known]
    instants += [chance.randrange(1_735_689_600_000, 13_000_000_000_000) for _ in range(300)]
    clock = ManualClock(0)
    store = RedisStore(redis, clock, PoolPolicy(draft_ms=1))
    for ms in sorted(instants):
        clock.advance_ms(ms - 1 - clock.now_ms())
        await join(store, "a")
        assert (await ear.of("a"))[-1]["expires_at"] == iso(ms)
