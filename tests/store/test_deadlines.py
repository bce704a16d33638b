"""Every lease ends at its stored deadline, to the millisecond, whether or not a tick comes by."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from admission.domain import Status
from admission.outcomes import NoSession, Unknown
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Room, name_of

SESSION_MS = 1_200_000
DRAFT_MS = 300_000
UNUSED_MS = 60_000
GRACE_MS = 60_000
SKIPPED_MS = 600_000
IDLE_MS = 300_000
QUEUE_MS = 90_000
ANSWER_MS = 30_000
READABLE_MS = 300_000


async def draft(room: Room) -> None:
    await room.join("a")


async def session(room: Room) -> None:
    await room.sit("a")


async def unused(room: Room) -> None:
    await room.join("a", auto_confirm=True)


async def queued(room: Room) -> None:
    await room.configure(queue_timeout_ms=QUEUE_MS)
    await room.sit("s")
    await room.join("a", will_return=True)


async def skipped(room: Room) -> None:
    await room.sit("s")
    await room.join("a", auto_confirm=True)
    room.clock.advance_ms(GRACE_MS)
    await room.tick()


async def finishing(room: Room) -> None:
    """The session is over, its last answer was renewed just now."""
    await room.sit("a")
    await room.use("a")
    await room.store.leave(POOL, "a")


async def timed_out(room: Room) -> None:
    """Like finishing, by the hard cap and ended by nobody's script."""
    await room.sit("a")
    room.clock.advance_ms(SESSION_MS)


@dataclass(frozen=True)
class Lease:
    """A right that ends ``length_ms`` after ``begin``; then the ticket stands at ``reason``."""

    begin: Callable[[Room], Awaitable[None]]
    length_ms: int
    before: str
    reason: str


LEASES = [
    Lease(draft, DRAFT_MS, "draft", "draft_timeout"),
    Lease(session, SESSION_MS, "active", "session_timeout"),
    Lease(unused, UNUSED_MS, "active", "idle"),
    Lease(queued, QUEUE_MS, "waiting", "queue_timeout"),
    Lease(skipped, SKIPPED_MS, "waiting", "abandoned"),
    Lease(finishing, READABLE_MS, "left", "unknown"),
    Lease(timed_out, READABLE_MS, "session_timeout", "unknown"),
]
SLOTS = [
    Lease(draft, DRAFT_MS, "", ""),
    Lease(session, SESSION_MS, "", ""),
    Lease(unused, UNUSED_MS, "", ""),
    Lease(finishing, ANSWER_MS, "", ""),
]

every_lease = pytest.mark.parametrize("lease", LEASES, ids=lambda lease: lease.begin.__name__)
every_slot = pytest.mark.parametrize("lease", SLOTS, ids=lambda lease: lease.begin.__name__)
around = pytest.mark.parametrize("offset_ms", [-1, 0, 1])


@pytest.fixture
def one(room_of: RoomOf) -> Room:
    """A room of one slot."""
    return room_of(capacity=1)


@pytest.mark.parametrize("ticked", [False, True])
@around
@every_lease
async def test_a_ticket_ends_at_its_deadline(
    one: Room, lease: Lease, offset_ms: int, ticked: bool
) -> None:
    await lease.begin(one)
    one.clock.advance_ms(lease.length_ms + offset_ms)
    if ticked:
        await one.tick()
    assert await one.standing("a") == (lease.before if offset_ms < 0 else lease.reason)


@around
@every_slot
async def test_metrics_count_a_slot_until_its_deadline(
    one: Room, lease: Lease, offset_ms: int
) -> None:
    await lease.begin(one)
    one.clock.advance_ms(lease.length_ms + offset_ms)
    taken = int(offset_ms < 0)
    assert (await one.held(), (await one.metrics()).free) == (taken, 1 - taken)


@around
@every_slot
async def test_somebody_else_gets_the_slot_at_its_deadline(
    one: Room, lease: Lease, offset_ms: int
) -> None:
    await lease.begin(one)
    one.clock.advance_ms(lease.length_ms + offset_ms)
    other = await one.join("b", auto_confirm=True)
    assert other.status == (Status.WAITING if offset_ms < 0 else Status.ACTIVE)


@every_slot
async def test_the_tick_is_asked_for_at_the_next_deadline(one: Room, lease: Lease) -> None:
    assert await one.tick() is None
    await lease.begin(one)
    assert await one.tick() == lease.length_ms
    one.clock.advance_ms(lease.length_ms - 1)
    assert await one.tick() == 1


@around
async def test_presence_keeps_a_place_for_one_grace(one: Room, offset_ms: int) -> None:
    await one.sit("s")
    await one.join("a", auto_confirm=True)
    await one.join("b", will_return=True)
    one.clock.advance_ms(GRACE_MS + offset_ms)
    seen = await one.store.heartbeat(POOL, "b")
    assert not isinstance(seen, Unknown)
    assert seen.ticket.position == (2 if offset_ms < 0 else 1)


async def test_a_heartbeat_renews_presence_and_restores_a_skipped_place(room: Room) -> None:
    await room.sit("s1", "s2")
    await room.join("a", auto_confirm=True)
    await room.join("b", will_return=True)
    for after_ms in (GRACE_MS - 1, GRACE_MS - 1, GRACE_MS + SKIPPED_MS - 1):
        room.clock.advance_ms(after_ms)
        await room.store.heartbeat(POOL, "b")  # anybody's call moves the queue
        seen = await room.store.heartbeat(POOL, "a")
        assert not isinstance(seen, Unknown)
        assert (seen.ticket.status, seen.ticket.position) == (Status.WAITING, 1)


@pytest.mark.parametrize(("client", "position"), [("", 1), ("mine", 1), ("of the last session", 2)])
async def test_only_a_chat_that_waits_is_present_by_its_heartbeats(
    room: Room, client: str, position: int
) -> None:
    await room.sit("s1", "s2")
    await room.join("a", auto_confirm=True, client="mine")
    await room.join("b", will_return=True)
    room.clock.advance_ms(GRACE_MS - 1)
    await room.store.heartbeat(POOL, "a", client=client)
    room.clock.advance_ms(1)
    seen = await room.store.heartbeat(POOL, "b")
    assert not isinstance(seen, Unknown)
    assert seen.ticket.position == 3 - position


async def test_beyond_the_chats_that_are_told_apart_any_is_one_that_waits(room: Room) -> None:
    await room.sit("s1", "s2")
    for number in range(102):
        await room.join("a", auto_confirm=True, client=f"chat-{number}")
    room.clock.advance_ms(GRACE_MS)
    await room.store.heartbeat(POOL, "a", client="chat-101")
    await room.join("b", will_return=True)
    seen = await room.store.heartbeat(POOL, "b")
    assert not isinstance(seen, Unknown)
    assert seen.ticket.position == 2


async def test_who_never_attached_is_not_skipped_but_gets_a_draft(room: Room) -> None:
    await room.sit("s1", "s2")
    await room.join("a")
    room.clock.advance_ms(SESSION_MS)
    await room.tick()
    assert await room.standing("a") == "draft"


async def test_a_lapsed_ticket_is_passed_over_by_the_offer(room: Room) -> None:
    await room.sit("s1", "s2")
    await room.join("gone", auto_confirm=True)
    await room.join("here", will_return=True)
    room.clock.advance_ms(GRACE_MS)
    await room.store.leave(POOL, "s1")
    assert await room.standings("gone", "here") == ["waiting", "draft"]


@pytest.mark.parametrize("use", ["request", "heartbeat"])
async def test_a_session_once_used_is_not_ended_as_unused(one: Room, use: str) -> None:
    await one.join("a", auto_confirm=True)
    one.clock.advance_ms(UNUSED_MS - 1)
    await (one.use("a") if use == "request" else one.store.heartbeat(POOL, "a", client="c"))
    one.clock.advance_ms(SESSION_MS - UNUSED_MS)
    assert await one.standing("a") == "active"
    one.clock.advance_ms(1)
    assert await one.standing("a") == "session_timeout"


async def test_a_heartbeat_alone_is_no_use_and_extends_no_deadline(one: Room) -> None:
    await one.join("a", auto_confirm=True)
    one.clock.advance_ms(UNUSED_MS - 1)
    await one.store.heartbeat(POOL, "a")
    one.clock.advance_ms(1)
    assert await one.standing("a") == "idle"


async def test_a_session_shorter_than_the_first_use_ends_by_its_cap(room_of: RoomOf) -> None:
    room = room_of(session_ms=UNUSED_MS)
    await room.join("a", auto_confirm=True)
    room.clock.advance_ms(UNUSED_MS)
    await room.tick()
    assert await room.standing("a") == "session_timeout"


@around
async def test_an_idle_session_ends_60_s_after_the_warning(one: Room, offset_ms: int) -> None:
    await one.sit("a")
    await one.join("b", will_return=True)
    one.clock.advance_ms(IDLE_MS)
    await one.tick()
    one.clock.advance_ms(60_000 + offset_ms)
    await one.tick()
    expected = ["active", "waiting"] if offset_ms < 0 else ["idle", "draft"]
    assert await one.standings("a", "b") == expected


async def test_nobody_is_idle_while_nobody_waits(one: Room) -> None:
    await one.sit("a")
    for _ in range(2 * IDLE_MS // 60_000):
        one.clock.advance_ms(60_000)
        await one.tick()
    assert await one.standing("a") == "active"
    await one.join("b", will_return=True)
    await one.tick()  # the warning comes now, not the end
    assert await one.standing("a") == "active"
    one.clock.advance_ms(60_000)
    await one.tick()
    assert await one.standing("a") == "idle"


@pytest.mark.parametrize("use", ["request", "heartbeat"])
async def test_use_after_the_warning_resets_idleness(room: Room, use: str) -> None:
    await room.sit("a", "s")
    await room.join("b", will_return=True)
    room.clock.advance_ms(IDLE_MS)
    await room.tick()
    room.clock.advance_ms(59_999)
    await (room.use("a") if use == "request" else room.store.heartbeat(POOL, "a", client="c"))
    room.clock.advance_ms(1)
    await room.tick()
    assert await room.standings("a", "s", "b") == ["active", "idle", "draft"]


async def test_a_running_request_keeps_a_session_from_being_idle(one: Room) -> None:
    await one.sit("a")
    await one.join("b", will_return=True)
    while (await one.standing("a")) == "active":
        await one.use("a")
        one.clock.advance_ms(20_000)
        await one.tick()
    assert await one.standing("a") == "session_timeout"


async def test_a_user_whose_ticket_is_forgotten_may_begin_anew(one: Room) -> None:
    await one.sit("a")
    await one.store.leave(POOL, "a")
    one.clock.advance_ms(READABLE_MS)
    assert await one.store.heartbeat(POOL, "a") == Unknown()
    assert await one.store.leave(POOL, "a") == Unknown()
    assert await one.use("a") == NoSession(None)
    assert (await one.join("a")).status == Status.DRAFT


async def test_nothing_of_ended_tickets_stays_behind(room_of: RoomOf) -> None:
    room = room_of(capacity=2, queue_timeout_ms=QUEUE_MS)
    flags = [{}, {"auto_confirm": True}, {"will_return": True}]
    for number in range(12):
        await room.join(f"u{number}", client="c", **flags[number % 3])
    await room.store.confirm(POOL, "u0")
    await room.use("u0")
    for _ in range(60):
        room.clock.advance_ms(50_000)
        await room.tick()
        await room.store.announce(POOL)
    kept = {name_of(key) for key in await room.redis.keys("*")}
    assert kept == {"pool", "waits", "lives", "forecast"}
