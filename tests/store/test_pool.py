"""The pool's own rules: limits, pause, requeue, and settings an admin stored."""

import pytest

from admission.domain import Status
from admission.outcomes import Confirmed, Joined, NoSession, Refused, Unknown
from admission.store.redis_store import RedisStore
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Room


async def test_refused_calls_leave_nothing_behind(room_of: RoomOf) -> None:
    room = room_of(capacity=1, queue_limit=1)
    await room.sit("s")
    await room.join("a")
    before = await room.dump()
    assert await room.store.join(POOL, "b", ticket="b1") == Refused("full")
    assert await room.store.confirm(POOL, "b") == Unknown()
    assert await room.store.heartbeat(POOL, "b") == Unknown()
    assert await room.use("b") == NoSession(None)
    await room.store.confirm(POOL, "a")
    await room.store.done(POOL, ticket="nobody", request="r")
    assert await room.dump() == before


async def test_the_queue_limit_counts_who_waits_and_never_who_gets_a_slot(room_of: RoomOf) -> None:
    room = room_of(capacity=1, queue_limit=0)
    assert (await room.join("a")).status == Status.DRAFT
    assert await room.store.join(POOL, "b", ticket="b1") == Refused("full")
    assert (await room.join("a")).status == Status.DRAFT


async def test_a_paused_pool_takes_nobody_new_and_grants_nothing(full: Room) -> None:
    await full.join("a")
    await full.configure(paused=True)
    assert await full.store.join(POOL, "b", ticket="b1") == Refused("paused")
    assert (await full.join("a")).position == 1
    await full.store.leave(POOL, "s1")
    assert await full.standings("s2", "a") == ["active", "waiting"]
    await full.configure(paused=None)
    assert await full.standing("a") == "draft"


async def test_requeue_puts_a_timed_out_user_back_at_the_end(room_of: RoomOf) -> None:
    room = room_of(capacity=1, requeue=True)
    [first] = await room.sit("a")
    await room.join("b", will_return=True)
    room.clock.advance_ms(1_200_000)
    await room.tick()
    again = await room.see("a")
    assert (again.status, again.position) == (Status.WAITING, 1)
    assert again.ticket_id != first.ticket_id
    assert await room.standing("b") == "draft"
    room.clock.advance_ms(300_000)  # b never confirms; requeued tickets need no presence
    await room.tick()
    assert await room.standing("a") == "draft"
    room.clock.advance_ms(300_000)
    await room.tick()
    assert await room.standing("a") == "draft_timeout"  # and is not put back once more


async def test_the_id_of_a_ticket_requeued_often_does_not_grow(room_of: RoomOf) -> None:
    room = room_of(requeue=True)
    [first] = await room.sit("a")
    for round_ in range(2, 12):
        room.clock.advance_ms(1_200_000)
        await room.tick()
        assert (await room.see("a")).ticket_id == f"{first.ticket_id}-{round_}"
        assert isinstance(await room.store.confirm(POOL, "a"), Confirmed)


async def test_requeue_is_for_timeouts_only(room_of: RoomOf) -> None:
    room = room_of(requeue=True)
    await room.sit("a", "b")
    await room.store.leave(POOL, "a")
    await room.store.cancel(POOL, "b")
    assert await room.standings("a", "b") == ["left", "removed"]


async def test_a_process_without_settings_takes_those_of_the_service(room: Room) -> None:
    ticks = RedisStore(room.redis, room.clock, None)
    assert await ticks.expire(POOL) is None  # before any service: no slots, no failure
    await room.store.load()
    for user in "abcde":
        await room.join(user, will_return=True)
    room.clock.advance_ms(300_000)  # both drafts are over
    await ticks.expire(POOL)
    assert (await room.metrics()).draft == 2
    assert (await ticks.metrics(POOL)).settings == (await room.metrics()).settings


async def test_pools_do_not_touch_each_other(room: Room) -> None:
    await room.sit("a", "b")
    joined = await room.store.join("other", "a", ticket="x")
    assert isinstance(joined, Joined)
    assert (joined.ticket.pool, joined.ticket.status) == ("other", Status.DRAFT)
    await room.store.leave("other", "a")
    assert await room.standing("a") == "active"


async def test_metrics_keep_the_newest_200_waits_of_who_got_a_slot(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    assert (await room.metrics()).waits_ms == []
    await room.join("a", auto_confirm=True)
    await room.join("b", auto_confirm=True)
    await room.join("gone", auto_confirm=True)
    room.clock.advance_ms(5_000)
    await room.store.leave(POOL, "gone")  # waited, and got none
    await room.store.leave(POOL, "a")
    assert (await room.metrics()).waits_ms == [5_000, 0]
    await room.store.leave(POOL, "b")
    for number in range(199):
        await room.join(f"u{number}", auto_confirm=True)
        await room.store.leave(POOL, f"u{number}")
    assert (await room.metrics()).waits_ms == [0] * 199 + [5_000]


async def test_settings_win_over_defaults_until_given_back(room: Room) -> None:
    await room.configure(capacity=7, paused=True)
    seen = await room.metrics()
    assert (seen.capacity, seen.paused, seen.free) == (7, True, 0)
    await room.configure(capacity=None)
    seen = await room.metrics()
    assert (seen.capacity, seen.paused) == (2, True)
    assert await room.store.pools() == [POOL]


@pytest.mark.parametrize("begins", ["set_capacity", "pause"])
async def test_a_pool_may_begin_with_one_setting(room: Room, begins: str) -> None:
    """The ticks' process takes all others from the service, whichever call came first."""
    await (
        room.store.set_capacity("new", 1)
        if begins == "set_capacity"
        else room.store.pause("new", False)
    )
    for user in ("a", "b", "c"):
        await room.store.join("new", user, ticket=user, will_return=True)
    room.clock.advance_ms(300_000)
    ticks = RedisStore(room.redis, room.clock, None)
    assert await ticks.expire("new") == 300_000
    assert (await ticks.metrics("new")).settings == (await room.store.metrics("new")).settings


async def test_a_kind_given_back_that_stays_the_same_is_no_change(full: Room) -> None:
    assert await full.store.configure(POOL, {"kind": None, "capacity": 5}) is None
    assert (await full.metrics()).capacity == 5
