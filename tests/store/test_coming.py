"""Machines that are being started: who waits is told of them, whether there are slots or not."""

import random
from itertools import pairwise
from typing import Any

import pytest

from admission.domain import Coming, Ticket
from admission.store.names import pool_key
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Ear, Room, report

SESSION_MS = 1_200_000
BIN_MS = SESSION_MS // 60
AUTO = {
    "capacity": "auto",
    "needs_worker": True,
    "sessions_per_slot": 1,
    "idle_ms": 10 * SESSION_MS,
}
UNSURE = 1.1  # deviations above the mean, before any promise was judged


def machine(in_s: float, slots: int = 1, spread_s: float = 0, name: str = "new") -> Coming:
    return Coming(name, slots, round(in_s * 1000), round(spread_s * 1000))


async def worker(room: Room, name: str = "old", slots: int = 1, *, ready: bool = True) -> None:
    """A worker reports."""
    said = report(ready=ready, slots=slots)
    await room.store.report_worker(POOL, name, said, token_hash="", identity={"url": "http://w"})


async def queue(room: Room, number: int) -> list[Ticket]:
    return [await room.join(f"w{n}", will_return=True) for n in range(number)]


async def told(room: Room, user: str = "w0") -> tuple[float | None, float | None]:
    """The value and the high value."""
    seen = await room.see(user)
    return seen.wait_ms, seen.wait_high_ms


async def full_room(room_of: RoomOf, slots: int = 1, **policy: Any) -> Room:
    """One worker, whose slots are all taken."""
    room = room_of(**{**AUTO, **policy})
    await worker(room, slots=slots)
    await room.sit(*(f"s{number}" for number in range(slots)))
    return room


async def test_who_waits_behind_a_full_worker_is_told_of_the_next_one(room_of: RoomOf) -> None:
    room = await full_room(room_of)
    await queue(room, 2)
    assert await told(room) == (SESSION_MS, SESSION_MS)
    await room.store.expect_slots(POOL, [machine(60, spread_s=10)])
    assert await told(room) == (60_000, 60_000 + UNSURE * 10_000)
    assert await told(room, "w1") == (SESSION_MS, SESSION_MS)  # the slot of now
    room.clock.advance_ms(20_000)
    assert await told(room) == (40_000, 40_000 + UNSURE * 10_000)


async def test_in_a_pool_without_slots_the_first_that_come_are_told_of(room_of: RoomOf) -> None:
    room = room_of(**AUTO)
    await queue(room, 3)
    assert await told(room) == (None, None)
    await room.store.expect_slots(POOL, [machine(90, slots=2)])
    room.clock.advance_ms(29_000)
    assert await told(room, "w0") == await told(room, "w1") == (61_000, 61_000)
    last = await told(room, "w2")  # after one of them
    assert last == pytest.approx((61_000 + SESSION_MS,) * 2, abs=2 * BIN_MS)
    assert (await room.metrics()).wait_ms is not None


async def test_what_is_said_is_believed_for_half_a_minute(room_of: RoomOf) -> None:
    room = room_of(**AUTO)
    await queue(room, 1)
    await room.store.expect_slots(POOL, [machine(10)])
    room.clock.advance_ms(30_000)
    assert await told(room) == (1_000, 1_000)
    room.clock.advance_ms(1)
    assert await told(room) == (None, None)


@pytest.mark.parametrize("slots", [0, 1])
async def test_a_machine_that_is_named_no_more_comes_no_more(room_of: RoomOf, slots: int) -> None:
    room = await full_room(room_of, slots) if slots else room_of(**AUTO)
    await queue(room, 1)
    before = await told(room)
    await room.store.expect_slots(POOL, [machine(60), machine(60, name="other")])
    await room.store.expect_slots(POOL, [machine(90, name="other")])
    assert await told(room) == (90_000, 90_000)
    await room.store.expect_slots(POOL, [])
    assert await told(room) == before
    assert not await room.redis.hexists(pool_key(POOL, "pool"), "machines")


async def test_no_machine_is_as_if_nothing_was_said(room_of: RoomOf) -> None:
    room = await full_room(room_of, 3)
    await queue(room, 5)
    before = await room.dump()
    await room.store.expect_slots(POOL, [])
    assert await room.dump() == before


async def test_a_worker_that_is_ready_is_not_counted_twice(room_of: RoomOf) -> None:
    room = await full_room(room_of)
    await queue(room, 3)
    await room.store.expect_slots(POOL, [machine(60)])
    await worker(room, "new", ready=False)
    assert await told(room) == (60_000, 60_000)  # it registered, and loads its model
    await worker(room, "new")  # before the scheduler sees it
    assert await room.standing("w0") == "draft"
    assert (await told(room, "w1"))[0] == SESSION_MS
    assert (await told(room, "w2"))[0] == SESSION_MS


async def test_more_slots_than_the_pool_may_have_do_not_come(room_of: RoomOf) -> None:
    room = await full_room(room_of, max_active=2)
    await queue(room, 2)
    later = machine(90, name="later")
    await room.store.expect_slots(POOL, [later, machine(60, slots=4)])
    assert await told(room, "w0") == (60_000, 60_000)
    assert await told(room, "w1") == (SESSION_MS, SESSION_MS)


@pytest.mark.parametrize("policy", [{"paused": True}, {"capacity": 1}])
async def test_where_workers_change_nothing_they_are_not_told_of(
    room_of: RoomOf, policy: dict[str, Any]
) -> None:
    room = await full_room(room_of)
    await queue(room, 1)
    await room.configure(**policy)
    before = await told(room)
    await room.store.expect_slots(POOL, [machine(60)])
    assert await told(room) == before


async def test_slots_of_which_there_are_too_many_are_made_up_for_first(room_of: RoomOf) -> None:
    room = await full_room(room_of, 2)
    room.clock.advance_ms(100_000)
    await worker(room, slots=1)  # it gives one less: the first release is not for who waits
    await queue(room, 3)
    left_ms = SESSION_MS - 100_000
    await room.store.expect_slots(POOL, [machine(60, slots=2)])
    assert await told(room, "w0") == (60_000, 60_000)  # one of the two makes up
    for user in ("w1", "w2"):
        assert await told(room, user) == pytest.approx((left_ms, left_ms), abs=BIN_MS)


async def test_the_autoscaler_is_told_the_wait_without_what_it_ordered(room_of: RoomOf) -> None:
    room = await full_room(room_of)
    await room.store.expect_slots(POOL, [machine(60)])
    metrics = await room.metrics()
    assert (metrics.wait_ms, metrics.wait_alone_ms) == (60_000, SESSION_MS)
    await room.store.expect_slots(POOL, [])
    metrics = await room.metrics()
    assert metrics.wait_alone_ms == metrics.wait_ms == SESSION_MS


async def test_a_pool_that_was_closed_is_not_made_again(room_of: RoomOf) -> None:
    room = room_of(**AUTO)
    await room.join("a")
    await room.store.close_pool(POOL)
    await room.store.expect_slots(POOL, [machine(60)])
    assert await room.redis.keys(pool_key(POOL, "*")) == []


async def test_when_a_machine_fails_who_waits_longer_is_told_why(room_of: RoomOf, ear: Ear) -> None:
    room = await full_room(room_of)
    await room.store.expect_slots(POOL, [machine(60)])
    await room.join("a", will_return=True)

    async def news() -> list[tuple[int | None, str | None]]:
        room.clock.advance_ms(1_000)
        await room.store.announce(POOL)
        heard = await ear.of("a")
        return [(said["estimated_wait"], said.get("because")) for said in heard]

    assert [wait for wait, _ in await news()] == [60]
    await room.store.expect_slots(POOL, [machine(58)])
    assert await news() == []  # said again
    await room.store.expect_slots(POOL, [])
    assert await news() == [(SESSION_MS // 1000 - 3, "capacity")]


async def test_a_machine_that_becomes_ready_is_no_other_capacity(room_of: RoomOf) -> None:
    room = await full_room(room_of)
    await queue(room, 2)
    await room.store.expect_slots(POOL, [machine(60)])
    ids = [(await room.see(f"w{n}")).ticket_id for n in range(2)]
    assert (await room.store.positions(POOL, ids)).slots == 2
    await worker(room, "new")
    assert (await room.store.positions(POOL, ids)).slots == 2


@pytest.mark.parametrize("seed", range(30))
async def test_a_machine_makes_no_wait_longer_and_passes_nobody(room_of: RoomOf, seed: int) -> None:
    chance = random.Random(seed)
    room = room_of(**AUTO)
    slots = chance.choice([1, 3, 8])
    await worker(room, slots=slots)
    for number in range(chance.choice([0, 2, 15])):  # what is learnt: lives, and who gives up
        await room.sit("past")
        if chance.random() < 0.3:
            await room.join(f"gone{number}")
            await room.store.leave(POOL, f"gone{number}")
        room.clock.advance_ms(chance.choice([1, 2_000, 20_000, 200_000]))
        await worker(room, slots=slots)
        await room.store.leave(POOL, "past")
    for number in range(slots):
        await room.join(f"s{number}", will_return=True)
        if chance.random() < 0.7:
            await room.store.confirm(POOL, f"s{number}")
        room.clock.advance_ms(chance.randrange(2_000))
    await worker(room, slots=max(1, slots - chance.choice([0, 0, 1, 3])))
    tickets = [ticket.ticket_id for ticket in await queue(room, 30)]
    without = await room.store.positions(POOL, tickets)
    machines = [
        machine(
            chance.choice([0.5, 30, 300, 5_000]),
            chance.randrange(1, 9),
            chance.choice([0, 10, 400]),
            name=f"m{number}",
        )
        for number in range(chance.randrange(1, 4))
    ]
    await room.store.expect_slots(POOL, machines)
    seen = await room.store.positions(POOL, tickets)
    assert seen.positions == without.positions == list(range(1, 31))
    for waits, before in ((seen.waits_ms, without.waits_ms), (seen.highs_ms, without.highs_ms)):
        assert all(wait <= than for wait, than in zip(waits, before, strict=True))
        assert all(a <= b for a, b in pairwise(waits))
        assert min(waits) > 0
    assert all(value <= high for value, high in zip(seen.waits_ms, seen.highs_ms, strict=True))
    alone = (await room.metrics()).wait_alone_ms
    await room.store.expect_slots(POOL, [])
    assert alone == pytest.approx((await room.metrics()).wait_ms)


async def test_requests_far_beyond_what_is_looked_ahead_meet_the_machine_too(
    room_of: RoomOf,
) -> None:
    """Ten seconds each, one at a time: bins are looked through for half a minute."""
    room = room_of(kind="request", **AUTO)
    await worker(room)
    for number in range(40):
        ticket = await room.join(f"past{number}", request="r", auto_confirm=True)
        room.clock.advance_ms(9_500 + number % 2 * 1_000)
        await worker(room)
        await room.store.leave(POOL, f"past{number}", ticket=ticket.ticket_id)
    for number in range(61):
        last = await room.join(f"u{number}", request="r", auto_confirm=True)
    assert last.wait_ms == pytest.approx(600_000, rel=0.1)
    await room.store.expect_slots(POOL, [machine(300, spread_s=30)])
    seen = await room.store.status(POOL, "u60", ticket=last.ticket_id)
    assert isinstance(seen, Ticket)
    assert seen.wait_ms is not None
    assert seen.wait_ms == pytest.approx(450_000, rel=0.1)  # the second half by two
    assert seen.wait_ms < (seen.wait_high_ms or 0) < 700_000
    thirtieth = await room.store.status(POOL, "u20", ticket="")
    assert isinstance(thirtieth, Ticket)
    assert thirtieth.wait_ms == pytest.approx(200_000, rel=0.1)
