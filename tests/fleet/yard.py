"""One scheduler over a plain store and the fake cloud, in short words."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from admission.clock import ManualClock
from admission.instance import Command, Event, Instance, Kind, Order
from scheduler.fleet import transitions as to
from scheduler.fleet.commands import Commands
from scheduler.fleet.limits import Limits
from scheduler.fleet.orphans import Sweep
from scheduler.fleet.reconcile import Reconciler
from scheduler.fleet.table import Made
from tests.fleet.agents import Agent, Agents, PlainWorkers
from tests.fleet.cloud import FakeCloud, Times, Vm
from tests.fleet.plain_store import PlainFleetStore

ORDER = Order("cloud", type="gpu.1", zone="a")


@dataclass
class Yard:
    """Heartbeats come at every step of the clock."""

    clock: ManualClock = field(default_factory=ManualClock)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.store = PlainFleetStore(self.clock.now_ms(), history_kept=10**6, history_max=10**6)
        self.workers = PlainWorkers()
        self.cloud = FakeCloud(self.clock.now_ms, times=Times())
        self.agents = Agents(self.cloud, self.workers, self.cloud.rng, self._plan)
        self.scheduler = self.another()
        self.commands = Commands(self.store, ["cloud"], limits=self.limits)
        self.sweep = Sweep(self.cloud, self.store)
        self.asked = 0

    def another(self) -> Reconciler:
        """A scheduler that knows nothing yet."""
        return Reconciler(
            self.cloud, self.store, self.workers, self.clock, limits=self.limits, rng=self.cloud.rng
        )

    def _plan(self, vm: Vm) -> Agent:
        begins_ms = vm.runs_ms + 20_000
        return Agent(vm, begins_ms, begins_ms, begins_ms + 10_000, begins_ms + 20_000)

    async def order(self, name: str = "i-1", order: Order = ORDER) -> Instance:
        """A wanted instance, which no provider knows of yet."""
        return await self.put(to.request(name, order, self.clock.now_ms()), 0)

    async def put(self, made: Made, read: int) -> Instance:
        instance, event = made
        assert await self.store.write(self.store.lease("test"), instance, read, [event])
        return instance

    async def ask(self, kind: Kind, *names: str, **more: object) -> None:
        """A command, taken at once."""
        self.asked += 1
        now_ms = self.clock.now_ms()
        command = Command(f"c-{self.asked}", kind, now_ms, "ops", names, **more)  # type: ignore[arg-type]
        await self.store.ask(command)
        await self.commands.tick(self.store.lease("commands"))

    def pass_s(self, seconds: int) -> None:
        """Time passes, and heartbeats come every 5 s."""
        for _ in range(0, seconds, 5):
            self.clock.advance_ms(5_000)
            self.store.ms = self.clock.now_ms()
            self.agents.live(self.clock.now_ms())
            self.agents.silence(self.clock.now_ms())

    async def tick(self) -> None:
        await self.scheduler.tick(self.store.lease("instances"))

    async def run(self, seconds: int, until: Callable[[], bool] = lambda: False) -> None:
        """Ticks every 5 s."""
        for _ in range(0, seconds, 5):
            await self.tick()
            if until():
                return
            self.pass_s(5)

    async def up(self, *names: str, order: Order = ORDER) -> None:
        """Instances that are ready."""
        for name in names:
            await self.order(name, order)
        await self.run(300, lambda: all(self.it(name).state == "ready" for name in names))
        assert all(self.it(name).state == "ready" for name in names)

    def it(self, name: str = "i-1") -> Instance:
        return self.store.kept[name]

    def lines(self, name: str = "i-1") -> list[Event]:
        return [each.event for each in self.store.stream if each.event.instance_id == name]

    def names(self, name: str = "i-1") -> list[str]:
        """What its history tells."""
        return [line.name for line in self.lines(name)]

    def vm(self, name: str = "i-1") -> Vm:
        return next(vm for vm in self.cloud.vms.values() if vm.owner == name)

    def drained(self, name: str = "i-1") -> bool:
        return self.workers.all[name].draining

    def idle(self, name: str = "i-1") -> None:
        """Nothing runs on it."""
        self.workers.all[name] = replace(self.workers.all[name], in_flight=0)
