"""A fleet's life on a clock of its own: orders, drains, ends, and everything that can go wrong.

Two schedulers share one store and one cloud. First there is trouble; then the trouble ends, and
everything has to come to rest.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from admission.clock import ManualClock
from admission.errors import StoreUnavailable
from admission.instance import Command, Kind, Order
from admission.store.fence import Fence, Fenced
from scheduler.fleet.commands import Commands
from scheduler.fleet.limits import Limits
from scheduler.fleet.orphans import Sweep
from scheduler.fleet.reconcile import Reconciler
from tests.fleet.agents import Agent, Agents, PlainWorkers
from tests.fleet.cloud import NEVER_MS, FakeCloud, Times, Vm
from tests.fleet.plain_store import PlainFleetStore
from tests.fleet.wire import Crash, Process, Rates, Wire
from tests.fleet.witness import Broken, Witness

TROUBLE_MS = 900_000
REST_MS = 7_200_000  # a deletion may be stuck for 20 minutes, and then be looked for
QUIET = 15  # steps at rest: what a provider's list hid, or who slept, may still come
DUTIES = ("commands", "instances", "orphans")
GRACE_MS = 120_000

LIMITS = Limits(
    provision_s=400,
    start_s=150,
    address_s=60,
    install_s=400,
    fetch_s=200,
    load_s=150,
    warm_s=100,
    health_s=100,
    rescue_s=150,
    verdict_s=30,
    lost_s=70,
    all_lost_s=120,
    unready_s=120,
    drain_s=60,
    unseen_s=90,
    volumes_blind_s=120,
    terminate_pending_s=300,
    volumes_pending_s=120,
    archive_s=3_000,
    look_ready_s=40,
)


@dataclass(frozen=True)
class Report:
    """What a life was made of."""

    seed: int
    events: dict[str, int]
    crashes: int
    woken: int
    codes: frozenset[str]


@dataclass
class Running:
    """A tick under way."""

    duty: str
    process: Process
    task: "asyncio.Task[None]"


class Scheduler:
    """One process with its duties; made anew after a crash."""

    def __init__(self, life: "Life") -> None:
        self.process = Process(life.rng, life.rates)
        records = Wire(life.store, self.process, of_store=True)
        workers = Wire(life.workers, self.process, of_store=True)
        cloud = Wire(life.cloud, self.process)
        reconciler = Reconciler(cloud, records, workers, life.clock, limits=LIMITS, rng=life.rng)
        self.duties = {
            "commands": Commands(records, ["cloud"], limits=LIMITS).tick,
            "instances": reconciler.tick,
            "orphans": Sweep(cloud, records, grace_ms=GRACE_MS).tick,
        }


class Life:
    """Of one seed. ``rates``: how often a process ends or sleeps."""

    def __init__(
        self,
        seed: int,
        store: Callable[[ManualClock], PlainFleetStore] = lambda clock: PlainFleetStore(
            history_kept=10**6, history_max=10**6
        ),
    ) -> None:
        self.seed, self.rng = seed, random.Random(seed)
        rng = self.rng
        self.clock = ManualClock()
        self.store = store(self.clock)
        self.workers = PlainWorkers()
        self.cloud = FakeCloud(
            self.clock.now_ms,
            rng,
            times=Times(
                install=rng.choice([None, 20_000]),
                lag=rng.choice([0, 30_000]),
                delete=rng.choice([5_000, 60_000]),
            ),
            quota=rng.choice([3, 6, 100]),
            stuck_starts=rng.choice([0.0, 0.15]),
            stuck_ends=rng.choice([0.0, 0.2]),
        )
        self.faults = rng.choice([0.0, 0.05, 0.3])
        self.rates = Rates(*rng.choice([(0.0, 0.0, 0.0), (0.004, 0.004, 0.01), (0.02, 0.01, 0.03)]))
        self.wakes = rng.choice([0.02, 0.2])
        self.cloud.fault = self._fault
        self.witness = Witness(self.store, self.cloud, self.workers)
        self.agents = Agents(self.cloud, self.workers, rng, self._plan)
        self.schedulers = [Scheduler(self), Scheduler(self)]
        self.leads: dict[str, tuple[int, Fence]] = {}
        self.running: list[Running] = []
        self.ids: list[str] = []
        self.asked = self.crashes = self.woken = 0
        self.codes: set[str] = set()
        self.trouble = True

    async def live(self) -> Report:
        """Raises Broken at the first invariant that does not hold; it names the seed."""
        try:
            while self._passed() < TROUBLE_MS:
                await self._step(self.rng.choice([1_000, 5_000, 5_000, 10_000, 20_000]))
            self._peace()
            quiet = 0
            while self._passed() < TROUBLE_MS + REST_MS and quiet < QUIET:
                await self._step(20_000)
                quiet = quiet + 1 if self._at_rest() else 0
            self.witness.look()
            self.witness.rest()
        except Broken as broken:
            raise Broken(f"seed {self.seed}: {broken}") from broken
        finally:
            for each in self.running:
                each.task.cancel()
            await asyncio.gather(*(each.task for each in self.running), return_exceptions=True)
        return Report(
            self.seed, dict(self.witness.events), self.crashes, self.woken, frozenset(self.codes)
        )

    def _passed(self) -> int:
        return self.clock.now_ms() - 1_800_000_000_000

    def _at_rest(self) -> bool:
        states = {each.state for each in self.store.kept.values()}
        going = [vm for vm in self.cloud.alive() if vm.stopping_ms <= self.clock.now_ms()]
        known = states <= {"ready", "terminated", "archived"}
        return known and not self.store.waiting and not going

    async def _step(self, ms: int) -> None:
        self.clock.advance_ms(ms)
        self.store.ms = self.clock.now_ms()
        self.agents.live(self.clock.now_ms())
        self.workers_fall_silent()
        if self.trouble:
            await self._happen()
        if self.rng.random() < self.wakes:
            await self._wake()
        at_once = self.rng.random() < 0.5
        for duty in DUTIES:
            if duty != "orphans" or not self.trouble or self.rng.random() < 0.3:
                self._begin(duty)
            if not at_once:
                await self._follow()
        await self._follow()
        self.codes |= {i.error_code for i in self.store.kept.values() if i.error_code}

    def workers_fall_silent(self) -> None:
        self.agents.silence(self.clock.now_ms())

    # --- the schedulers ------------------------------------------------------------------------

    def _begin(self, duty: str) -> None:
        leader, fence = self.leads.get(duty, (-1, Fence("", 0)))
        scheduler = self.schedulers[leader] if leader >= 0 else None
        lost = scheduler is None or scheduler.process.dead or scheduler.process.asleep
        if lost or self.rng.random() < 0.02:
            leader = self._somebody()
            if leader < 0:
                return
            fence = self.store.lease(duty)
            self.leads[duty] = leader, fence
        scheduler = self.schedulers[leader]
        process = scheduler.process
        if process.asleep or any(r.process is process and r.duty == duty for r in self.running):
            return
        task = asyncio.ensure_future(_run(scheduler.duties[duty](fence)))
        self.running.append(Running(duty, process, task))

    def _somebody(self) -> int:
        for index in self.rng.sample((0, 1), 2):
            if self.schedulers[index].process.dead:
                self.schedulers[index] = Scheduler(self)
                self.crashes += 1
            if not self.schedulers[index].process.asleep:
                return index
        return -1

    async def _follow(self) -> None:
        """Until every tick under way is done, or its process sleeps."""
        while awake := [each for each in self.running if not each.process.asleep]:
            await asyncio.wait({each.task for each in awake}, timeout=None if self.calm else 0.001)
            for each in [each for each in self.running if each.task.done()]:
                self.running.remove(each)
                each.task.result()
            self.witness.look()

    @property
    def calm(self) -> bool:
        return not self.rates.sleep

    async def _wake(self) -> None:
        for scheduler in self.schedulers:
            if scheduler.process.asleep:
                scheduler.process.wake()
                self.woken += 1
        await self._follow()

    # --- what happens --------------------------------------------------------------------------

    async def _happen(self) -> None:
        rng, luck = self.rng, self.rng.random()
        if luck < 0.10 or not self.ids:
            await self._order()
        elif luck < 0.22:
            await self._ask_something()
        elif luck < 0.26:
            self._misfortune()
        elif luck < 0.28:
            self._strays()
        elif luck < 0.285:
            for agent in self.agents.of.values():  # too short for anybody to be lost
                agent.mute_until_ms = self.clock.now_ms() + 45_000
        elif luck < 0.29:
            self.cloud.sold_out = {rng.choice("ab")}
        elif luck < 0.295:
            self.cloud.denied = True
        elif luck < 0.40:
            self.cloud.sold_out, self.cloud.denied = set(), False

    async def _order(self) -> None:
        rng = self.rng
        options = {name: "1" for name in ("data", "kept") if rng.random() < 0.3}
        order = Order(
            rng.choice(["cloud"] * 19 + ["nowhere"]),
            type=rng.choice(["gpu.1"] * 19 + ["gpu.9"]),
            zone=rng.choice("ab"),
            market=rng.choice(["spot", "on-demand"]),
            options=options,
        )
        ids = tuple(f"i-{len(self.ids) + n}" for n in range(rng.choice([1, 1, 2])))
        self.ids += ids
        if order.provider == "nowhere":
            self.witness.troubled |= set(ids)
        await self._ask(Kind.PROVISION, ids, order=order)

    async def _ask_something(self) -> None:
        rng = self.rng
        kind = rng.choice([Kind.DRAIN, Kind.RESUME, Kind.RESUME, Kind.TERMINATE, Kind.ARCHIVE])
        state = rng.choice(["ready", "ready", "provisioning", "booting"])
        if kind is Kind.RESUME:
            state = "draining"
        up = [i.id for i in self.store.kept.values() if i.state == state]
        if kind is Kind.RESUME and not up:
            return
        ids = (rng.choice([*up, *up, *up, *self.ids, "i-nobody"]),)
        if kind in (Kind.DRAIN, Kind.TERMINATE):
            self.witness.unwanted |= set(ids)
        drain_s = rng.choice([None, 0, 30, 90]) if kind is not Kind.ARCHIVE else None
        await self._ask(kind, ids, drain_s=drain_s)

    async def _ask(
        self,
        kind: Kind,
        ids: tuple[str, ...],
        order: Order | None = None,
        drain_s: int | None = None,
    ) -> None:
        self.asked += 1
        at_ms = self.clock.now_ms()
        command = Command(f"c-{self.asked}", kind, at_ms, "", ids, order, drain_s)
        for _ in range(self.rng.choice([1, 1, 2])):  # the reply may be lost
            await self.store.ask(command)

    def _misfortune(self) -> None:
        """Something of one machine breaks."""
        if not (alive := self.cloud.alive()):
            return
        vm = self.rng.choice(alive)
        now_ms, agent = self.clock.now_ms(), self.agents.of.get(vm.id)
        self.witness.troubled.add(vm.owner)
        match self.rng.randrange(5):
            case 0:
                self.cloud.end(vm)
            case 1 if vm.order.market == "spot":
                self.cloud.interrupt(vm)
            case 2:
                vm.failure = "INSTALL_FAILED", "no space left on device"
            case 3 if agent:
                agent.dies_ms = min(agent.dies_ms, now_ms)
            case 4 if agent:
                agent.ill_from_ms = now_ms
                agent.ill_until_ms = now_ms + self.rng.choice([30_000, 600_000])

    def _strays(self) -> None:
        """A machine of ours that nobody knows, one of another deployment's, and so on."""
        over = [vm for vm in self.cloud.vms.values() if vm.gone_ms <= self.clock.now_ms()]
        if over and self.rng.random() < 0.5:
            self.cloud.leave_disk(self.rng.choice(over))
            return
        order = Order("cloud", type="gpu.1", zone="a", options={"data": "1"})
        name = f"i-stray-{len(self.cloud.vms)}"
        deployment = self.rng.choice(["ours", "theirs"])
        self.witness.troubled.add(name)
        vm = self.cloud.make(name, order, deployment)
        if self.rng.random() < 0.3:
            self.cloud.end(vm)  # its disks stay

    def _plan(self, vm: Vm) -> Agent:
        rng = self.rng
        if vm.runs_ms >= NEVER_MS:
            self.witness.troubled.add(vm.owner)
        pace = 1
        if self.trouble and rng.random() < 0.2:
            pace = 5  # it will be too slow, or just not
            self.witness.troubled.add(vm.owner)
        begins_ms = vm.runs_ms + pace * rng.randrange(5_000, 60_000)
        starts_ms = begins_ms + pace * rng.randrange(0, 90_000)
        lists_ms = starts_ms + pace * rng.randrange(0, 60_000)
        agent = Agent(
            vm, begins_ms, starts_ms, lists_ms, lists_ms + pace * rng.randrange(0, 20_000)
        )
        if rng.random() < 0.05:
            agent.verdict = "agent checksum at /info is 0, not 1"
            self.witness.troubled.add(vm.owner)
        return agent

    def _fault(self, call: str) -> str:
        if not self.trouble or self.rng.random() >= self.faults:
            return ""
        return self.rng.choice(["down", "lost", "lost", "throttled", "strange"])

    def _peace(self) -> None:
        self.trouble, self.wakes = False, 0.2
        self.rates.crash = self.rates.lost = self.rates.sleep = 0.0
        self.cloud.sold_out, self.cloud.quota, self.cloud.denied = set(), 1_000, False
        self.cloud.stuck_starts = 0.0


async def _run(tick: Awaitable[None]) -> None:
    with suppress(Fenced, StoreUnavailable, Crash):
        await tick
