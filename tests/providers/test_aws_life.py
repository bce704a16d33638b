"""Lives of EC2's machines under a bad connection: nothing is doubled, and nothing is left."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, TypeVar

import pytest

from admission.domain import Worker
from admission.instance import Command, Kind, Order
from infra.providers.aws.archive import SHA256_MARK, URL_MARK, Archive
from scheduler.fleet.commands import Commands
from scheduler.fleet.orphans import Sweep
from scheduler.fleet.reconcile import Reconciler
from tests.fleet.agents import POOL, PlainWorkers
from tests.fleet.plain_store import PlainFleetStore
from tests.providers.aws_world import SUBNETS, Ec2World
from tests.providers.ec2 import Vm

T = TypeVar("T")

FAULTS = ("down", "lost", "lost", "RequestLimitExceeded", "InternalError", "Bizarre")
IDS = tuple(f"aws-{number}" for number in range(6))
MODEL = {"model_archive": "s3://models/m.tar", "model_sha256": "0" * 64}
TROUBLE, REST_MAX = 120, 720  # steps of 5 s
OVER = {"terminated", "archived"}


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls in the order in which they are made, so that a seed is a life."""

    async def to_thread(step: Callable[[], T]) -> T:
        await asyncio.sleep(0)
        return step()

    monkeypatch.setattr("infra.providers.aws.provider.asyncio.to_thread", to_thread)
    # Another URL each time it is signed, without a signature's cost.
    numbers = count()
    monkeypatch.setattr(Archive, "_sign", lambda *_: f"https://s3/m.tar?n={next(numbers)}")


@pytest.fixture
def worlds() -> Iterator[list[Ec2World]]:
    made: list[Ec2World] = []
    yield made
    for world in made:
        world.wire.fault = lambda asked: ""
        world.close()


class Life:
    """Six machines: ordered, heard, taken back, ended, while a part of all calls goes wrong."""

    def __init__(self, seed: int, worlds: list[Ec2World]) -> None:
        self.rng = rng = random.Random(seed)
        self.world = Ec2World(lag_ms=rng.choice([0, 20_000]))
        worlds.append(self.world)
        self.cloud, self.clock = self.world.cloud, self.world.clock
        self.store = PlainFleetStore(self.clock.now_ms(), history_kept=10**6, history_max=10**6)
        self.workers = PlainWorkers()
        self.commands = Commands(self.store, ["aws"])
        self.sweep = Sweep(self.world.ec2, self.store, grace_ms=120_000)
        self.model = rng.choice([{}, MODEL])
        self.scheduler = self.another()
        self.faults = rng.choice([0.1, 0.3])
        self.asked = 0
        self.world.wire.fault = self._fault

    def another(self) -> Reconciler:
        """A scheduler that knows nothing yet, also not which URLs were signed."""
        ec2 = self.world.of("ours", script=URL_MARK + SHA256_MARK, **self.model)
        return Reconciler(ec2, self.store, self.workers, self.clock, rng=self.rng)

    def _fault(self, operation: str) -> str:
        return self.rng.choice(FAULTS) if self.rng.random() < self.faults else ""

    async def live(self) -> None:
        rng = self.rng
        for name in IDS:
            market = rng.choice(["spot", "on-demand"])
            order = Order("aws", type="g6.xlarge", zone=rng.choice(list(SUBNETS)), market=market)
            await self.ask(Kind.PROVISION, name, order=order)
        for _ in range(TROUBLE):
            if rng.random() < 0.05:
                await self._misfortune()
            await self._step()
        self.faults, self.cloud.sold_out = 0.0, set()
        for name in IDS:
            await self.ask(Kind.TERMINATE, name, drain_s=0)
        for _ in range(REST_MAX):
            await self._step()
            if all(each.state in OVER for each in self.store.kept.values()):
                return

    async def ask(self, kind: Kind, name: str, **more: Any) -> None:
        self.asked += 1
        command = Command(f"c-{self.asked}", kind, self.clock.now_ms(), "ops", (name,), **more)
        await self.store.ask(command)

    async def _step(self) -> None:
        self.clock.advance_ms(5_000)
        self.store.ms = self.clock.now_ms()
        for vm in self.cloud.vms.values():
            if vm.state(self.clock.now_ms()) == "running":
                self._beat(vm)
        await self.commands.tick(self.store.lease("commands"))
        await self.scheduler.tick(self.store.lease("instances"))
        if self.rng.random() < 0.1:
            await self.sweep.tick(self.store.lease("orphans"))

    def _beat(self, vm: Vm) -> None:
        name, now_ms = vm.tags["vestibule-instance"], self.clock.now_ms()
        self.workers.all[name] = Worker(
            worker_id=name,
            url=f"https://{vm.id}:9001",
            kind="agent",
            pool=POOL,
            models=("m",),
            slots=4,
            ready=True,
            draining=False,
            reason=None,
            first_seen_ms=vm.runs_ms,
            last_seen_ms=now_ms,
            engine={"state": "serving"},
        )

    async def _misfortune(self) -> None:
        rng, alive = self.rng, [v for v in self.cloud.vms.values() if v.stopping_ms > 10**14]
        match rng.randrange(5) if alive else 4:
            case 0:
                self.cloud.end(rng.choice(alive), "Client.InstanceInitiatedShutdown")
            case 1:
                for vm in [vm for vm in alive if vm.request_id][:1]:
                    self.cloud.interrupt(vm)
            case 2:
                await self.ask(Kind.TERMINATE, rng.choice(IDS), drain_s=rng.choice([0, 60]))
            case 3:  # somebody has EC2 keep the disks
                for disk in self.cloud.disks.values():
                    disk.goes = disk.goes and (disk.vm not in alive or rng.random() < 0.5)
            case _:
                self.scheduler = self.another()
                self.cloud.sold_out = {rng.choice(list(SUBNETS))} if rng.random() < 0.3 else set()


async def _lives(seeds: range, worlds: list[Ec2World]) -> None:
    for seed in seeds:
        life = Life(seed, worlds)
        await life.live()
        now_ms, cloud = life.clock.now_ms(), life.cloud
        states = {each.id: str(each.state) for each in life.store.kept.values()}
        assert set(states.values()) <= OVER, f"seed {seed}: {states}"
        made = Counter(vm.tags["vestibule-instance"] for vm in cloud.vms.values())
        assert max(made.values(), default=0) <= 1, f"seed {seed}: {made}"
        assert made.keys() <= set(IDS)
        alive = [vm.id for vm in cloud.vms.values() if now_ms < vm.gone_ms]
        assert not alive, f"seed {seed}: {alive}"
        left = [disk.id for disk in cloud.disks.values() if now_ms < disk.gone_ms]
        assert not left, f"seed {seed}: {left}"
        life.world.close()


async def test_a_bad_connection_doubles_nothing_and_leaves_nothing(
    inline: None, worlds: list[Ec2World]
) -> None:
    await _lives(range(2), worlds)


@pytest.mark.long
@pytest.mark.timeout(300)  # 14 s on two idle cores
async def test_many_bad_connections(inline: None, worlds: list[Ec2World]) -> None:
    await _lives(range(2, 40), worlds)
