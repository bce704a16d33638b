"""Priority is a head start in time: it passes some, starves nobody, and is shown."""

import pytest

from admission.domain import Priority
from admission.outcomes import Refused
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Room

CLASSES = {"vip": Priority(3000), "batch": Priority(-60_000)}


@pytest.fixture
def full(room_of: RoomOf) -> Room:
    return room_of(capacity=0, priorities=CLASSES)


async def order(room: Room) -> list[str]:
    return [item.user_id for item in await room.store.waiting(POOL, offset=0, limit=100)]


async def test_a_head_start_passes_those_who_came_less_than_it_before(full: Room) -> None:
    await full.join("early")
    full.clock.advance_ms(3000)
    await full.join("late")
    assert (await full.join("vip", priority="vip")).position == 2
    assert await order(full) == ["early", "vip", "late"]


@pytest.mark.parametrize("after_ms", [59_999, 60_001])
async def test_nobody_starves_behind_newcomers(full: Room, after_ms: int) -> None:
    await full.join("batch", priority="batch")
    full.clock.advance_ms(after_ms)
    await full.join("newcomer")
    expected = ["newcomer", "batch"] if after_ms < 60_000 else ["batch", "newcomer"]
    assert await order(full) == expected


async def test_a_ticket_says_its_class_and_for_how_long_it_may_be_passed(full: Room) -> None:
    plain = await full.join("plain")
    vip = await full.join("vip", priority="vip")
    assert [(t.priority, t.may_be_passed) for t in (plain, vip)] == [
        ("default", True),
        ("vip", False),
    ]
    full.clock.advance_ms(2999)
    assert (await full.see("plain")).may_be_passed
    full.clock.advance_ms(1)
    assert not (await full.see("plain")).may_be_passed


async def test_a_class_is_kept_when_joining_again(full: Room) -> None:
    await full.join("a", priority="vip")
    assert (await full.join("a")).priority == "vip"


async def test_a_class_that_the_pool_lacks_is_refused(full: Room) -> None:
    before = await full.dump()
    refused = await full.store.join(POOL, "a", ticket="t", priority="king")
    assert refused == Refused("unknown_class")
    assert await full.dump() == before


async def test_a_requeued_ticket_keeps_its_class(room_of: RoomOf) -> None:
    room = room_of(capacity=1, requeue=True, priorities=CLASSES)
    await room.join("a", priority="vip")
    await room.store.confirm(POOL, "a")
    await room.join("b")
    room.clock.advance_ms(1_200_000)
    await room.tick()
    assert (await room.see("a")).priority == "vip"


async def test_who_waits_keeps_the_place_when_their_class_is_taken_from_the_pool(
    full: Room,
) -> None:
    first = await full.join("vip", priority="vip")
    await full.configure(priorities={})
    again = await full.join("vip", priority="vip")
    assert (again.ticket_id, again.priority) == (first.ticket_id, "vip")
    assert await full.store.join(POOL, "b", ticket="b", priority="vip") == Refused("unknown_class")


async def test_a_refused_class_still_passes_on_what_ended(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    for user in ("a", "b"):
        await room.join(user)
    room.clock.advance_ms(300_000)
    refused = await room.store.join(POOL, "c", ticket="t", priority="king")
    assert refused == Refused("unknown_class")
    assert await room.standings("a", "b") == ["draft_timeout", "draft"]
