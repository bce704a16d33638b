"""Requests of a session: who passes, how many at once, and the answer that outlives its session."""

import pytest

from admission.domain import Status, Ticket
from admission.outcomes import NoSession, Passed, SessionBusy
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Room

SESSION_MS = 1_200_000
ANSWER_MS = 30_000
FINISHING_MS = 120_000


@pytest.fixture
async def finishing(room_of: RoomOf) -> Room:
    """One slot: the session of "a" ran out just now while message "m" was answered; "b" waits."""
    room = room_of(capacity=1)
    await room.sit("a")
    await room.join("b", will_return=True)
    room.clock.advance_ms(SESSION_MS - 1)
    assert isinstance(await room.use("a"), Passed)
    room.clock.advance_ms(1)
    return room


async def test_only_so_many_requests_of_a_session_run_at_once(room: Room) -> None:
    [ticket] = await room.sit("a")
    for request in ("r1", "r2", "r1"):
        passed = await room.use("a", request, concurrency=2)
        assert passed == Passed(ticket.ticket_id, ticket.expires_ms)
    assert await room.use("a", "r3", concurrency=2) == SessionBusy(ticket.ticket_id)
    await room.store.done(POOL, ticket=ticket.ticket_id, request="r1")
    await room.store.done(POOL, ticket=ticket.ticket_id, request="r1")
    assert isinstance(await room.use("a", "r3", concurrency=2), Passed)
    room.clock.advance_ms(30_000)  # none was renewed
    assert isinstance(await room.use("a", "r4", concurrency=1), Passed)


async def test_without_a_session_no_request_passes(full: Room) -> None:
    waiting = await full.join("a")
    refused = await full.use("a")
    assert refused == NoSession(waiting)
    assert isinstance(waiting, Ticket)
    await full.store.leave(POOL, "s1")  # a draft is not a session yet
    refused = await full.use("a")
    assert isinstance(refused, NoSession)
    assert refused.ticket
    assert refused.ticket.status == Status.DRAFT


async def test_an_answer_keeps_its_slot_after_the_session(finishing: Room) -> None:
    assert (await finishing.metrics()).finishing == 1  # before any script ended the session
    await finishing.tick()
    seen = await finishing.metrics()
    assert (seen.active, seen.finishing, seen.free) == (0, 1, 0)
    assert await finishing.standings("a", "b") == ["session_timeout", "waiting"]


@pytest.mark.parametrize(
    ("request_id", "message", "passes"),
    [
        ("r", "m", True),
        ("r", "", True),
        ("tool-round", "m", True),
        ("new", "n", False),
        ("new", "", False),
    ],
)
async def test_after_the_session_only_the_message_that_ran_passes(
    finishing: Room, request_id: str, message: str, passes: bool
) -> None:
    outcome = await finishing.use("a", request_id, message=message)
    assert isinstance(outcome, Passed if passes else NoSession)
    if isinstance(outcome, Passed):
        assert outcome.deadline_ms is None


@pytest.mark.parametrize("offset_ms", [-1, 0, 1])
async def test_an_answer_not_renewed_for_30_s_gives_its_slot_back(
    finishing: Room, offset_ms: int
) -> None:
    finishing.clock.advance_ms(ANSWER_MS - 1 + offset_ms)
    await finishing.tick()
    assert await finishing.standing("b") == ("waiting" if offset_ms < 0 else "draft")
    assert isinstance(await finishing.use("a"), Passed if offset_ms < 0 else NoSession)


@pytest.mark.parametrize("renewal", ["request", "heartbeat"])
@pytest.mark.parametrize("offset_ms", [-1, 0, 1])
async def test_a_renewed_answer_is_cut_after_120_s(
    finishing: Room, renewal: str, offset_ms: int
) -> None:
    async def renew() -> None:
        if renewal == "request":
            await finishing.use("a")
        else:
            await finishing.store.heartbeat(POOL, "a", client="m")

    for _ in range(5):
        finishing.clock.advance_ms(20_000)
        await renew()
        assert await finishing.standing("b") == "waiting"
    finishing.clock.advance_ms(FINISHING_MS - 100_000 + offset_ms)
    await renew()
    assert await finishing.standing("b") == ("waiting" if offset_ms < 0 else "draft")


async def test_a_heartbeat_of_another_chat_renews_no_finishing_answer(finishing: Room) -> None:
    finishing.clock.advance_ms(20_000)
    await finishing.store.heartbeat(POOL, "a", client="another")
    await finishing.store.heartbeat(POOL, "a")
    finishing.clock.advance_ms(10_000)
    await finishing.tick()
    assert await finishing.standing("b") == "draft"


async def test_the_end_of_the_message_gives_the_slot_to_the_next_at_once(finishing: Room) -> None:
    ticket = await finishing.see("a")
    await finishing.store.done(POOL, ticket=ticket.ticket_id, request="r")
    assert await finishing.standing("b") == "waiting"  # a tool round may follow
    await finishing.store.leave(POOL, "a", client="m")
    assert await finishing.standing("b") == "draft"


async def test_the_end_of_a_request_without_message_gives_the_slot_back(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    [ticket] = await room.sit("a")
    await room.join("b")
    await room.use("a", message="")
    await room.store.leave(POOL, "a")
    assert await room.standing("b") == "waiting"
    await room.store.done(POOL, ticket=ticket.ticket_id, request="r")
    assert await room.standing("b") == "draft"


async def test_a_message_that_lapsed_may_not_begin_again_beside_another(finishing: Room) -> None:
    await finishing.tick()
    await finishing.use("a", "r2", message="m")
    for _ in range(2):
        finishing.clock.advance_ms(20_000)
        await finishing.use("a", "r2", message="")
    assert isinstance(await finishing.use("a", "r3", message="m"), NoSession)
    assert isinstance(await finishing.use("a", "r2", message=""), Passed)


async def test_a_finishing_message_runs_no_more_requests_than_a_session(finishing: Room) -> None:
    outcomes = [await finishing.use("a", f"r{i}", concurrency=2) for i in range(3)]
    assert [type(outcome) for outcome in outcomes] == [Passed, SessionBusy, SessionBusy]


async def test_removal_cuts_what_runs(room: Room) -> None:
    await room.sit("a")
    await room.use("a")
    await room.store.cancel(POOL, "a")
    assert await room.held() == 0
    assert isinstance(await room.use("a"), NoSession)


async def test_removal_cuts_an_answer_that_is_finishing(finishing: Room) -> None:
    await finishing.tick()
    await finishing.join("a")
    await finishing.store.cancel(POOL, "a")
    assert (await finishing.metrics()).finishing == 0
    assert await finishing.standing("b") == "draft"


async def test_a_finishing_answer_survives_its_user_joining_and_leaving(finishing: Room) -> None:
    await finishing.tick()
    for _ in range(2):
        await finishing.join("a", client="c")
        assert isinstance(await finishing.use("a"), Passed)
        await finishing.store.leave(POOL, "a", client="c")
    assert isinstance(await finishing.use("a"), Passed)
    assert (await finishing.metrics()).finishing == 1


async def test_a_request_that_reached_the_next_session_is_given_back_there(room: Room) -> None:
    [first] = await room.sit("a")
    await room.use("a", "long", message="")
    await room.store.leave(POOL, "a")
    [second] = await room.sit("a")
    assert isinstance(await room.use("a", "long", message="", concurrency=1), Passed)
    await room.store.done(POOL, ticket=first.ticket_id, request="long")
    assert await room.held() == 1
    passed = await room.use("a", "next", concurrency=1)
    assert isinstance(passed, Passed)
    assert passed.ticket_id == second.ticket_id


async def test_nobody_holds_two_slots_by_leaving_while_an_answer_runs(room: Room) -> None:
    for round_ in range(5):
        await room.join("a", auto_confirm=True)
        assert isinstance(await room.use("a", f"r{round_}", f"m{round_}", concurrency=9), Passed)
        await room.store.leave(POOL, "a")
        assert await room.held() == 1
    await room.sit("b")
    assert await room.held() == 2


async def test_an_answer_that_outlived_its_session_goes_on_in_the_next_one(room: Room) -> None:
    [first] = await room.sit("a")
    assert isinstance(await room.use("a", "old", "m-old"), Passed)
    await room.store.leave(POOL, "a")
    [second] = await room.sit("a")
    assert await room.held() == 1
    renewed = await room.use("a", "old", "m-old", concurrency=1)
    assert renewed == Passed(second.ticket_id, second.expires_ms)
    assert await room.use("a", "new", concurrency=1) == SessionBusy(second.ticket_id)
    await room.store.done(POOL, ticket=first.ticket_id, request="old")
    assert isinstance(await room.use("a", "new", concurrency=1), Passed)


async def test_a_slot_freed_by_going_on_is_offered_in_the_same_script(room: Room) -> None:
    await room.sit("a")
    assert isinstance(await room.use("a"), Passed)
    await room.store.leave(POOL, "a")
    await room.join("a", will_return=True)  # the second slot: a draft beside the finishing answer
    await room.join("b", will_return=True)
    assert await room.standings("a", "b") == ["draft", "waiting"]
    await room.store.confirm(POOL, "a")
    assert await room.standings("a", "b") == ["active", "draft"]


async def test_a_ticket_keeps_a_bounded_number_of_answers(room: Room) -> None:
    [ticket] = await room.sit("a")
    for number in range(150):
        await room.store.heartbeat(POOL, "a", client=f"answer-{number}")
    facts = await room.redis.hget(f"vestibule:{{{POOL}}}:tickets", ticket.ticket_id)
    assert str(facts).count("answer-") == 100
