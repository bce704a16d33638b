"""Who is next gets the slot in the script that freed it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from admission.domain import Status
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Room, report

SESSION_MS = 1_200_000

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
