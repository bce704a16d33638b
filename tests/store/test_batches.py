"""More leases due at once than one script ends: none counts any longer, none is granted twice.

A script ends at most 100 due leases (DESIGN section 4, invariant 4).
"""

import pytest

from admission.domain import Status
from admission.outcomes import Alive, Confirmed, Joined, NoSession, Passed
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Room

MANY = 250
SESSION_MS = 60_000  # no longer than the time for the first use, so that none is needed
DRAFT_MS = 300_000


@pytest.fixture
def crowd(room_of: RoomOf) -> Room:
    return room_of(capacity=MANY, session_ms=SESSION_MS)


def names(prefix: str) -> list[str]:
    return [f"{prefix}{number}" for number in range(MANY)]


async def admit(room: Room, *, answering: bool) -> None:
    """All slots go to sessions that end at the same millisecond."""
    for user in names("old"):
        await room.join(user, auto_confirm=True)
    room.clock.advance_ms(SESSION_MS - 1)
    for user in names("old") if answering else []:
        await room.use(user)
    room.clock.advance_ms(1)


async def grab(room: Room) -> int:
    """As many newcomers as there are slots ask for one; how many got it."""
    got = 0
    for user in names("new"):
        got += (await room.join(user, auto_confirm=True)).status == Status.ACTIVE
        assert await room.held() <= MANY
    return got


async def test_due_sessions_no_longer_count_before_any_script_ended_them(crowd: Room) -> None:
    await admit(crowd, answering=False)
    seen = await crowd.metrics()
    assert (seen.active, seen.free) == (0, MANY)
    assert (await crowd.join("new", auto_confirm=True)).status == Status.ACTIVE
    assert await crowd.redis.zcard("vestibule:{default}:sessions") == MANY - 100 + 1
    assert await grab(crowd) == MANY - 1


async def test_answers_still_running_keep_their_slots_however_many_end_at_once(
    crowd: Room,
) -> None:
    await admit(crowd, answering=True)
    seen = await crowd.metrics()
    assert (seen.active, seen.finishing, seen.free) == (0, MANY, 0)
    assert await grab(crowd) == 0
    for user in names("old"):
        assert isinstance(await crowd.use(user), Passed)
    assert (await crowd.metrics()).finishing == MANY


@pytest.mark.parametrize("renewal", ["request", "heartbeat"])
async def test_a_lapsed_answer_cannot_come_back_after_its_slot_was_given_away(
    crowd: Room, renewal: str
) -> None:
    await admit(crowd, answering=True)
    for _ in range(4):
        await crowd.tick()
    crowd.clock.advance_ms(30_000)
    for user in sorted(names("old"), reverse=True):  # the last that a batch comes to
        if renewal == "request":
            assert isinstance(await crowd.use(user), NoSession)
        else:
            await crowd.store.heartbeat(POOL, user, client="m")
        assert await crowd.held() == 0


async def test_due_drafts_are_not_confirmed_late_and_their_slots_go_on(crowd: Room) -> None:
    for user in names("old"):
        await crowd.join(user)
    crowd.clock.advance_ms(DRAFT_MS)
    for user in names("old")[::-1]:
        assert not isinstance(await crowd.store.confirm(POOL, user), Confirmed)
    assert await grab(crowd) == MANY


async def test_sessions_never_used_are_not_used_late(crowd: Room) -> None:
    await crowd.configure(session_ms=20 * SESSION_MS)
    for user in names("old"):
        await crowd.join(user, auto_confirm=True)
    crowd.clock.advance_ms(60_000)
    assert (await crowd.metrics()).active == 0
    for user in names("old")[::-1]:
        assert isinstance(await crowd.use(user), NoSession)
    assert await grab(crowd) == MANY


async def test_an_offer_passes_over_all_who_are_gone(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    await room.sit("s")
    for user in names("gone"):
        await room.join(user, auto_confirm=True)
    room.clock.advance_ms(60_000 - 1)
    await room.join("here", will_return=True)
    room.clock.advance_ms(1)
    for _ in range(2):  # 100 in the batch, 100 in the offer; then the rest
        await room.store.leave(POOL, "s")
    assert await room.standing("here") == "draft"
    assert await room.held() == 1


async def test_an_offer_goes_to_nobody_whose_queue_timeout_is_over(room_of: RoomOf) -> None:
    room = room_of(capacity=0, queue_timeout_ms=90_000)
    for user in names("late"):
        await room.join(user, will_return=True)
    room.clock.advance_ms(90_000)
    await room.configure(capacity=1)
    assert await room.held() == 0
    assert set(await room.standings(*names("late"))) == {"queue_timeout"}
    assert (await room.join("new")).status == Status.DRAFT


async def test_the_tick_asks_to_run_again_until_all_due_are_ended(crowd: Room) -> None:
    await admit(crowd, answering=False)
    assert [await crowd.tick() for _ in range(3)] == [0, 0, None]
    assert await crowd.redis.zcard("vestibule:{default}:sessions") == 0
    assert (await crowd.metrics()).expired_total == MANY


async def test_a_user_left_over_by_the_batch_gets_a_new_ticket_not_the_old_one(
    crowd: Room,
) -> None:
    await admit(crowd, answering=False)
    user = names("old")[-1]
    old = await crowd.see(user)
    outcome = await crowd.store.join(POOL, user, ticket="fresh", auto_confirm=True)
    assert isinstance(outcome, Joined)
    assert (outcome.new, outcome.ticket.ticket_id) == (True, "fresh")
    assert old.reason == "session_timeout"
    assert isinstance(await crowd.store.heartbeat(POOL, user), Alive)
