"""What people are told about when: from hard ends first, then from what the pool's past teaches."""

import math
import random
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from admission.clock import ManualClock
from admission.domain import PoolPolicy, Status, Ticket
from admission.store.names import pool_key
from admission.store.redis_store import RedisStore
from tests.store.conftest import RoomOf
from tests.store.room import POOL, Room

SESSION_MS = 1_200_000
DRAFT_MS = 300_000
BIN_MS = SESSION_MS // 60  # how fine the forecast is beyond the sessions that run now


def told(ticket: Ticket) -> tuple[float, float]:
    """The value and the high value, which must be known."""
    assert ticket.wait_ms is not None
    assert ticket.wait_high_ms is not None
    return ticket.wait_ms, ticket.wait_high_ms


async def queue(room: Room, number: int, **flags: Any) -> list[Ticket]:
    return [await room.join(f"w{n}", **{"will_return": True, **flags}) for n in range(number)]


async def live(room: Room, *lives_ms: int) -> None:
    """Let sessions come and go, one after the other."""
    for life_ms in lives_ms:
        await room.sit("past")
        room.clock.advance_ms(life_ms)
        await room.store.leave(POOL, "past")


@pytest.mark.parametrize(
    "policy", [{"paused": True}, {"capacity": 0}, {"needs_worker": True}, {"capacity": "auto"}]
)
async def test_what_cannot_be_known_is_not_guessed(room: Room, policy: dict[str, Any]) -> None:
    await room.sit("s1", "s2")
    await room.join("a")
    await room.configure(**policy)
    seen, metrics = await room.see("a"), await room.metrics()
    assert (seen.wait_ms, seen.wait_high_ms) == (None, None)
    assert (metrics.wait_ms, metrics.wait_high_ms) == (None, None)
    await room.configure(**dict.fromkeys(policy))
    assert (await room.see("a")).wait_ms is not None


async def test_nobody_waits_where_a_slot_is_free(room: Room) -> None:
    assert ((await room.metrics()).wait_ms, (await room.metrics()).wait_high_ms) == (0, 0)


async def test_as_long_as_nothing_is_known_sessions_last_to_their_hard_ends(room: Room) -> None:
    await room.sit("s1")
    room.clock.advance_ms(200_000)
    await room.sit("s2")
    waits = [told(ticket) for ticket in await queue(room, 3)]
    assert waits[:2] == [(SESSION_MS - 200_000,) * 2, (SESSION_MS,) * 2]
    assert waits[2] == pytest.approx((2 * SESSION_MS - 200_000,) * 2, abs=BIN_MS)


async def test_after_capacity_was_lowered_the_surplus_must_end_first(room_of: RoomOf) -> None:
    room = room_of(capacity=3)
    for number in range(3):
        await room.sit(f"s{number}")
        room.clock.advance_ms(10_000)
    await queue(room, 1)
    await room.configure(capacity=1)
    waits = [(await room.see("w0")).wait_high_ms, (await room.join("w1")).wait_high_ms]
    assert waits == [SESSION_MS - 10_000, pytest.approx(2 * SESSION_MS - 10_000, abs=BIN_MS)]
    room.clock.advance_ms(SESSION_MS - 30_000)
    await room.tick()
    assert await room.standing("w0") == "waiting"


async def test_slots_that_were_taken_away_come_free_once_and_are_not_taken_again(
    room_of: RoomOf,
) -> None:
    room = room_of(capacity=3)
    await room.sit("s1", "s2", "s3")
    await queue(room, 3)
    await room.configure(capacity=1)
    for number in range(3):  # one after the other
        value, high = told(await room.see(f"w{number}"))
        assert value == pytest.approx((number + 1) * SESSION_MS, abs=2 * BIN_MS)
        assert high == pytest.approx((number + 1) * SESSION_MS, abs=2 * BIN_MS)


@pytest.mark.parametrize("passed_ms", [1, 900, 4_999, 10_000])
async def test_the_estimate_counts_down_and_reading_it_writes_nothing(
    room: Room, passed_ms: int
) -> None:
    await room.sit("s1", "s2")
    [before] = await queue(room, 1)
    kept = await room.dump()
    room.clock.advance_ms(passed_ms)
    after = await room.see("w0")
    assert told(after) == tuple(ms - passed_ms for ms in told(before))
    assert await room.dump() == kept


async def test_while_no_slot_is_free_nobody_is_told_zero(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    await live(room, *[10_000] * 200)
    await room.sit("s")
    await queue(room, 1)
    room.clock.advance_ms(9_500)
    await room.tick()
    for _ in range(4):
        room.clock.advance_ms(1_000)
        assert told(await room.see("w0"))[0] >= 1_000


async def test_who_was_served_since_the_forecast_is_taken_into_account(room: Room) -> None:
    await room.sit("s1")
    room.clock.advance_ms(200_000)
    await room.sit("s2")
    await queue(room, 2)
    assert told(await room.see("w1")) == (SESSION_MS, SESSION_MS)
    await room.store.leave(POOL, "s1")  # w0 is served, with a forecast not a moment old
    seen = await room.see("w1")
    assert (seen.position, told(seen)) == (1, (SESSION_MS, SESSION_MS))


async def test_short_sessions_shorten_the_estimate(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    await live(room, *[10_000] * 60)
    await room.sit("s")
    first, second = map(told, await queue(room, 2))
    assert 1_000 <= first[0] <= 15_000
    assert first[0] < second[0] <= 30_000
    assert second[1] < 60_000


async def test_a_few_short_sessions_say_enough(room_of: RoomOf) -> None:
    room = room_of(capacity=2)
    await live(room, *[10_000] * 5)
    await room.sit("s1", "s2")
    value, high = told((await queue(room, 6))[-1])
    assert 15_000 < value < 60_000
    assert high < 120_000


@pytest.mark.parametrize("number", [1, 2])
async def test_a_short_session_or_two_do_not_promise_speed_to_all(
    room_of: RoomOf, number: int
) -> None:
    room = room_of(capacity=1)
    await live(room, *[5_000] * number)
    await room.sit("s")
    [only] = await queue(room, 1)
    assert told(only)[1] > SESSION_MS / 2


async def test_sessions_that_began_together_end_together(room_of: RoomOf) -> None:
    room = room_of(capacity=10)
    await room.sit(*(f"s{n}" for n in range(10)))
    room.clock.advance_ms(SESSION_MS // 2)
    waits = [told(ticket)[0] for ticket in await queue(room, 20)]
    assert waits[:10] == [SESSION_MS / 2] * 10
    assert all(wait == pytest.approx(1.5 * SESSION_MS, abs=BIN_MS) for wait in waits[10:])


async def test_no_shows_are_reckoned_with(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    for number in range(20):
        await room.join(f"gone{number}", will_return=True)
        room.clock.advance_ms(DRAFT_MS)
        await room.tick()
    await room.sit("s")
    waits = [told(ticket)[0] for ticket in await queue(room, 4)]
    turns = [b - a for a, b in pairwise(waits)]
    assert all(turn < SESSION_MS * 0.6 for turn in turns), turns


async def test_who_loses_patience_makes_the_wait_shorter(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    await room.sit("s")
    before = told((await queue(room, 8))[-1])[0]
    for number in range(40):
        await room.join(f"impatient{number}", will_return=True)
        room.clock.advance_ms(5_000)
        await room.tick()
        await room.store.leave(POOL, f"impatient{number}")
    assert told(await room.see("w7"))[0] < before - 200_000 - SESSION_MS


async def test_the_metrics_tell_the_wait_of_who_would_join_now(room: Room) -> None:
    await room.sit("s1", "s2")
    await room.join("a")
    metrics = await room.metrics()
    joined = await room.join("b")
    assert (metrics.wait_ms, metrics.wait_high_ms) == told(joined)


async def test_requests_are_foretold_from_how_long_requests_take(room_of: RoomOf) -> None:
    room = room_of(kind="request", capacity=2, session_ms=600_000)
    for number in range(40):
        ticket = await room.join(f"past{number}", request="r", auto_confirm=True)
        room.clock.advance_ms(4_000 + number % 3 * 1_000)
        await room.store.leave(POOL, f"past{number}", ticket=ticket.ticket_id)
    for number in range(2):
        await room.join(f"s{number}", request="r", auto_confirm=True)
    waits = [told(await room.join(f"w{n}", request="r", auto_confirm=True))[0] for n in range(10)]
    assert waits == sorted(waits)
    assert waits[9] == pytest.approx(5 * 5_000, rel=0.3)


async def test_promises_that_fail_widen_the_high_value(room_of: RoomOf) -> None:
    room = room_of(capacity=1, idle_ms=SESSION_MS)

    async def width() -> float:
        kept = await room.redis.hget(pool_key(POOL, "forecast"), "learned")
        assert isinstance(kept, bytes)
        return float(msgspec.msgpack.decode(kept)["z"])

    async def wait(*lives_ms: int) -> None:
        """Sessions, one after the other, while the next one always waits."""
        for life_ms in lives_ms:
            await room.sit("s")
            await room.join("next", will_return=True)
            for _ in range(life_ms // 10_000):
                room.clock.advance_ms(10_000)
                await room.tick()
            await room.store.leave(POOL, "next")
            await room.store.leave(POOL, "s")

    await live(room, *[5_000, 45_000] * 15)
    before = await width()
    await wait(SESSION_MS - 10_000)
    assert await width() > before


async def test_what_is_remembered_is_bounded(room_of: RoomOf) -> None:
    room = room_of(capacity=20)
    chance = random.Random(7)
    await room.redis.lpush(pool_key(POOL, "lives"), *["1800000000000:60000"] * 400)
    await live(room, 1_000)
    await room.sit(*(f"s{n}" for n in range(20)))
    await queue(room, 600)
    for number in range(500):
        room.clock.advance_ms(chance.randrange(10_000, 12_000))
        await room.tick()
        await room.store.leave(POOL, f"w{number}")
    assert await room.redis.llen(pool_key(POOL, "lives")) == 400
    assert await room.redis.zcard(pool_key(POOL, "promises")) <= 256
    kept = await room.redis.hgetall(pool_key(POOL, "forecast"))
    assert sum(map(len, kept.values())) < 2_000


@pytest.mark.parametrize("seed", range(12))
async def test_who_stands_further_back_is_never_told_a_shorter_wait(
    room_of: RoomOf, seed: int
) -> None:
    chance = random.Random(seed)
    room = room_of(capacity=5, idle_ms=10 * SESSION_MS)
    await live(room, *(chance.randrange(1, 30_000) for _ in range(20)))
    for number in range(5):  # hold some of every age
        kind = chance.choice(["draft", "active", "finishing"])
        await room.join(f"h{number}", will_return=True)
        if kind != "draft":
            await room.store.confirm(POOL, f"h{number}")
        if kind == "finishing":
            await room.use(f"h{number}")
            await room.store.leave(POOL, f"h{number}")
        room.clock.advance_ms(chance.randrange(5000))
    await room.configure(capacity=chance.choice([2, 5, 7]))
    await queue(room, 20)
    seen = [await room.see(f"w{number}") for number in range(20)]
    waits = [told(ticket) for ticket in seen if ticket.status == Status.WAITING]
    assert len(waits) >= 18
    assert all(0 <= value <= high for value, high in waits)
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(waits))


async def test_turns_shorter_than_a_step_of_the_forecast_are_counted(room_of: RoomOf) -> None:
    room = room_of(kind="request", capacity=1)
    for number in range(60):  # every second one takes half a second, the others a minute
        ticket = await room.join("a", request=f"r{number}", auto_confirm=True)
        for _ in range(6 if number % 2 else 1):
            room.clock.advance_ms(10_000 if number % 2 else 500)
            await room.store.heartbeat(POOL, "a", ticket=ticket.ticket_id)
        await room.store.leave(POOL, "a", ticket=ticket.ticket_id)
    for number in range(21):
        last = await room.join(f"u{number}", request="r", auto_confirm=True)
    assert last.position == 20
    assert last.wait_ms == pytest.approx(20 * 30_250, rel=0.15)


@pytest.mark.parametrize("life_ms", [0, 1])
async def test_turns_of_a_moment_make_no_forecast_long(room_of: RoomOf, life_ms: int) -> None:
    """A bin is as fine as the turns are short; a draft lasts millions of these."""
    room = room_of(capacity=1)
    await live(room, *[life_ms] * 30)
    await room.join("s", will_return=True)
    before = await calls_ms(room)
    waits = [told(ticket) for ticket in await queue(room, 3)]
    assert all(0 < value <= high < math.inf for value, high in waits)
    assert await calls_ms(room) - before < 500


async def calls_ms(room: Room) -> float:
    """How long Redis has spent on scripts."""
    stats = await room.redis.info("commandstats")
    return float(stats["cmdstat_evalsha"]["usec"]) / 1000


async def test_where_hardly_anybody_stays_the_estimate_is_a_number(room_of: RoomOf) -> None:
    """So impatient a pool that who waits now is e^500 times as likely to be gone in an hour."""
    room = room_of(capacity=1, session_ms=3_600_000)
    await room.sit("s")
    for number in range(700):
        await room.join(f"gone{number}")
        await room.store.leave(POOL, f"gone{number}")
    await queue(room, 5)
    room.clock.advance_ms(2_000)
    await room.tick()
    for number in range(5):
        value, high = told(await room.see(f"w{number}"))
        assert 3_598_000 <= value <= high < 10_800_000


async def test_a_clock_behind_the_last_hosts_makes_nobody_wait_longer(room: Room) -> None:
    await room.sit("s1", "s2")
    await queue(room, 1)
    await room.tick()
    behind = ManualClock(room.clock.now_ms() - 60_000)  # a failover to a host with another clock
    other = Room(RedisStore(room.redis, behind, PoolPolicy(capacity=2)), behind, room.redis)
    await other.tick()
    for _ in range(3):
        behind.advance_ms(10_000)
        left_ms = room.clock.now_ms() + SESSION_MS - behind.now_ms()
        assert told(await other.see("w0")) == (left_ms, left_ms)
    await other.store.leave(POOL, "s1")
    await other.store.confirm(POOL, "w0")
    assert min((await other.metrics()).waits_ms) >= 0


@pytest.mark.parametrize("slots", [1, 2])
async def test_nobody_is_told_more_than_hard_ends_allow(room_of: RoomOf, slots: int) -> None:
    room = room_of(capacity=slots)
    await live(room, 2_000, 2_000)
    await room.sit(*(f"s{number}" for number in range(slots)))
    room.clock.advance_ms(100_000)
    tickets = await queue(room, 2 * slots)
    first, second = tickets[slots - 1], tickets[2 * slots - 1]
    assert told(first)[1] <= SESSION_MS - 100_000 + BIN_MS
    assert told(second)[1] <= SESSION_MS - 100_000 + DRAFT_MS + SESSION_MS + BIN_MS


async def test_two_drafts_that_nobody_took_do_not_make_the_wait_endless(room_of: RoomOf) -> None:
    room = room_of(capacity=1)
    for user in ("a", "b"):
        await room.join(user)
        await room.store.leave(POOL, user)
    await room.sit("s")
    first, second = await queue(room, 2)
    assert told(first)[1] <= SESSION_MS + BIN_MS
    assert told(second)[1] <= SESSION_MS + DRAFT_MS + SESSION_MS + BIN_MS
