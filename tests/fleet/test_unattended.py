"""Machines that nobody looks after are told of, and schedulers that have different files."""

from typing import Any

import pytest
from redis.asyncio import Redis

from admission.attendance import AUTOSCALER, Attendance, pool_tick, provider_tick
from admission.clock import ManualClock
from admission.instance import Instance, Offer, Order, State
from admission.store.fence import Fence
from admission.store.redis_store import RedisStore
from admission.store.tick_store import LEASE_MS, TickStore, Word
from scheduler.fleet.same_file import SameFile
from scheduler.fleet.unattended import AGAIN_MS, OFFERED_MS, Unattended
from tests.fleet.words import TICK, happened, machine, names_of

WANTED: dict[str, Any] = {
    "state": State.READY,
    "order": Order("here"),
    "asked_by": AUTOSCALER,
}


class Scheduler:
    """One that has these ticks; its fence is that of the test's own."""

    def __init__(self, redis: Redis, clock: ManualClock, name: str, *ticks: str) -> None:
        self._store, self._name, self._ticks = TickStore(redis, clock), name, ticks

    async def beat(self) -> Fence:
        leases = await self._store.beat(self._name, {t: Word(1000) for t in (TICK, *self._ticks)})
        return Fence(TICK, leases[TICK].epoch)

    async def stop(self) -> None:
        await self._store.beat(self._name, {t: Word(1000, leave=True) for t in self._ticks})


@pytest.fixture
def whole(redis: Redis, clock: ManualClock) -> Scheduler:
    """Of a file with one provider and one pool."""
    return Scheduler(redis, clock, "one", provider_tick("here"), pool_tick("default"))


async def keep(store: RedisStore, fence: Fence, name: str, **facts: Any) -> Instance:
    one = machine(name, **{**WANTED, **facts})
    await store.fleet.write(fence, one, 0, [happened(one)])
    return one


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, ""),
        ({"order": Order("gone")}, "no scheduler has its provider gone"),
        ({"order": Order("gone"), "state": State.TERMINATING}, "its provider gone"),
        ({"order": Order("gone"), "state": State.TERMINATED}, ""),
        ({"order": Order("here", pool="taken-out")}, "no scheduler follows its pool taken-out"),
        ({"order": Order("here", pool="taken-out"), "asked_by": "admin"}, ""),
        ({"order": Order("here", pool="taken-out"), "state": State.DRAINING}, ""),
        (
            {"order": Order("here", pool="closed"), "asked_by": "admin", "state": State.BOOTING},
            "there is no pool closed any more",
        ),
    ],
)
async def test_who_looks_after_it(
    store: RedisStore, whole: Scheduler, facts: dict[str, Any], words: str
) -> None:
    await whole.beat()
    await store.configure("taken-out", {})
    why = (await Attendance.of(store)).lack(machine("i", **{**WANTED, **facts}))
    assert words in why
    assert bool(words) == bool(why)


async def test_of_two_schedulers_one_with_the_right_file_is_enough(
    redis: Redis, store: RedisStore, clock: ManualClock, whole: Scheduler
) -> None:
    """As in a rollout: what the new file does not have, the old scheduler does."""
    other = Scheduler(redis, clock, "two", provider_tick("elsewhere"))
    one = machine(state=State.READY, order=Order("here"), asked_by=AUTOSCALER)
    await whole.beat()
    await other.beat()
    assert not (await Attendance.of(store)).lack(one)
    clock.advance_ms(LEASE_MS + 1)  # it is started anew
    await other.beat()
    assert not (await Attendance.of(store)).lack(one)
    clock.advance_ms(20_000)
    await other.beat()
    assert "its provider here" in (await Attendance.of(store)).lack(one)


async def test_it_is_told_at_once_each_hour_and_when_it_changes(
    store: RedisStore,
    clock: ManualClock,
    whole: Scheduler,
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fence = await whole.beat()
    await keep(store, fence, "i-1")
    await keep(store, fence, "i-2", state=State.TERMINATED)
    first, second = Unattended(store), Unattended(store)
    await first.run(fence)
    assert not caplog.text
    clock.advance_ms(20_000)
    slim = Scheduler(redis, clock, "two", provider_tick("here"))  # its file has no pool
    fence = await slim.beat()
    await first.run(fence)
    clock.advance_ms(4_000)
    await first.run(fence)
    await second.run(fence)  # another scheduler's: the log is its own, the history is not
    said = "instance_unattended instance_id=i-1"
    assert caplog.text.count(said) == 2
    assert (await names_of(store.fleet)).count("unattended") == 1
    clock.advance_ms(AGAIN_MS)
    fence = await slim.beat()
    await first.run(fence)
    assert caplog.text.count(said) == 3
    clock.advance_ms(20_000)  # now nobody has its provider either
    await first.run(fence)
    assert caplog.text.count(said) == 4
    assert (await names_of(store.fleet)).count("unattended") == 2
    assert "i-2" not in caplog.text
    assert await store.fleet.instance("i-1") == await keep_unchanged(store)


async def keep_unchanged(store: RedisStore) -> Instance:
    [one] = [one for one in await store.fleet.instances() if one.id == "i-1"]
    assert (one.state, one.version) == (State.READY, 1)  # nobody ends it
    return one


async def test_offers_that_nobody_makes_any_more_are_taken_back_in_time(
    store: RedisStore, clock: ManualClock, whole: Scheduler
) -> None:
    fence = await whole.beat()
    for name in ("here", "never"):
        await store.fleet.offer(fence, name, [Offer("t", "", "on-demand", None)])
    unattended = Unattended(store)
    await unattended.run(fence)
    assert list(await store.fleet.offers()) == ["here"]
    clock.advance_ms(60_000)  # its scheduler is started anew: it publishes them again in 300 s
    await unattended.run(fence)
    assert list(await store.fleet.offers()) == ["here"]
    clock.advance_ms(OFFERED_MS)
    await unattended.run(fence)
    assert not await store.fleet.offers()


async def test_two_files_are_told_by_each_and_kept_once(
    redis: Redis, store: RedisStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = SameFile(store, "aaaa"), SameFile(store, "bbbb")
    old = Scheduler(redis, clock, "old", one.tick.key)
    new = Scheduler(redis, clock, "new", two.tick.key)
    fence = await old.beat()
    await one.run(fence)
    assert not caplog.text
    await new.beat()
    for _ in range(2):
        await one.run(fence)
        clock.advance_ms(10)
        await two.run(fence)
    words = "each does what its own says: old has aaaa, new has bbbb"
    assert caplog.text.count(words) == 2
    clock.advance_ms(AGAIN_MS)
    fence = await old.beat()
    await new.beat()
    await one.run(fence)
    assert caplog.text.count(words) == 3
    assert await names_of(store.fleet) == ["files_differ"]
    clock.advance_ms(LEASE_MS + 1)
    caplog.set_level("INFO")
    fence = await old.beat()
    await one.run(fence)
    assert "all schedulers have the same" in caplog.text
    assert await names_of(store.fleet) == ["files_differ", "files_agree"]
