"""One user's ticket: joined once, in order of arrival, confirmed once, left for good."""

from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from admission.domain import Status
from admission.outcomes import (
    Alive,
    Confirmed,
    Ended,
    Joined,
    Left,
    NotConfirmed,
    Passed,
    Unknown,
)
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Ear, Room, new_id

ODD_USERS = ["null", "a:b", "x|y", "-1", "1e5", "soon:x", "+", "a.b-c_d@e", "u" * 128]


@pytest.mark.parametrize("user", ODD_USERS)
async def test_any_allowed_user_id_lives_a_whole_life(room: Room, user: str) -> None:
    assert (await room.join(user, client=user)).user_id == user
    assert isinstance(await room.store.confirm(POOL, user), Confirmed)
    assert isinstance(await room.use(user, request=user, message=user), Passed)
    assert isinstance(await room.store.heartbeat(POOL, user, client=user), Alive)
    assert await room.store.leave(POOL, user) == Left(Status.ACTIVE, Status.DISCONNECTED)
    assert await room.standing(user) == "left"


async def test_joining_again_is_the_same_ticket_and_place(full: Room) -> None:
    first = await full.join("a")
    await full.join("b")
    again = await full.store.join(POOL, "a", ticket=new_id("a"))
    assert isinstance(again, Joined)
    assert not again.new
    assert again.ticket == replace(first, queue_length=2)


async def test_joining_again_while_active_is_the_same_session(full: Room) -> None:
    before = await full.see("s1")
    full.clock.advance_ms(1000)
    again = await full.join("s1", auto_confirm=True)
    assert (again.ticket_id, again.expires_ms) == (before.ticket_id, before.expires_ms)


async def test_a_ticket_that_ended_is_followed_by_a_new_one(room: Room) -> None:
    first = await room.join("a")
    await room.store.leave(POOL, "a")
    assert (await room.join("a")).ticket_id != first.ticket_id


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        ({"auto_confirm": True}, {}, Status.DRAFT),
        ({}, {"auto_confirm": True}, Status.ACTIVE),
        ({"auto_confirm": True}, {"auto_confirm": True, "will_return": True}, Status.DRAFT),
        ({"will_return": True}, {"auto_confirm": True}, Status.ACTIVE),
    ],
)
async def test_flags_are_replaced_by_the_latest_join(
    full: Room, before: dict[str, Any], after: dict[str, Any], status: Status
) -> None:
    await full.join("a", **before)
    await full.join("a", **after)
    await full.store.leave(POOL, "s1")
    assert (await full.see("a")).status == status


async def test_will_return_drops_presence(full: Room) -> None:
    await full.join("a", auto_confirm=True)
    await full.join("a", will_return=True)
    await full.store.heartbeat(POOL, "a")  # and none is begun again
    full.clock.advance_ms(60_000)
    await full.tick()
    assert (await full.metrics()).waiting == 1


@pytest.mark.parametrize("flags", [{}, {"auto_confirm": True}, {"will_return": True}])
async def test_a_skipped_ticket_is_restored_by_joining_again(
    full: Room, flags: dict[str, bool]
) -> None:
    ticket = await full.join("a", auto_confirm=True)
    full.clock.advance_ms(60_000)
    await full.join("b")
    assert (await full.metrics()).waiting == 1
    again = await full.join("a", **flags)
    assert (again.ticket_id, again.position, again.queue_length) == (ticket.ticket_id, 1, 2)


async def test_arrival_order_holds_inside_one_millisecond(full: Room) -> None:
    users = [f"u{number}" for number in range(30, 0, -1)]
    joined = [await full.join(user) for user in users]
    assert [ticket.position for ticket in joined] == list(range(1, 31))
    queued = await full.store.waiting(POOL, offset=0, limit=100)
    assert [item.user_id for item in queued] == users
    assert [item.position for item in queued] == list(range(1, 31))


async def test_more_than_4096_arrivals_in_a_millisecond_stay_in_order(full: Room) -> None:
    await full.join("first")
    await full.redis.hset("vestibule:{default}:pool", "seq", 4094)
    await full.join("second")
    await full.join("third")
    full.clock.advance_ms(1)
    await full.join("fourth")
    queued = await full.store.waiting(POOL, offset=0, limit=10)
    assert [item.user_id for item in queued] == ["first", "second", "third", "fourth"]


async def test_the_list_is_paged(full: Room) -> None:
    for number in range(5):
        await full.join(f"u{number}")
    page = await full.store.waiting(POOL, offset=3, limit=2)
    assert [(item.user_id, item.position) for item in page] == [("u3", 4), ("u4", 5)]
    assert await full.store.waiting(POOL, offset=5, limit=2) == []
    assert await full.store.waiting(POOL, offset=0, limit=0) == []


async def test_a_page_of_the_list_has_a_thousand_at_most(room_of: RoomOf) -> None:
    room = room_of(capacity=0)
    for number in range(1001):
        await room.join(f"u{number}")
    page = await room.store.waiting(POOL, offset=0, limit=1_000_000)
    assert (len(page), page[-1].user_id) == (1000, "u999")
    [last] = await room.store.waiting(POOL, offset=1000, limit=1000)
    assert (last.user_id, last.position) == ("u1000", 1001)


async def test_confirm_turns_a_draft_into_one_session(room: Room) -> None:
    draft = await room.join("a")
    first = await room.store.confirm(POOL, "a", ticket=draft.ticket_id)
    room.clock.advance_ms(500)
    second = await room.store.confirm(POOL, "a", ticket=draft.ticket_id)
    assert isinstance(first, Confirmed)
    assert isinstance(second, Confirmed)
    assert first.ticket.expires_ms == second.ticket.expires_ms == draft.now_ms + 1_200_000
    assert (await room.metrics()).admitted_total == 1


async def test_confirm_says_why_not(full: Room) -> None:
    assert await full.store.confirm(POOL, "nobody") == Unknown()
    waiting = await full.join("a")
    for ticket, reason in [("", "waiting"), (waiting.ticket_id, "waiting"), ("old", "stale")]:
        outcome = await full.store.confirm(POOL, "a", ticket=ticket)
        assert isinstance(outcome, NotConfirmed)
        assert outcome.reason == reason
    await full.store.leave(POOL, "a")
    outcome = await full.store.confirm(POOL, "a", ticket=waiting.ticket_id)
    assert isinstance(outcome, NotConfirmed)
    assert outcome.reason == "ended"


async def test_a_stale_confirm_leaves_the_new_draft_alone(room: Room) -> None:
    old = await room.join("a")
    await room.store.leave(POOL, "a")
    await room.join("a")
    outcome = await room.store.confirm(POOL, "a", ticket=old.ticket_id)
    assert isinstance(outcome, NotConfirmed)
    assert (outcome.reason, outcome.ticket.status) == ("stale", Status.DRAFT)


@pytest.mark.parametrize("user", ["waiting", "draft", "active"])
async def test_leave_without_client_ends_whatever_there_is(room: Room, user: str) -> None:
    await room.sit("active")
    await room.join("draft", client="c")
    await room.join("waiting", client="c")
    assert await room.store.leave(POOL, user) == Left(Status(user), Status.DISCONNECTED)
    assert await room.store.leave(POOL, user) == Left(Status.DISCONNECTED, Status.DISCONNECTED)


async def test_leave_of_nobody_is_unknown(room: Room) -> None:
    await room.join("a")
    assert await room.store.leave(POOL, "b") == Unknown()
    other = await room.join("c")
    assert await room.store.leave(POOL, "a", ticket=other.ticket_id) == Unknown()
    assert await room.standing("c") == "draft"


@pytest.mark.parametrize(
    ("clients", "leaving", "status"),
    [
        (["c1"], ["c1"], "left"),
        (["c1", "c2"], ["c1"], "waiting"),
        (["c1", "c2"], ["c1", "c2"], "left"),
        (["c1", "c2"], ["c1", "c1"], "waiting"),
        (["c1"], ["other"], "waiting"),
        (["", "c1"], ["c1"], "waiting"),
        ([""], ["c1"], "waiting"),
        (["1", "2"], ["1"], "waiting"),
    ],
)
async def test_leave_with_client_ends_only_with_the_last_waiting_chat(
    full: Room, clients: list[str], leaving: list[str], status: str
) -> None:
    for client in clients:
        await full.join("a", client=client)
    for client in leaving:
        await full.store.leave(POOL, "a", client=client)
    assert await full.standing("a") == status


async def test_leave_with_client_never_ends_a_session(room: Room) -> None:
    await room.join("a", client="c")
    await room.store.confirm(POOL, "a")
    left = await room.store.leave(POOL, "a", client="c")
    assert left == Left(Status.ACTIVE, Status.ACTIVE)


async def test_leave_of_an_old_ticket_leaves_the_new_one(room: Room) -> None:
    old = await room.join("a")
    await room.store.leave(POOL, "a")
    await room.join("a")
    left = await room.store.leave(POOL, "a", ticket=old.ticket_id)
    assert left == Left(Status.DISCONNECTED, Status.DISCONNECTED)
    assert await room.standing("a") == "draft"


async def test_cancel_of_an_old_or_anothers_ticket_changes_nothing(room: Room) -> None:
    old = await room.join("a")
    await room.store.leave(POOL, "a")
    await room.join("a")
    other = await room.join("b")
    for named in (old.ticket_id, other.ticket_id, "never"):
        assert await room.store.cancel(POOL, "a", ticket=named) == Unknown()
    assert await room.standings("a", "b") == ["draft", "draft"]
    current = await room.see("a")
    cancelled = await room.store.cancel(POOL, "a", ticket=current.ticket_id)
    assert cancelled == Left(Status.DRAFT, Status.DISCONNECTED)


async def test_leave_beats_the_offer_that_would_have_come(full: Room, ear: Ear) -> None:
    await full.join("a", will_return=True)
    full.clock.advance_ms(1_200_000)  # both sessions end at the moment of the leave
    await ear.heard()
    assert await full.store.leave(POOL, "a") == Left(Status.WAITING, Status.DISCONNECTED)
    assert [said["status"] for said in await ear.of("a")] == ["disconnected"]
    for _ in range(2):
        assert await full.held() == 0
        await full.tick()


async def test_reading_has_no_side_effect(full: Room) -> None:
    for user in ("a", "b"):
        await full.join(user, auto_confirm=True, client="c")
    full.clock.advance_ms(1_300_000)  # all sorts of deadlines are over
    before = await full.dump()
    for user in ("s1", "a", "b", "nobody"):
        await full.store.status(POOL, user)
    await full.metrics()
    await full.store.waiting(POOL, offset=0, limit=10)
    await full.store.workers(POOL)
    assert await full.dump() == before


async def test_heartbeat_answers_the_view_or_that_it_is_over(full: Room) -> None:
    await full.join("a")
    for user in ("s1", "a"):
        assert await full.store.heartbeat(POOL, user) == Alive(await full.see(user))
    await full.store.leave(POOL, "a")
    assert isinstance(await full.store.heartbeat(POOL, "a"), Ended)
    assert await full.store.heartbeat(POOL, "nobody") == Unknown()


async def test_a_ticket_keeps_a_bounded_number_of_chats_and_lives_until_all_left(
    full: Room, redis: Redis
) -> None:
    for chat in range(150):
        await full.join("a", client=f"chat-{chat}")
    facts = str(await redis.hget(f"vestibule:{{{POOL}}}:tickets", (await full.see("a")).ticket_id))
    assert facts.count("chat-") == 100
    for chat in range(150):
        await full.store.leave(POOL, "a", client=f"chat-{chat}")
    assert (await full.see("a")).status == Status.WAITING
    await full.store.leave(POOL, "a")
    assert await full.standing("a") == "left"
