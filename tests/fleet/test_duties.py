"""The fleet's ticks over the real store and registry: one machine from order to archive."""

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, WorkerReport
from admission.instance import Command, Instance, Kind
from admission.store.fence import Fence
from admission.store.redis_store import RedisStore
from admission.store.tick_store import TickStore, Word
from scheduler.fleet.duties import duties
from scheduler.tick import Tick
from tests.fleet.cloud import FakeCloud
from tests.fleet.yard import ORDER


class Clockwork:
    """One scheduler, whose ticks are run by hand."""

    def __init__(self, redis: Redis, store: RedisStore, clock: ManualClock) -> None:
        self.store, self.clock = store, clock
        self.cloud = FakeCloud(clock.now_ms)
        self.ticks: list[Tick] = duties(store, [self.cloud], clock)
        self.leases = TickStore(redis, clock)

    async def run(self, seconds: int, beat: WorkerReport | None = None) -> Instance | None:
        """Ticks every 5 s; with ``beat`` a heartbeat before each."""
        words = {tick.key: Word(10_000) for tick in self.ticks}
        for _ in range(0, seconds, 5):
            self.clock.advance_ms(5_000)
            if beat:
                await self.store.report_worker(DEFAULT_POOL, "i-1", beat, token_hash="own")
            held = await self.leases.beat("me", words)
            for tick in self.ticks:
                epoch = held[tick.key].epoch
                assert epoch
                await tick.run(Fence(tick.key, epoch))
        return await self.store.fleet.instance("i-1")

    async def ask(self, kind: Kind, **more: object) -> None:
        name = f"{kind}-{self.clock.now_ms()}"
        command = Command(name, kind, self.clock.now_ms(), "ops", ("i-1",), **more)  # type: ignore[arg-type]
        assert await self.store.fleet.ask(command)


def well(in_flight: int) -> WorkerReport:
    return WorkerReport(True, None, ("m",), 2, in_flight, engine={"state": "serving"})


async def test_a_machine_goes_from_its_order_to_the_archive(
    redis: Redis, store: RedisStore, clock: ManualClock
) -> None:
    works = Clockwork(redis, store, clock)
    assert [tick.name for tick in works.ticks] == [
        "commands",
        "instances-cloud",
        "orphans-cloud",
        "offers-cloud",
    ]
    await works.ask(Kind.PROVISION, order=ORDER)
    it = await works.run(60)
    assert it
    assert (it.state, it.progress) == ("booting", 40)
    identity = {"url": "https://vm-0001.cloud:8001", "kind": "agent", "models": []}
    await store.register_worker(
        DEFAULT_POOL, "i-1", identity=identity, slots=2, token_hash="own", presented_hash=""
    )
    it = await works.run(10, WorkerReport(False, "fetches", (), 2, engine={"state": "fetching"}))
    assert it
    assert it.progress == 50
    it = await works.run(10, well(0))
    assert it
    assert (it.state, it.progress) == ("ready", 100)
    await works.ask(Kind.DRAIN, drain_s=600)
    await works.run(10, well(1))
    [worker] = await store.workers(DEFAULT_POOL)
    assert (worker.draining, worker.steered, worker.ready) == (True, True, False)
    await works.ask(Kind.RESUME)
    await works.run(10, well(1))
    [worker] = await store.workers(DEFAULT_POOL)
    assert (worker.draining, worker.steered, worker.ready) == (False, False, True)
    await works.ask(Kind.TERMINATE)
    await works.run(15, well(0))
    it = await works.run(400)
    assert it
    assert (it.state, it.error_code) == ("terminated", "")
    assert await store.workers(DEFAULT_POOL) == []
    assert works.cloud.alive() == []
    assert works.cloud.disks_left() == []
    await works.ask(Kind.ARCHIVE)
    it = await works.run(5)
    assert it
    assert it.state == "archived"
    names = [entry.event.name for entry in await store.fleet.history()]
    for name in ("request", "become_ready", "drain", "resume", "terminate", "end", "archive"):
        assert name in names


async def test_what_is_offered_is_told_and_stays_when_there_is_no_answer(
    redis: Redis, store: RedisStore, clock: ManualClock
) -> None:
    works = Clockwork(redis, store, clock)
    await works.run(5)
    told = (await store.fleet.offers())["cloud"]
    ending = works.cloud.ending
    assert list(told.offers) == [replace(o, ending=ending) for o in await works.cloud.offers()]
    works.cloud.fault = lambda call: "down"
    await works.run(5)
    assert (await store.fleet.offers())["cloud"] == told


async def test_two_schedulers_do_it_once(
    redis: Redis, store: RedisStore, clock: ManualClock
) -> None:
    """The one without the lease is given no epoch, and does nothing."""
    works = Clockwork(redis, store, clock)
    await works.ask(Kind.PROVISION, order=ORDER)
    await works.run(5)
    other = await TickStore(redis, clock).beat("other", {"instances-cloud": Word(10_000)})
    assert not other["instances-cloud"].epoch
    assert len(works.cloud.vms) == 1


@pytest.mark.parametrize("end", [True, False])
async def test_whether_orphans_are_ended_is_a_setting(
    redis: Redis, store: RedisStore, clock: ManualClock, end: bool
) -> None:
    works = Clockwork(redis, store, clock)
    works.ticks = duties(store, [works.cloud], clock, end_orphans=end)
    vm = works.cloud.make("i-lost", ORDER)
    await works.run(900)
    assert works.cloud.runs(vm) == (not end)
