"""Calls by somebody whom the pool does not know, or knows no more, still move what is due."""

import pytest

from admission.domain import Status, Ticket
from admission.outcomes import Left, NotConfirmed, Unknown
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Room, name_of


@pytest.mark.parametrize("call", ["leave", "heartbeat", "confirm", "cancel"])
async def test_a_call_by_nobody_passes_on_the_slot_that_it_ended(
    room_of: RoomOf, call: str
) -> None:
    room = room_of(capacity=1)
    await room.sit("a")
    await room.join("b")
    room.clock.advance_ms(1_200_000)
    assert await getattr(room.store, call)(POOL, "nobody") == Unknown()
    assert await room.standings("a", "b") == ["session_timeout", "draft"]


async def test_a_stale_confirm_passes_on_the_slot_that_it_ended(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    await room.sit("a")
    await room.join("b")
    room.clock.advance_ms(1_200_000)
    outcome = await room.store.confirm(POOL, "b", ticket="another")
    assert isinstance(outcome, NotConfirmed)
    assert (outcome.reason, await room.standing("b")) == ("stale", "draft")


async def test_nobody_owes_turns_to_a_pool_whose_last_request_left_unserved(
    room_of: RoomOf,
) -> None:
    room = room_of(kind="request", capacity=1)
    await room.join("a", request="r", auto_confirm=True)
    await room.store.set_capacity(POOL, 0)
    await room.join("b", request="r", auto_confirm=True)
    for user in "ab":
        await room.store.leave(POOL, user)
    assert "shares" not in {name_of(key) for key in await room.redis.keys("*")}


@pytest.fixture
async def older(room_of: RoomOf) -> tuple[Room, list[Ticket]]:
    """A request pool in which user a runs one request and waits with two, older than one that is
    forgotten."""
    room = room_of(kind="request", capacity=1)
    kept = [await room.join("a", request=f"r{i}", auto_confirm=True) for i in range(3)]
    newest = await room.join("a", request="newest", auto_confirm=True)
    await room.store.leave(POOL, "a", ticket=newest.ticket_id)
    for _ in range(12):
        room.clock.advance_ms(25_000)
        for ticket in kept:
            await room.store.heartbeat(POOL, "a", ticket=ticket.ticket_id)
    assert await room.store.status(POOL, "a", ticket=newest.ticket_id) == Unknown()
    return room, kept


@pytest.mark.parametrize("call", ["leave", "cancel"])
async def test_requests_older_than_a_forgotten_one_are_ended_too(
    older: tuple[Room, list[Ticket]], call: str
) -> None:
    room, kept = older
    outcome = await getattr(room.store, call)(POOL, "a")
    assert isinstance(outcome, Left)
    for ticket in kept:
        seen = await room.store.status(POOL, "a", ticket=ticket.ticket_id)
        assert isinstance(seen, Ticket)
        assert seen.status is Status.DISCONNECTED


async def test_who_still_has_requests_is_known(older: tuple[Room, list[Ticket]]) -> None:
    room, kept = older
    assert (await room.see("a")).ticket_id in {ticket.ticket_id for ticket in kept}
    room.clock.advance_ms(1)
    await room.store.leave(POOL, "a", ticket=kept[0].ticket_id)
    room.clock.advance_ms(300_000)
    await room.store.heartbeat(POOL, "a", ticket=kept[1].ticket_id)
    assert (await room.see("a")).status is not Status.DISCONNECTED
