"""The autoscaler's tick on a real Redis: decisions become commands once, whoever dies when."""

from typing import Any

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, PoolPolicy, Ticket, WorkerReport
from admission.errors import StoreUnavailable
from admission.instance import Command, Event, Instance, Kind, Offer, Order, State
from admission.store import names
from admission.store.fence import Fence, Fenced
from admission.store.redis_store import RedisStore
from scheduler.autoscale import Decision, FleetSpec, Memory
from scheduler.autoscale.decision import Act
from scheduler.fleet.commands import Commands
from scheduler.scaling import Kept, Scaling, places_of, read_kept, rooms_of
from tests.fleet.words import machine, taken

OFFER = Offer("process", "", "on-demand", 0.5, "EUR", slots=2)
PROVIDERS = {"here": 3}


class Pool:
    """A pool that follows its queue, its autoscaler, and who takes the commands."""

    def __init__(self, redis: Redis, clock: ManualClock, **policy_: Any) -> None:
        self.redis, self.clock = redis, clock
        policy = PoolPolicy(capacity="auto", sessions_per_slot=2, needs_worker=True, **policy_)
        self.store = RedisStore(redis, clock, policy)
        self.fence = Fence("", 0)

    def scaling(self, **spec: Any) -> Scaling:
        knobs = {"workers_max": 2, "boot_ms": 20_000, "idle_load": None, **spec}
        return Scaling(self.store, FleetSpec(**knobs), PROVIDERS)

    async def begin(self) -> "Pool":
        self.fence = await taken(self.redis, self.clock, "one")
        await self.store.fleet.offer(self.fence, "here", [OFFER])
        await self.store.configure(DEFAULT_POOL, {"capacity": "auto"})
        return self

    async def join(self, *users: str) -> None:
        for user in users:
            await self.store.join(DEFAULT_POOL, user, ticket=f"t-{user}")

    async def waiting(self) -> list[Command]:
        return [command for _, command in await self.store.fleet.commands()]

    async def take(self) -> None:
        await Commands(self.store.fleet, ["here"]).tick(self.fence)

    async def instances(self) -> list[Instance]:
        return await self.store.fleet.instances()

    async def becomes(self, one: Instance, state: State, **changes: Any) -> Instance:
        """As the reconciler would write it."""
        after = replace(
            one, state=state, version=one.version + 1, since_ms=self.clock.now_ms(), **changes
        )
        event = Event(one.id, self.clock.now_ms(), after.version, "moved")
        assert await self.store.fleet.write(self.fence, after, one.version, [event])
        return after

    async def worker(self, name: str, in_flight: int = 0) -> None:
        identity = {"url": "http://127.0.0.1:9001", "kind": "agent", "models": []}
        await self.store.register_worker(
            DEFAULT_POOL, name, identity=identity, slots=2, token_hash="own", presented_hash="own"
        )
        await self.beat(name, in_flight)

    async def beat(self, name: str, in_flight: int = 0) -> None:
        said = WorkerReport(True, None, ("m",), 2, in_flight)
        await self.store.report_worker(DEFAULT_POOL, name, said, token_hash="own")

    async def pass_s(self, scaling: Scaling, seconds: int, *workers: str) -> None:
        """Time passes in the pace of the tick, while these workers report."""
        for _ in range(0, seconds, 5):
            self.clock.advance_ms(5_000)
            self.fence = await taken(self.redis, self.clock, "one")
            for worker in workers:
                await self.beat(worker)
            await scaling.run(self.fence)


@pytest.fixture
async def pool(redis: Redis, clock: ManualClock) -> Pool:
    return await Pool(redis, clock).begin()


async def test_the_first_who_comes_gets_a_machine_and_only_one(pool: Pool) -> None:
    scaling = pool.scaling()
    await pool.join("ada")
    await scaling.run(pool.fence)
    [command] = await pool.waiting()
    assert (command.kind, command.asked_by, command.id) == (
        Kind.PROVISION,
        "autoscaler",
        f"provision-{command.instances[0]}",
    )
    order = command.order
    assert order is not None
    assert (order.provider, order.type, order.pool) == ("here", "process", DEFAULT_POOL)
    assert (order.price_per_hour, order.currency) == (0.5, "EUR")
    assert command.reason
    seen = await pool.store.status(DEFAULT_POOL, "ada")
    assert isinstance(seen, Ticket)
    assert seen.wait_ms == 20_000  # a machine's boot: there is none yet
    await pool.pass_s(scaling, 60)  # nobody takes it: it is not asked for a second time
    assert len(await pool.waiting()) == 1
    await pool.take()
    await pool.pass_s(scaling, 15)
    assert [one.state for one in await pool.instances()] == [State.PROVISIONING]
    assert not await pool.waiting()


async def test_what_is_too_much_for_one_tick_is_asked_for_by_the_next_ones(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    drains = tuple(Act(f"i-{number}", "of a large fleet " * 20, 0) for number in range(2_000))
    decision = Decision(reason="all of them", drains=drains)
    monkeypatch.setattr("scheduler.scaling.decide", lambda *_: (decision, Memory()))
    await pool.scaling().run(pool.fence)
    assert 50 <= len(await pool.store.fleet.commands(1_000)) < 1_000


async def test_nobody_there_no_machine(pool: Pool) -> None:
    await pool.scaling().run(pool.fence)
    assert not await pool.waiting()


async def test_a_pool_of_a_fixed_capacity_is_left_alone_and_says_so(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    await pool.store.configure(DEFAULT_POOL, {"capacity": 3})
    await pool.join("ada")
    scaling = pool.scaling(workers_min=1)
    for _ in range(3):
        await scaling.run(pool.fence)
    assert not await pool.waiting()
    assert caplog.text.count("fixed number") == 1


async def test_who_was_fenced_off_asks_for_nothing(pool: Pool, clock: ManualClock) -> None:
    await pool.join("ada")
    clock.advance_ms(60_000)
    await taken(pool.redis, clock, "another")
    with pytest.raises(Fenced):
        await pool.scaling().run(pool.fence)
    assert not await pool.waiting()


async def test_who_dies_after_deciding_leaves_it_to_the_next(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Command) -> bool:
        raise StoreUnavailable

    await pool.join("ada")
    with monkeypatch.context() as patch:
        patch.setattr(pool.store.fleet, "ask", away)
        with pytest.raises(StoreUnavailable):
            await pool.scaling().run(pool.fence)
    assert not await pool.waiting()
    await pool.pass_s(pool.scaling(), 5)
    first = await pool.waiting()
    assert len(first) == 1
    await pool.pass_s(pool.scaling(), 20)
    assert await pool.waiting() == first


async def test_a_command_that_was_taken_is_not_asked_for_again(pool: Pool) -> None:
    scaling = pool.scaling()
    await pool.join("ada")
    await scaling.run(pool.fence)
    await pool.take()  # between the decision and the next tick, which asks once more
    await pool.pass_s(scaling, 5)
    assert not await pool.waiting()
    assert len(await pool.instances()) == 1


async def _grown(pool: Pool, scaling: Scaling) -> list[Instance]:
    """Two ready workers, of which nobody uses any."""
    await pool.join("ada")
    await scaling.run(pool.fence)
    await pool.take()
    await pool.pass_s(scaling, 20)  # they boot
    for one in await pool.instances():
        await pool.becomes(one, State.READY, ready_ms=pool.clock.now_ms())
        await pool.worker(one.id)
    return await pool.instances()


async def test_a_surplus_is_drained_with_a_deadline(pool: Pool) -> None:
    scaling = pool.scaling(workers_min=2, surplus_after_ms=30_000, idle_after_ms=30_000)
    both = await _grown(pool, scaling)
    assert len(both) == 2
    fewer = pool.scaling(
        workers_min=0, surplus_after_ms=30_000, idle_after_ms=30_000, drain_ms=40_000
    )
    await pool.pass_s(fewer, 60, *(one.id for one in both))
    drains = await pool.waiting()
    assert {command.kind for command in drains} == {Kind.DRAIN}
    assert drains[0].drain_s == 40
    await pool.take()
    states = sorted(one.state for one in await pool.instances())
    assert states == [State.DRAINING, State.READY]


@pytest.mark.parametrize("by_admin", [False, True])
async def test_its_own_drain_is_taken_back_and_nobody_elses(pool: Pool, by_admin: bool) -> None:
    fewer = pool.scaling(
        workers_min=1, surplus_after_ms=30_000, idle_after_ms=30_000, drain_ms=600_000
    )
    both = await _grown(pool, pool.scaling(workers_min=2))
    ids = [one.id for one in both]
    if by_admin:
        said = Command("c-1", Kind.DRAIN, pool.clock.now_ms(), "ops", (ids[0],), drain_s=600)
        await pool.store.fleet.ask(said)
    else:
        await pool.pass_s(fewer, 60, *ids)
    await pool.take()
    assert [one.state for one in await pool.instances()].count(State.DRAINING) == 1
    await pool.pass_s(pool.scaling(workers_min=2, workers_max=3), 10, *ids)
    kinds = {command.kind for command in await pool.waiting()}
    assert kinds == ({Kind.PROVISION} if by_admin else {Kind.RESUME})


async def test_what_cannot_be_read_changes_nothing(pool: Pool) -> None:
    await pool.join("ada")
    await pool.redis.hset(names.fleet_key("instances"), "x", b"broken")
    await pool.scaling().run(pool.fence)
    assert not await pool.waiting()


def test_a_memory_of_another_version_is_an_empty_one() -> None:
    assert read_kept(b'{"memory": 3}').memory == b""
    assert read_kept(None).commands == ()


async def test_a_provider_has_room_for_so_many_and_offers_from_some_time(pool: Pool) -> None:
    offers = [replace(OFFER, type=name) for name in ("a", "b")]
    await pool.store.fleet.offer(pool.fence, "here", offers)
    known, metrics = await pool.store.fleet.offers(), await pool.store.metrics(DEFAULT_POOL)
    one = machine("i-1", order=Order("here", type="a"), state=State.READY)
    other = machine("i-2", order=Order("here", "another", type="b"), state=State.BOOTING)
    rooms = rooms_of({"here": 3, "there": None}, [one, other, machine(order=Order("there"))])
    assert rooms == {"here": 1, "there": None}
    places = list(places_of(known, ["here", "there"], metrics))
    assert [(place.type, place.slots) for place in places] == [("a", 4), ("b", 4)]
    assert {place.told_ms for place in places} == {pool.clock.now_ms()}


async def test_nothing_is_decided_while_its_commands_wait(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    both = await _grown(pool, pool.scaling(workers_min=2))
    fewer = pool.scaling(workers_min=1, surplus_after_ms=30_000, idle_after_ms=30_000)
    await pool.pass_s(fewer, 150, *(one.id for one in both))  # nobody takes commands
    assert len(await pool.waiting()) == 1
    assert caplog.text.count("nobody takes what was asked") == 1
    await pool.take()
    await pool.pass_s(pool.scaling(workers_min=2), 10, *(one.id for one in both))
    assert [command.kind for command in await pool.waiting()] == [Kind.RESUME]  # it is its own


async def test_what_cannot_be_had_is_said_once(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    await pool.store.fleet.offer(pool.fence, "here", [])
    await pool.join("ada")
    await pool.pass_s(pool.scaling(), 30)
    assert caplog.text.count("there is no place to order at") == 1


async def test_what_an_admin_ordered_is_never_drained_or_ended(pool: Pool) -> None:
    order = Order("here", DEFAULT_POOL, "process")
    said = Command("c-1", Kind.PROVISION, pool.clock.now_ms(), "ops", ("a", "b"), order=order)
    await pool.store.fleet.ask(said)
    await pool.take()
    booting, ready = await pool.instances()
    await pool.becomes(ready, State.READY, ready_ms=pool.clock.now_ms())
    await pool.worker(ready.id)
    fewer = pool.scaling(surplus_after_ms=30_000, idle_after_ms=30_000, zero_after_ms=30_000)
    await pool.pass_s(fewer, 120, ready.id)
    assert not await pool.waiting()
    assert [one.state for one in await pool.instances()] == [booting.state, State.READY]


async def test_a_machine_whose_agent_has_another_name_is_one(pool: Pool) -> None:
    scaling = pool.scaling(workers_min=2)
    await pool.join("ada")
    await scaling.run(pool.fence)
    await pool.take()
    for number, one in enumerate(await pool.instances()):
        ready_ms = pool.clock.now_ms()
        await pool.becomes(one, State.READY, ready_ms=ready_ms, worker_id=f"rack-{number}")
        await pool.worker(f"rack-{number}")
    metrics, mine = await pool.store.metrics(DEFAULT_POOL), await pool.instances()
    seen = await scaling._seen(metrics, mine, [], {}, Kept())
    assert [(one.slots, one.ours, one.heard_ms is not None) for one in seen.members or ()] == [
        (4, True, True),
        (4, True, True),
    ]


# --- what is said of it --------------------------------------------------------------------------


async def _told(pool: Pool) -> list[tuple[str, Any]]:
    """The news of the pool: their names, and the code of what is in the way."""
    found = [recorded.event for recorded in await pool.store.fleet.history()]
    return [
        (event.name, event.detail["hold"] or event.detail["short"])
        for event in found
        if not event.instance_id
    ]


async def test_the_last_decision_is_kept_with_its_numbers(pool: Pool) -> None:
    scaling = pool.scaling()
    await pool.join("ada")
    await scaling.run(pool.fence)
    decided = await pool.store.fleet.decision(DEFAULT_POOL)
    assert decided is not None
    assert (decided.at_ms, decided.acted_ms) == (pool.clock.now_ms(), pool.clock.now_ms())
    assert decided.reason.startswith("1 more: ")
    assert decided.acted == decided.reason
    assert decided.cold_start_ms == 20_000
    numbers = decided.numbers
    assert (numbers["waiting"], numbers["workers_most"], numbers["wait_target_ms"]) == (
        1,
        2,
        60_000,
    )
    assert await _told(pool) == [("scale", None)]
    await pool.take()
    await pool.pass_s(scaling, 10)
    decided = await pool.store.fleet.decision(DEFAULT_POOL)
    assert decided is not None
    assert (decided.cold_start_ms, decided.numbers["workers_loading"]) == (10_000, 1)
    assert decided.reason.startswith("as it is: ")


async def test_a_pool_of_requests_aims_at_less(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await pool.scaling(wait_target_ms=7_000).run(pool.fence)
    assert "kind=session wait_target_s=7.0 held_s=1200.0" in caplog.text
    await pool.store.configure(DEFAULT_POOL, {"kind": "request"})
    await pool.scaling().run(pool.fence)
    assert "kind=request wait_target_s=5.0 held_s=30.0" in caplog.text
    decided = await pool.store.fleet.decision(DEFAULT_POOL)
    assert decided is not None
    assert decided.numbers["wait_target_ms"] == 5_000


async def test_a_hold_is_told_once_over_all_schedulers_and_says_since_when(pool: Pool) -> None:
    await pool.store.configure(DEFAULT_POOL, {"capacity": 3})
    began_ms = pool.clock.now_ms() + 5_000
    await pool.pass_s(pool.scaling(), 60)
    await pool.pass_s(pool.scaling(), 60)
    decided = await pool.store.fleet.decision(DEFAULT_POOL)
    assert decided is not None
    assert decided.hold is not None
    assert (decided.hold.code, decided.hold.since_ms) == ("capacity_fixed", began_ms)
    assert await _told(pool) == [("hold", "capacity_fixed")]
    await pool.store.configure(DEFAULT_POOL, {"capacity": "auto"})
    await pool.pass_s(pool.scaling(), 5)
    assert await _told(pool) == [("hold", "capacity_fixed"), ("go_on", None)]


async def test_offers_that_nobody_renewed_are_not_ordered_from(pool: Pool) -> None:
    pool.clock.advance_ms(15 * 60_000 + 1)
    pool.fence = await taken(pool.redis, pool.clock, "one")
    await pool.join("ada")
    scaling = pool.scaling()
    await scaling.run(pool.fence)
    assert not await pool.waiting()
    decided = await pool.store.fleet.decision(DEFAULT_POOL)
    assert decided is not None
    assert decided.short is not None
    assert (decided.short.code, decided.short.reason) == (
        "offers_old",
        "the offers of here are 15 minutes old",
    )
    assert await _told(pool) == [("short", "offers_old")]
    await pool.store.fleet.offer(pool.fence, "here", [OFFER])
    await pool.pass_s(scaling, 5)
    assert len(await pool.waiting()) == 1


async def test_no_machine_is_ordered_whose_slots_nobody_could_use(
    redis: Redis, clock: ManualClock
) -> None:
    """As with MAX_ACTIVE_USERS=3: a machine has four."""
    pool = await Pool(redis, clock, max_active=3).begin()
    await pool.join(*(f"user-{number}" for number in range(9)))
    scaling = pool.scaling()
    await scaling.run(pool.fence)
    await pool.take()
    await pool.pass_s(scaling, 60)
    assert len(await pool.instances()) == 1
    decided = await pool.store.fleet.decision(DEFAULT_POOL)
    assert decided is not None
    assert decided.short is not None
    assert decided.short.code == "slots_most"
    assert "MAX_ACTIVE_USERS" in decided.reason
    assert (decided.numbers["slots_most"], decided.numbers["supply_slots"]) == (3, 4)


async def test_a_provider_that_is_full_is_asked_for_no_more(pool: Pool) -> None:
    scaling = pool.scaling(workers_min=5, workers_max=9)
    await scaling.run(pool.fence)
    assert len(await pool.waiting()) == PROVIDERS["here"]
    decided = await pool.store.fleet.decision(DEFAULT_POOL)
    assert decided is not None
    assert decided.short is not None
    assert (decided.short.code, decided.short.reason) == ("quota", "here may have no more machines")
    assert decided.reason.startswith("3 more: ")


async def test_a_pool_that_nobody_made_gets_no_machines(pool: Pool) -> None:
    scaling = pool.scaling(pool="nowhere", workers_min=1)
    await scaling.run(pool.fence)
    assert not await pool.waiting()
    decided = await pool.store.fleet.decision("nowhere")
    assert decided is not None
    assert decided.hold is not None
    assert decided.hold.code == "pool_unknown"
    await pool.store.configure("nowhere", {"capacity": "auto"})
    await pool.pass_s(scaling, 5)
    assert len(await pool.waiting()) == 1
