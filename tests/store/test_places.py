"""Where many stand, and that they are here: one call for all, the same answer as one for each."""

import pytest

from admission.domain import Places, Priority, Status, Ticket
from admission.store import redis_store
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Ear, Room

MANY = 300


def ids(tickets: list[Ticket]) -> list[str]:
    return [ticket.ticket_id for ticket in tickets]


async def waiting(room: Room, number: int, **flags: bool) -> list[Ticket]:
    return [await room.join(f"u{i}", **flags) for i in range(number)]


async def test_places_are_those_that_status_tells(room: Room) -> None:
    await room.sit("s1", "s2")
    tickets = await waiting(room, 5, will_return=True)
    await room.store.leave(POOL, "u1")
    room.clock.advance_ms(100_000)
    places = await room.store.positions(POOL, ids(tickets))
    seen = [places.of(ticket, index) for index, ticket in enumerate(tickets)]
    assert seen[1] is None
    assert [seen[0], *seen[2:]] == [await room.see(user) for user in ("u0", "u2", "u3", "u4")]
    assert places.slots == 2


async def test_who_is_not_in_the_order_has_no_place(room: Room) -> None:
    [active, _] = await room.sit("s1", "s2")
    skipped = await room.join("a", auto_confirm=True)
    stays = await room.join("b", will_return=True)
    room.clock.advance_ms(60_000)
    await room.tick()
    asked = [active.ticket_id, skipped.ticket_id, "nobody's", stays.ticket_id]
    assert (await room.store.positions(POOL, asked)).positions == [0, 0, 0, 1]


async def test_a_wait_that_cannot_be_known_is_none(room_of: RoomOf) -> None:
    room = room_of(capacity=0)
    ticket = await room.join("a", will_return=True)
    places = await room.store.positions(POOL, [ticket.ticket_id])
    now = places.of(ticket, 0)
    assert now is not None
    assert (now.position, now.wait_ms, now.wait_high_ms, places.slots) == (1, None, None, 0)


async def test_a_paused_pool_has_no_slots_to_grant(room: Room) -> None:
    await room.sit("s1", "s2")
    ticket = await room.join("a", will_return=True)
    await room.configure(paused=True)
    assert (await room.store.positions(POOL, [ticket.ticket_id])).slots == 0


async def test_places_say_who_may_be_passed(room_of: RoomOf) -> None:
    room = room_of(capacity=0, priorities={"vip": Priority(3000)})
    tickets = [await room.join("a"), await room.join("b", priority="vip")]
    for passable in (True, False):
        places = await room.store.positions(POOL, ids(tickets))
        seen = [places.of(ticket, index) for index, ticket in enumerate(tickets)]
        assert seen == [await room.see(user) for user in "ab"]
        assert seen[0] is not None
        assert seen[0].may_be_passed is passable
        room.clock.advance_ms(3000)


async def test_asking_for_places_changes_nothing(room: Room) -> None:
    await room.sit("s1", "s2")
    tickets = await waiting(room, 3, auto_confirm=True)
    room.clock.advance_ms(600_000)  # much is due, and it is not this call that ends it
    before = await room.dump()
    await room.store.positions(POOL, ids(tickets))
    assert await room.dump() == before


async def test_all_who_attend_keep_their_place(room_of: RoomOf) -> None:
    room = room_of(capacity=0)
    tickets = await waiting(room, 4, auto_confirm=True)
    for _ in range(3):
        room.clock.advance_ms(59_999)
        await room.store.attend(POOL, ids(tickets[:3]))
        await room.tick()
    room.clock.advance_ms(59_999)
    await room.tick()
    places = await room.store.positions(POOL, ids(tickets))
    assert places.positions == [1, 2, 3, 0]


async def test_a_call_that_says_they_are_here_skips_none_of_them(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    await room.sit("s")
    tickets = await waiting(room, 2, auto_confirm=True)
    room.clock.advance_ms(60_000)  # both lapsed, and no tick came by
    await room.store.attend(POOL, ids(tickets[1:]))
    await room.store.attend(POOL, ids(tickets[:1]))
    assert (await room.store.positions(POOL, ids(tickets))).positions == [1, 2]


async def test_who_was_skipped_comes_back_and_who_will_return_is_not_watched(
    room_of: RoomOf,
) -> None:
    room = room_of(capacity=0)
    skipped = await room.join("a", auto_confirm=True)
    returns = await room.join("b", will_return=True)
    room.clock.advance_ms(60_000)
    await room.tick()
    assert (await room.see("b")).position == 1
    await room.store.attend(POOL, [skipped.ticket_id, returns.ticket_id, "nobody's"])
    assert [(await room.see(user)).position for user in "ab"] == [1, 2]
    room.clock.advance_ms(60_000)
    await room.tick()
    assert (await room.see("b")).position == 1


async def test_presence_is_for_those_who_wait(room: Room) -> None:
    [active, _] = await room.sit("s1", "s2")
    gone = await room.join("a")
    await room.store.leave(POOL, "a")
    await room.store.attend(POOL, [active.ticket_id, gone.ticket_id])
    assert await room.redis.zcard("vestibule:{default}:presence") == 0


async def test_attending_moves_the_queue(room: Room) -> None:
    await room.sit("s1", "s2")
    ticket = await room.join("a", auto_confirm=True)
    room.clock.advance_ms(1_170_000)
    await room.store.attend(POOL, [ticket.ticket_id])
    room.clock.advance_ms(30_000)
    await room.store.attend(POOL, [ticket.ticket_id])
    assert (await room.see("a")).status is Status.ACTIVE


async def test_a_pass_in_steps_tells_each_once(
    room_of: RoomOf, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "PASS_STEP", 7)
    room = room_of(capacity=3)
    await room.sit("s1", "s2", "s3")
    await waiting(room, MANY, auto_confirm=True)
    await room.store.announce(POOL)
    await ear.heard()
    for user in ("u0", "u1", "u2"):
        await room.store.leave(POOL, user)
    told = await room.store.announce(POOL)
    moved = [said for said in await ear.heard() if said["status"] == "waiting"]
    assert len(moved) == told == MANY - 3
    assert {said["user_id"]: said["position"] for said in moved} == {
        f"u{i}": i - 2 for i in range(3, MANY)
    }
    assert await room.store.announce(POOL) == 0


async def test_drafts_and_sessions_in_steps_are_warned_once_each(
    room_of: RoomOf, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "PASS_STEP", 7)
    room = room_of(capacity=50, session_ms=60_000)
    await room.sit(*(f"s{i}" for i in range(25)))
    await waiting(room, 25)
    room.clock.advance_ms(5_000)
    await ear.heard()
    assert await room.store.announce(POOL) == 25 + 25
    heard = [(said["user_id"], said["status"]) for said in await ear.heard()]
    assert sorted(heard) == sorted(
        [(f"u{i}", "slot_available") for i in range(25)]
        + [(f"s{i}", "expiring_soon") for i in range(25)]
    )


async def test_a_pass_too_soon_after_another_does_not_begin(room: Room) -> None:
    await room.sit("s1", "s2")
    for user in "abc":
        await room.join(user, will_return=True)
    assert await room.store.announce(POOL, pace_ms=800) == 0
    await room.store.leave(POOL, "a")
    room.clock.advance_ms(799)
    assert await room.store.announce(POOL, pace_ms=800) == 0
    room.clock.advance_ms(1)
    assert await room.store.announce(POOL, pace_ms=800) == 2


def test_places_are_read_by_the_index_of_the_question() -> None:
    places = Places(5, 9, 2, [3, 0], [-1, -1], [-1, -1])
    ticket = Ticket(1, "t", "u", POOL, Status.WAITING, 4, 0, 1, position=8, wait_ms=7.0)
    now = places.of(ticket, 0)
    assert now == Ticket(5, "t", "u", POOL, Status.WAITING, 9, 0, 1, position=3)
    assert places.of(ticket, 1) is None
