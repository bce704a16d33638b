"""What the plain model found the engine to do otherwise, each as plain steps."""

import pytest

from admission.domain import Priority, Status
from admission.outcomes import Passed
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Ear


@pytest.mark.parametrize(("batch_ms", "passed"), [(-60_000, True), (0, False)])
async def test_a_class_behind_the_others_may_be_passed_by_them(
    room_of: RoomOf, batch_ms: int, passed: bool
) -> None:
    room = room_of(capacity=0, priorities={"batch": Priority(batch_ms)})
    assert (await room.join("a", priority="batch")).may_be_passed is passed
    room.clock.advance_ms(60_000)
    assert not (await room.see("a")).may_be_passed


@pytest.mark.parametrize(("weight", "passed"), [(0.5, True), (1, False)])
async def test_a_lighter_request_may_be_passed_by_any_other(
    room_of: RoomOf, weight: float, passed: bool
) -> None:
    room = room_of(kind="request", capacity=0, priorities={"batch": Priority(weight=weight)})
    ticket = await room.join("a", request="r", priority="batch")
    assert ticket.may_be_passed is passed


async def test_a_turn_ends_at_the_first_of_its_deadlines(room_of: RoomOf) -> None:
    room = room_of(capacity=0, queue_timeout_ms=700_000)
    await room.join("a", auto_confirm=True)
    room.clock.advance_ms(60_000)
    await room.tick()  # skipped, to be abandoned 660 s after the join
    for after_ms, reason in ((600_000, "abandoned"), (40_000, "abandoned")):
        room.clock.advance_ms(after_ms)
        assert await room.standing("a") == reason
    await room.tick()
    assert await room.standing("a") == "abandoned"
    assert (await room.metrics()).abandoned_total == 1


async def test_a_request_that_outlived_lease_and_cap_ended_at_the_cap(room_of: RoomOf) -> None:
    room = room_of(kind="request", capacity=1, session_ms=60_000)
    await room.join("a", request="r", auto_confirm=True)
    for _ in range(2):
        room.clock.advance_ms(25_000)
        await room.use("a")
    room.clock.advance_ms(100_000)
    assert await room.standing("a") == "session_timeout"
    await room.tick()
    assert await room.standing("a") == "session_timeout"


async def test_a_finishing_slot_lasts_only_as_long_as_the_answers_that_are_left(
    room_of: RoomOf,
) -> None:
    room = room_of(capacity=1)
    [ticket] = await room.sit("a")
    assert isinstance(await room.use("a", "r", message="m"), Passed)
    await room.store.leave(POOL, "a")
    room.clock.advance_ms(20_000)
    assert isinstance(await room.use("a", "again", message="m"), Passed)
    room.clock.advance_ms(5_000)
    assert isinstance(await room.use("a", "again", message=""), Passed)
    await room.store.done(POOL, ticket=ticket.ticket_id, request="again")
    room.clock.advance_ms(25_000)  # the message's lease, which "again" has outlived by 5 s
    assert (await room.metrics()).finishing == 0


async def test_closing_a_request_pool_tells_everybody(room_of: RoomOf, ear: Ear) -> None:
    room = room_of(kind="request", capacity=1)
    for request in ("r1", "r2", "r3"):
        await room.join("a", request=request, will_return=True)
    await ear.heard()
    await room.store.close_pool(POOL)
    ends = [m for m in await ear.of("a") if m["status"] == Status.DISCONNECTED]
    assert [m["reason"] for m in ends] == ["pool_closed"] * 3


async def test_nobody_owes_once_the_last_who_waited_has_left(room_of: RoomOf) -> None:
    room = room_of(kind="request", capacity=1)
    await room.join("a", request="r", auto_confirm=True)
    await room.join("b", request="r", auto_confirm=True)
    await room.store.pause(POOL, True)
    await room.store.leave(POOL, "a")
    await room.store.leave(POOL, "b")
    await room.store.set_capacity(POOL, 0)
    await room.store.pause(POOL, False)
    assert (await room.join("a", request="r2")).position == 1
    assert (await room.join("b", request="r2")).position == 2


@pytest.mark.parametrize("confirms", [True, False])
async def test_shorter_drafts_do_not_make_those_that_are_open_take_less_than_no_time(
    room_of: RoomOf, confirms: bool
) -> None:
    room = room_of(capacity=1)
    await room.join("a", will_return=True)
    await room.join("b", will_return=True)
    await room.configure(draft_ms=10_000)
    if confirms:
        await room.store.confirm(POOL, "a")
    else:
        await room.store.leave(POOL, "a")
    wait_ms = (await room.metrics()).wait_ms
    assert wait_ms is not None
    assert wait_ms > 0
