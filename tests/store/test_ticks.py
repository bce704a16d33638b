"""A tick's lease has one holder, ends at its deadline, and its epoch is given once."""

import json
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.store import names
from admission.store.fence import LUA
from admission.store.tick_store import LEASE_MS, LastRun, Lease, TickFacts, TickStore, Word

FREE = Word(period_ms=60_000)
DAY_MS = 86_400_000


@pytest.fixture
def ticks(redis: Redis, clock: ManualClock) -> TickStore:
    return TickStore(redis, clock)


async def beat(ticks: TickStore, owner: str, word: Word = FREE) -> Lease:
    return (await ticks.beat(owner, {"t": word}))["t"]


async def seen(ticks: TickStore) -> TickFacts:
    [facts] = await ticks.all()
    return facts


async def fenced(redis: Redis, epoch: int, tick: str = "t") -> bool:
    text = f"{LUA}\nreturn fenced(KEYS[1], ARGV[1], ARGV[2]) and 1 or 0"
    answer: Any = redis.eval(text, 1, names.TICKS_KEY, tick, epoch)
    return bool(await answer)


async def test_the_first_holds_it_until_the_deadline_and_then_another(
    ticks: TickStore, clock: ManualClock
) -> None:
    first = await beat(ticks, "a")
    assert first.epoch
    assert (first.due_ms, first.left_ms) == (0, LEASE_MS)
    assert await beat(ticks, "b") == Lease(0, 0, LEASE_MS)
    clock.advance_ms(LEASE_MS - 1)
    assert await beat(ticks, "b") == Lease(0, 0, 1)
    clock.advance_ms(1)
    second = await beat(ticks, "b")
    assert second.epoch > first.epoch
    assert (await seen(ticks)).holder == "b"


async def test_who_beats_keeps_it_with_one_epoch(ticks: TickStore, clock: ManualClock) -> None:
    first = await beat(ticks, "a")
    held = replace(FREE, epoch=first.epoch)
    for _ in range(10):
        clock.advance_ms(LEASE_MS - 1)
        assert (await beat(ticks, "a", held)).epoch == first.epoch
        assert not (await beat(ticks, "b")).epoch
    clock.advance_ms(3 * LEASE_MS)  # late, and nobody took it
    assert (await beat(ticks, "a", held)).epoch == first.epoch


async def test_who_wakes_up_late_has_lost_it_and_is_fenced(
    ticks: TickStore, clock: ManualClock, redis: Redis
) -> None:
    assert await fenced(redis, 0)
    first = await beat(ticks, "a")
    assert not await fenced(redis, first.epoch)
    clock.advance_ms(LEASE_MS)
    assert not await fenced(redis, first.epoch), "nobody else may have written"
    second = await beat(ticks, "b")
    assert await fenced(redis, first.epoch)
    assert not await fenced(redis, second.epoch)
    assert await fenced(redis, second.epoch, "another")
    late = replace(FREE, epoch=first.epoch, runs=3, last=LastRun(0, 5, 60_000))
    assert not (await beat(ticks, "a", late)).epoch
    assert (await seen(ticks)).runs == 0


async def test_who_leaves_makes_room_at_once(ticks: TickStore) -> None:
    first = await beat(ticks, "a")
    assert not (await beat(ticks, "a", replace(FREE, epoch=first.epoch, leave=True))).epoch
    assert (await seen(ticks)).holder is None
    assert (await beat(ticks, "b")).epoch > first.epoch
    await beat(ticks, "a", replace(FREE, epoch=first.epoch, leave=True))
    assert (await seen(ticks)).holder == "b", "what one no longer holds, one cannot leave"


async def test_an_epoch_is_given_once_even_when_redis_lost_the_last_ones(
    ticks: TickStore, clock: ManualClock, redis: Redis
) -> None:
    first = await beat(ticks, "a")
    await redis.flushall()  # as after a failover to a replica that had not heard of it
    clock.advance_ms(1)
    second = await beat(ticks, "b")
    assert second.epoch > first.epoch
    assert await fenced(redis, first.epoch)


async def test_a_clock_that_went_back_holds_nobody_out_for_longer_than_a_lease(
    ticks: TickStore, clock: ManualClock, redis: Redis
) -> None:
    first = await beat(ticks, "a")
    behind = TickStore(redis, ManualClock(clock.now_ms() - DAY_MS))
    second = await beat(behind, "b")
    assert second.epoch > first.epoch
    assert second.due_ms <= FREE.period_ms


async def test_a_word_twice_said_counts_once(ticks: TickStore, clock: ManualClock) -> None:
    first = await beat(ticks, "a")
    word = replace(
        FREE, epoch=first.epoch, runs=3, failures=1, last=LastRun(200, 50, 59_800, "ValueError: x")
    )
    for _ in range(2):
        await beat(ticks, "a", word)
    facts, now_ms = await seen(ticks), clock.now_ms()
    assert (facts.runs, facts.failures, facts.took_ms) == (3, 1, 50)
    assert (facts.ended_ms, facts.due_ms) == (now_ms - 200, now_ms + 59_800)
    assert (facts.error, facts.error_ms, facts.done_ms) == ("ValueError: x", now_ms - 200, None)
    await beat(ticks, "a", replace(word, runs=4, last=LastRun(0, 70, 60_000)))
    facts = await seen(ticks)
    assert (facts.runs, facts.failures, facts.took_ms, facts.done_ms) == (4, 1, 70, now_ms)
    assert facts.error == "ValueError: x", "the last one there was"
    await beat(ticks, "a", replace(word, leave=True, runs=4))
    second = await beat(ticks, "b")
    await beat(ticks, "b", replace(FREE, epoch=second.epoch, runs=2))
    assert (await seen(ticks)).runs == 6


async def test_who_did_not_hear_that_it_got_the_lease_has_it(ticks: TickStore) -> None:
    """Redis ran the script, and the reply was lost: the call is made again."""
    first = await beat(ticks, "a")
    assert await beat(ticks, "a") == first
    await beat(ticks, "a", replace(FREE, epoch=first.epoch, runs=1, last=LastRun(0, 5, 60_000)))
    assert (await seen(ticks)).runs == 1


async def test_what_was_done_is_not_due_for_the_next_and_what_was_not_is(
    ticks: TickStore, clock: ManualClock
) -> None:
    first = await beat(ticks, "a")
    done = replace(FREE, epoch=first.epoch, runs=1, last=LastRun(0, 5, 60_000))
    await beat(ticks, "a", done)
    clock.advance_ms(LEASE_MS)
    second = await beat(ticks, "b")
    assert second.due_ms == 60_000 - LEASE_MS
    running = replace(FREE, epoch=second.epoch, running_ms=100)
    await beat(ticks, "b", running)
    assert (await seen(ticks)).running_ms == clock.now_ms() - 100
    clock.advance_ms(LEASE_MS)
    assert (await seen(ticks)).running_ms is None, "who ran it, died"
    assert (await beat(ticks, "a")).due_ms == 0


async def test_a_shorter_period_is_not_waited_for(ticks: TickStore, clock: ManualClock) -> None:
    first = await beat(ticks, "a")
    await beat(ticks, "a", replace(FREE, epoch=first.epoch, runs=1, last=LastRun(0, 5, 60_000)))
    clock.advance_ms(LEASE_MS)
    assert (await beat(ticks, "b", Word(period_ms=1_000))).due_ms == 1_000


async def test_ticks_nobody_runs_are_forgotten(ticks: TickStore, clock: ManualClock) -> None:
    await ticks.beat("a", {"old": FREE, "t": FREE})
    clock.advance_ms(8 * DAY_MS)
    await beat(ticks, "b")
    assert (await seen(ticks)).name == "t"


async def test_the_key_is_json_that_a_person_can_read(ticks: TickStore, redis: Redis) -> None:
    lease = await beat(ticks, "a")
    found: Any = redis.hget(names.TICKS_KEY, "t")
    kept = json.loads(await found)
    assert (kept["owner"], kept["epoch"]) == ("a", lease.epoch)
