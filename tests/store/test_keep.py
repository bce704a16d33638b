"""What one process tells of a session's requests together: renewed, given back, or over."""

import pytest

from admission.outcomes import Kept, Over, Passed, SessionBusy
from admission.store.names import pool_key
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Room

SESSION_MS = 1_200_000
ANSWER_MS = 30_000
FINISHING_MS = 120_000


async def test_what_runs_is_counted_and_renewed_and_what_ended_is_not(room: Room) -> None:
    [ticket] = await room.sit("a")
    await room.use("a", "elsewhere")
    kept = await room.store.keep(POOL, "a", running={"r1": "m", "r2": ""})
    assert kept == Kept(ticket.expires_ms or 0, room.clock.now_ms(), 3)
    room.clock.advance_ms(ANSWER_MS - 1)
    kept = await room.store.keep(POOL, "a", running={"r2": ""}, ended=["r1", "never"])
    assert isinstance(kept, Kept)
    assert kept.running == 2
    room.clock.advance_ms(1)  # what runs elsewhere was not renewed
    assert isinstance(await room.use("a", "r3", concurrency=2), Passed)
    assert isinstance(await room.use("a", "r4", concurrency=2), SessionBusy)


@pytest.mark.parametrize(
    ("told", "used"),
    [
        ({"running": {"r": "m"}}, True),
        ({"running": {}, "answered": [""]}, True),
        ({"running": {}, "ended": ["r"]}, False),
    ],
)
async def test_what_runs_or_ran_is_use(room: Room, told: dict[str, object], used: bool) -> None:
    await room.join("a", auto_confirm=True)
    await room.store.keep(POOL, "a", **told)  # type: ignore[arg-type]
    assert await room.redis.zcard(pool_key(POOL, "unused")) == (0 if used else 1)


async def test_what_was_told_before_the_end_finishes_and_nothing_else(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    await room.sit("a")
    await room.join("b", will_return=True)
    room.clock.advance_ms(SESSION_MS - 1)
    await room.store.keep(POOL, "a", running={"r1": "m1", "r2": ""}, answered=["m3"])
    room.clock.advance_ms(1)
    running = {"r1": "m1", "r2": "", "round": "m3", "new": "n"}
    assert await room.store.keep(POOL, "a", running=running) == Over(("new",))
    assert await room.standings("a", "b") == ["session_timeout", "waiting"]
    ended = ["r1", "r2"]
    assert await room.store.keep(POOL, "a", running={"round": "m3"}, ended=ended) == Over(())
    assert (await room.metrics()).finishing == 1
    await room.store.keep(POOL, "a", running={}, ended=["round"])
    room.clock.advance_ms(ANSWER_MS)  # a next round of the message did not come
    await room.tick()
    assert await room.standing("b") == "draft"


async def test_an_answer_finishes_for_two_minutes_at_most(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    await room.sit("a")
    room.clock.advance_ms(SESSION_MS - 1)
    await room.store.keep(POOL, "a", running={"r": ""})
    for _ in range(FINISHING_MS // 20_000):
        room.clock.advance_ms(20_000)
        assert await room.store.keep(POOL, "a", running={"r": ""}) == Over(())
    room.clock.advance_ms(1)
    assert await room.store.keep(POOL, "a", running={"r": ""}) == Over(("r",))


@pytest.mark.parametrize("late", [{"running": {"r": "m"}}, {"running": {}, "answered": ["m"]}])
async def test_an_answer_whose_chat_said_it_is_over_is_not_revived_by_late_news(
    room_of: RoomOf, late: dict[str, object]
) -> None:
    room = room_of(capacity=1)
    await room.sit("a")
    await room.store.heartbeat(POOL, "a", client="m")
    await room.store.leave(POOL, "a", client="m")
    await room.store.keep(POOL, "a", **late)  # type: ignore[arg-type]
    await room.store.keep(POOL, "a", running={}, ended=["r"])
    await room.store.leave(POOL, "a")
    await room.join("b", will_return=True)
    assert await room.standing("b") == "draft"


@pytest.mark.parametrize("again", ["join", "heartbeat", "use"])
async def test_the_same_answer_may_go_on(room_of: RoomOf, again: str) -> None:
    """Open WebUI continues a message under its id."""
    room = room_of(capacity=1)
    await room.sit("a")
    await room.store.leave(POOL, "a", client="m")
    match again:
        case "join":
            await room.join("a", client="m")
        case "heartbeat":
            await room.store.heartbeat(POOL, "a", client="m")
        case _:
            await room.use("a", "r", message="m")
    await room.store.keep(POOL, "a", running={}, ended=["r"], answered=["m"])
    await room.store.leave(POOL, "a")
    assert (await room.metrics()).finishing == 1


async def test_the_last_answer_to_end_gives_the_slot_back_at_once(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    await room.sit("a")
    await room.store.keep(POOL, "a", running={"r": ""})
    await room.store.leave(POOL, "a")
    await room.join("b", will_return=True)
    assert await room.standing("b") == "waiting"
    await room.store.keep(POOL, "a", running={}, ended=["r"])
    assert await room.standing("b") == "draft"


async def test_a_removed_user_and_one_nobody_knows_lose_everything(room: Room) -> None:
    await room.sit("a")
    await room.store.keep(POOL, "a", running={"r": "m"})
    await room.store.cancel(POOL, "a")
    for user in ("a", "nobody"):
        assert await room.store.keep(POOL, user, running={"r": "m"}) == Over(("r",))


async def test_answers_go_on_in_the_users_next_session(room: Room) -> None:
    await room.sit("a")
    await room.store.keep(POOL, "a", running={"r": "m"})
    await room.store.leave(POOL, "a")
    await room.sit("a")
    kept = await room.store.keep(POOL, "a", running={"r": "m"})
    assert isinstance(kept, Kept)
    assert kept.running == 1
