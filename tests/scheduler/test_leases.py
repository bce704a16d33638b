"""Who holds a tick's lease runs it, is bounded by its limit and by the lease, and tells of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from admission.clock import ManualClock
from admission.errors import StoreUnavailable
from admission.store.fence import Fence
from admission.store.redis_store import RedisStore
from admission.store.tick_store import LEASE_MS, TickFacts
from scheduler import clockwork, leases
from scheduler.clockwork import Clockwork
from scheduler.leases import Leases
from scheduler.tick import Tick
from tests.api.calls import until

PERIOD_S = 60


class Duty:
    """What a tick does: as a test wants it."""

    def __init__(self) -> None:
        self.fences: list[Fence] = []
        self.more_ms: int | None = None
        self.error: BaseException | None = None
        self.hangs = False
        self.tick = Tick("t", "for a test", PERIOD_S, 5, self.run)

    async def run(self, fence: Fence) -> int | None:
        self.fences.append(fence)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        return self.more_ms


@pytest.fixture
def duty() -> Duty:
    return Duty()


@pytest.fixture
def own(store: RedisStore, duty: Duty) -> Leases:
    return Leases(store.ticks, [duty.tick])


@pytest.fixture
def other(store: RedisStore, duty: Duty) -> Leases:
    return Leases(store.ticks, [duty.tick])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.03)


async def facts(store: RedisStore) -> TickFacts:
    [found] = await store.ticks.all()
    return found


async def test_only_the_holder_runs_it_and_is_given_its_epoch(
    store: RedisStore, duty: Duty, own: Leases, other: Leases
) -> None:
    assert await own.run(duty.tick) is None, "before the first beat"
    await own.beat()
    await other.beat()
    assert await other.run(duty.tick) is None
    assert await own.run(duty.tick)
    assert duty.fences == [Fence("t", (await facts(store)).epoch)]
    assert (await facts(store)).holder == own.owner


async def test_a_paused_holder_that_wakes_up_late_runs_nothing(
    duty: Duty, own: Leases, other: Leases, clock: ManualClock
) -> None:
    await own.beat()
    clock.advance_ms(LEASE_MS)
    assert await own.run(duty.tick) is None, "somebody may have it by now"
    await other.beat()
    await own.beat()
    assert await own.run(duty.tick) is None
    assert await other.run(duty.tick)
    assert len(duty.fences) == 1


async def test_what_runs_under_a_lease_that_is_lost_is_ended(
    duty: Duty, own: Leases, other: Leases, clock: ManualClock, quick: None
) -> None:
    duty.hangs = True
    await own.beat()
    running = asyncio.create_task(own.run(duty.tick))
    await asyncio.sleep(0)
    clock.advance_ms(LEASE_MS)
    await other.beat()
    await own.beat()
    run = await running
    assert run
    assert run.error == "its lease was lost"
    assert not other.due_in_ms(duty.tick)


async def test_a_tick_that_hangs_is_ended_at_its_limit(
    store: RedisStore, duty: Duty, own: Leases, caplog: pytest.LogCaptureFixture
) -> None:
    duty.hangs = True
    await own.beat()
    run = await own.run(duty.tick, limit_s=0.01)
    assert run
    assert run.error == "not done within 0.01 s"
    assert "tick_failed tick=t" in caplog.text
    await own.beat()
    assert (await facts(store)).error == run.error


async def test_one_that_fails_here_is_left_so_that_another_may_try(
    store: RedisStore, duty: Duty, own: Leases, other: Leases, clock: ManualClock
) -> None:
    await own.beat()
    duty.error = ValueError("of http://ada:hidden@host/?key=hidden\n" + "x" * 300)
    run = await own.run(duty.tick)
    assert run
    assert run.more_ms == 10_000
    assert await own.run(duty.tick) is None
    await own.beat()
    found = await facts(store)
    assert (found.holder, found.runs, found.failures) == (None, 1, 1)
    assert found.due_ms == clock.now_ms() + 10_000
    assert found.error
    assert found.error.startswith("ValueError: of http://…host/?key…")
    assert len(found.error) < 250
    await other.beat()
    duty.error = None
    assert await other.run(duty.tick)
    await other.beat()
    found = await facts(store)
    assert (found.runs, found.failures, found.done_ms) == (2, 1, clock.now_ms())


class Odd(BaseException):
    """What no library should raise, and one may."""


@pytest.mark.parametrize("error", [asyncio.CancelledError(), Odd("odd")])
async def test_whatever_it_raises_is_told_and_counted(
    store: RedisStore, duty: Duty, own: Leases, error: BaseException
) -> None:
    """A cancellation that nobody asked for, too: of a future that somebody else cancelled."""
    duty.error = error
    await own.beat()
    run = await own.run(duty.tick)
    assert run
    assert run.error
    await own.beat()
    found = await facts(store)
    assert (found.failures, found.running_ms, found.error) == (1, None, run.error)


async def test_one_that_is_cancelled_from_outside_ends(duty: Duty, own: Leases) -> None:
    duty.hangs = True
    await own.beat()
    running = asyncio.create_task(own.run(duty.tick))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_words_that_are_no_text_are_told_all_the_same(
    store: RedisStore, duty: Duty, own: Leases
) -> None:
    """As of a file whose name is not UTF-8. Redis reads no half of a surrogate pair, and would
    refuse every beat that has one."""
    duty.error = ValueError("no such file: model-\udcff")
    await own.beat()
    await own.run(duty.tick)
    await own.beat()
    assert (await facts(store)).error == "ValueError: no such file: model-?"


async def test_one_that_does_not_heed_its_limit_holds_up_no_other_lease(
    store: RedisStore, clock: ManualClock
) -> None:
    """It is past its limit and cleans up for long, and its lease is lost meanwhile."""
    told, let_go = asyncio.Event(), asyncio.Event()

    async def stubborn(_: Fence) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.set()
            await let_go.wait()

    async def quiet(_: Fence) -> None:
        pass

    ticks = [Tick("a", "", PERIOD_S, 0.01, stubborn), Tick("b", "", PERIOD_S, 5, quiet)]
    own, other = Leases(store.ticks, ticks), Leases(store.ticks, ticks[:1])
    await own.beat()
    running = asyncio.create_task(own.run(ticks[0]))
    await told.wait()
    clock.advance_ms(LEASE_MS)
    await other.beat()
    await own.beat()
    assert own.epoch(ticks[1])
    assert own.epoch(ticks[0]) is None
    let_go.set()
    run = await running
    assert run
    assert run.error == "not done within 0.01 s"


async def test_redis_away_is_no_reason_to_leave(duty: Duty, own: Leases) -> None:
    await own.beat()
    duty.error = StoreUnavailable()
    run = await own.run(duty.tick)
    assert run
    assert run.error
    assert own.epoch(duty.tick)


@pytest.mark.parametrize(
    ("more_ms", "due_ms"), [(None, 60_000), (0, 0), (70, 70), (99_999, 60_000)]
)
async def test_it_is_due_after_its_period_or_sooner(
    store: RedisStore, duty: Duty, own: Leases, clock: ManualClock, more_ms: int, due_ms: int
) -> None:
    duty.more_ms = more_ms
    await own.beat()
    await own.run(duty.tick)
    assert own.due_in_ms(duty.tick) == due_ms
    await own.beat()
    assert (await facts(store)).due_ms == clock.now_ms() + due_ms


async def test_release_makes_room_at_once_and_keeps_the_record(
    store: RedisStore, duty: Duty, own: Leases, other: Leases
) -> None:
    await own.beat()
    await own.run(duty.tick)
    await own.release()
    assert (await facts(store)).runs == 1
    await other.beat()
    assert other.epoch(duty.tick)
    assert other.due_in_ms(duty.tick) == PERIOD_S * 1000


async def test_a_follower_looks_when_the_lease_runs_out(
    duty: Duty, own: Leases, other: Leases, clock: ManualClock
) -> None:
    """Not up to a beat later: a killed leader costs one lease and no more."""
    beats: list[float] = []

    def note() -> None:
        beats.append(asyncio.get_running_loop().time())

    await own.beat()
    clock.advance_ms(LEASE_MS - 50)
    keeping = asyncio.create_task(other.keep(note))
    await until(_later(lambda: len(beats) > 1))
    keeping.cancel()
    assert beats[1] - beats[0] < 0.5


def _later(is_so: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return is_so()

    return asked


async def test_a_seldom_tick_is_told_at_once(store: RedisStore, duty: Duty, own: Leases) -> None:
    """And not up to a second later, when who ran it may be dead, and it would be done again."""
    work = Clockwork(own, [duty.tick])
    async with work.running():

        async def told() -> bool:
            found = await store.ticks.all()
            return bool(found and found[0].runs)

        async with asyncio.timeout(0.8):
            await until(told)


async def test_a_clockwork_takes_over_what_another_left_when_it_is_due(
    store: RedisStore, own: Leases, other: Leases, duty: Duty, clock: ManualClock, quick: None
) -> None:
    async with AsyncExitStack() as leading:
        await leading.enter_async_context(Clockwork(own, [duty.tick]).running())
        await until(_later(lambda: len(duty.fences) == 1))
        async with Clockwork(other, [duty.tick]).running():
            await leading.aclose()
            await until(_later(lambda: bool(other.epoch(duty.tick))))
            await asyncio.sleep(0.1)  # it is not done a second time; no event tells of that
            assert len(duty.fences) == 1
            assert (await facts(store)).runs == 1


@pytest.fixture
async def both(store: RedisStore, quick: None) -> AsyncIterator[None]:
    async with clockwork.running(store, []), clockwork.running(store, []):
        yield


async def test_two_clockworks_have_one_leader(
    store: RedisStore, both: None, caplog: pytest.LogCaptureFixture
) -> None:
    async def led() -> bool:
        return len(await store.ticks.all()) == 4

    await until(led)
    found = await store.ticks.all()
    assert [each.name for each in found] == ["agents", "announce", "expire", "workers"]
    assert len({each.holder for each in found}) == 1
    await asyncio.sleep(0.1)  # some beats of who follows
    assert not caplog.records
