"""Who is next gets the slot in the script that freed it, and what people are told about when."""

import random
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from admission.domain import Status
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Room, report

SESSION_MS = 1_200_000
DRAFT_MS = 300_000

Freeing = Callable[[Room], Awaitable[None]]


async def leave(room: Room) -> None:
    await room.store.leave(POOL, "s")


async def expire(room: Room) -> None:
    room.clock.advance_ms(SESSION_MS)
    await room.tick()


async def call_of_another(room: Room) -> None:
    room.clock.advance_ms(SESSION_MS)
    await room.store.heartbeat(POOL, "second")


async def answer_done(room: Room) -> None:
    [ticket] = await room.sit("s")
    await room.use("s", message="")
    await room.store.leave(POOL, "s")
    assert await room.standing("first") == "waiting"
    await room.store.done(POOL, ticket=ticket.ticket_id, request="r")


async def raise_capacity(room: Room) -> None:
    await room.store.configure(POOL, {"capacity": 2})


async def resume(room: Room) -> None:
    await room.configure(paused=True)
    await leave(room)
    assert await room.standing("first") == "waiting"
    await room.store.configure(POOL, {"paused": False})


async def worker_ready(room: Room) -> None:
    await room.configure(needs_worker=True)
    await leave(room)
    assert await room.standing("first") == "waiting"
    await room.store.report_worker(POOL, "w", report(), identity={"url": "u"})


@pytest.mark.parametrize(
    "free", [leave, expire, call_of_another, answer_done, raise_capacity, resume, worker_ready]
)
@pytest.mark.parametrize(
    ("flags", "status"),
    [({"auto_confirm": True}, Status.ACTIVE), ({"will_return": True}, Status.DRAFT)],
)
async def test_a_freed_slot_goes_to_the_next_in_the_same_script(
    room_of: RoomOf, free: Freeing, flags: dict[str, Any], status: Status
) -> None:
    room = room_of(capacity=1, grace_ms=2 * SESSION_MS)
    await room.sit("s")
    await room.join("first", **flags)
    await room.join("second", **flags)
    await free(room)
    assert await room.standings("first", "second") == [status, "waiting"]


async def test_as_many_are_offered_as_slots_are_free(room_of: RoomOf) -> None:
    room = room_of(capacity=0)
    for number in range(5):
        await room.join(f"u{number}")
    await room.configure(capacity=3)
    standings = await room.standings(*(f"u{number}" for number in range(5)))
    assert standings == ["draft"] * 3 + ["waiting"] * 2


async def test_a_free_slot_is_used_even_by_a_tick(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    await room.sit("s")
    await room.join("a")
    await room.store.leave(POOL, "s", client="not attached")
    await room.redis.zrem("vestibule:{default}:sessions", (await room.see("s")).ticket_id)
    await room.tick()
    assert await room.standing("a") == "draft"


@pytest.mark.parametrize(
    "policy", [{"paused": True}, {"capacity": 0}, {"needs_worker": True}, {"capacity": "auto"}]
)
async def test_what_cannot_be_known_is_not_guessed(room: Room, policy: dict[str, Any]) -> None:
    await room.sit("s1", "s2")
    await room.join("a")
    await room.configure(**policy)
    seen, metrics = await room.see("a"), await room.metrics()
    assert (seen.wait_ms, seen.wait_high_ms) == (None, None)
    assert (metrics.wait_ms, metrics.wait_high_ms) == (None, None)
    await room.configure(**dict.fromkeys(policy))
    assert (await room.see("a")).wait_ms is not None


async def test_the_first_waits_for_the_session_that_ends_first(room: Room) -> None:
    await room.sit("s1")
    room.clock.advance_ms(200_000)
    await room.sit("s2")
    waits = [(await room.join(user, will_return=True)).wait_high_ms for user in "abc"]
    assert waits == [SESSION_MS - 200_000, SESSION_MS, 2 * SESSION_MS - 200_000]


async def test_the_estimate_counts_down_with_time(room: Room) -> None:
    await room.sit("s1", "s2")
    before = await room.join("a", will_return=True)
    room.clock.advance_ms(10_000)
    after = await room.see("a")
    assert before.wait_ms is not None
    assert before.wait_high_ms is not None
    assert after.wait_ms == before.wait_ms - 10_000
    assert after.wait_high_ms == before.wait_high_ms - 10_000


async def test_nobody_waits_where_a_slot_is_free(room: Room) -> None:
    assert ((await room.metrics()).wait_ms, (await room.metrics()).wait_high_ms) == (0, 0)


async def test_short_sessions_shorten_the_estimate_not_the_bound(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    for _ in range(60):
        await room.sit("s")
        room.clock.advance_ms(10_000)
        await room.store.leave(POOL, "s")
    await room.sit("s")
    await room.join("a")
    second = await room.join("b")
    assert second.wait_ms is not None
    assert second.wait_ms < SESSION_MS / 2 + 20_000
    assert second.wait_high_ms == 2 * SESSION_MS


async def test_the_metrics_tell_the_wait_of_who_would_join_now(room: Room) -> None:
    await room.sit("s1", "s2")
    await room.join("a")
    told = await room.metrics()
    joined = await room.join("b")
    assert (told.wait_ms, told.wait_high_ms) == (joined.wait_ms, joined.wait_high_ms)


@pytest.mark.parametrize("seed", range(12))
async def test_who_stands_further_back_is_never_told_a_shorter_wait(
    room_of: RoomOf, seed: int
) -> None:
    chance = random.Random(seed)
    room = room_of(capacity=5, idle_ms=10 * SESSION_MS)
    for number in range(20):  # learn that sessions are short, then hold some of every age
        await room.sit(f"past{number}")
        room.clock.advance_ms(chance.randrange(1, 30_000))
        await room.store.leave(POOL, f"past{number}")
    for number in range(5):
        kind = chance.choice(["draft", "active", "finishing"])
        await room.join(f"h{number}", will_return=True)
        if kind != "draft":
            await room.store.confirm(POOL, f"h{number}")
        if kind == "finishing":
            await room.use(f"h{number}")
            await room.store.leave(POOL, f"h{number}")
        room.clock.advance_ms(chance.randrange(5000))
    await room.configure(capacity=chance.choice([2, 5, 7]))
    seen = [await room.join(f"w{number}", will_return=True) for number in range(20)]
    waits = [(t.wait_ms, t.wait_high_ms) for t in seen if t.status == Status.WAITING]
    assert len(waits) >= 18
    known = [(value, high) for value, high in waits if value is not None and high is not None]
    assert len(known) == len(waits)
    assert all(0 <= value <= high for value, high in known)
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(known))


async def test_after_capacity_was_lowered_the_surplus_must_end_first(room_of: RoomOf) -> None:
    room = room_of(capacity=3)
    for number in range(3):
        await room.sit(f"s{number}")
        room.clock.advance_ms(10_000)
    await room.configure(capacity=1)
    waits = [(await room.join(user)).wait_high_ms for user in "ab"]
    assert waits == [SESSION_MS - 10_000, 2 * SESSION_MS - 10_000]
    room.clock.advance_ms(SESSION_MS - 30_000)
    await room.tick()
    assert await room.standing("a") == "waiting"
