"""A cloud that does not exist, on a clock of the test, with all that makes real ones hard to use.

It honours launch tokens; its lists and looks lag; zones sell out and quotas end; machines start
slowly, get stuck, are taken back or deleted by somebody else; disks outlive their machine or are in
use; and a call may be throttled, refused, or done though its reply is lost.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from admission.instance import Instance, Offer, Order, Volume
from scheduler.fleet.port import Gone, Machine, Power, Refused, Unclear

NEVER_MS = 10**15
OURS = "ours"
NOTICE_MS = 120_000  # as Amazon EC2 gives


@dataclass
class Times:
    """Of this cloud, in ms."""

    start: int = 30_000
    address: int = 5_000
    install: int | None = None  # None: its machines install themselves
    delete: int = 40_000
    delete_disk: int = 10_000
    lag: int = 0  # how old what it tells may be


@dataclass
class Vm:
    """A machine; instants in ms."""

    id: str
    owner: str
    order: Order
    made_ms: int
    deployment: str
    runs_ms: int
    ends_ms: int | None = None  # it will be taken back then
    stopping_ms: int = NEVER_MS
    gone_ms: int = NEVER_MS
    installed_ms: int = NEVER_MS
    failure: tuple[str, str] | None = None


@dataclass
class Disk:
    """A volume of one machine."""

    id: str
    vm: Vm
    boot: bool
    ours_to_delete: bool
    goes_with_it: bool  # the provider deletes it with the machine
    asked_ms: int = NEVER_MS
    gone_ms: int = NEVER_MS
    in_use_until_ms: int = 0


@dataclass
class FakeCloud:
    """A `Provider` over a state that any number of schedulers share.

    ``fault``: asked before each call for what goes wrong with it: "" nothing, "down" not done,
    "lost" done and no reply, "throttled", "strange" an error that is in no table.
    """

    now_ms: Callable[[], int]
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    name: str = "cloud"
    capacity: int | None = None
    lag_s: float = 300.0
    ending: str = "it is deleted"
    times: Times = field(default_factory=Times)
    quota: int = 1_000
    sold_out: set[str] = field(default_factory=set)  # zones
    denied: bool = False
    vms: dict[str, Vm] = field(default_factory=dict)
    disks: dict[str, Disk] = field(default_factory=dict)
    fault: Callable[[str], str] = lambda call: ""
    heard: Callable[[str, str], None] = lambda call, about: None  # before it is done
    tokens: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)  # ids
    foreign_touched: list[str] = field(default_factory=list)  # another deployment's; must be empty
    stuck_starts: float = 0.0
    stuck_ends: float = 0.0

    # --- the port --------------------------------------------------------------------------------

    async def offers(self) -> Sequence[Offer]:
        with self._call("offers"):
            return [
                Offer(type="gpu.1", zone=zone, market=market, price_per_hour=price, slots=4)
                for zone in ("a", "b")
                if zone not in self.sold_out
                for market, price in (("spot", 0.4), ("on-demand", 1.0))
            ]

    async def launch(self, instance_id: str, order: Order) -> Machine:
        with self._call("launch", instance_id):
            if instance_id in self.tokens:
                vm = self.vms[self.tokens[instance_id]]
                if vm.stopping_ms <= self.now_ms():
                    words = "the machine of this token is terminated"
                    raise Refused("DELETED_BY_PROVIDER", words)
                return self._machine(vm, self.now_ms())
            self._may(order, instance_id)
            vm = self.make(instance_id, order)
            self.tokens[instance_id] = vm.id
            return self._machine(vm, self.now_ms())

    async def find(self, instance_id: str) -> Machine | Gone:
        with self._call("find", instance_id):
            for vm, at_ms in self._listed():
                if vm.owner == instance_id:
                    return self._machine(vm, at_ms)
            return Gone()

    async def look(self, provider_id: str) -> Machine | Gone:
        with self._call("look", provider_id):
            vm, at_ms = self.vms.get(provider_id), self._as_of()
            if vm is None or not vm.made_ms <= at_ms < vm.gone_ms:
                return Gone()
            return self._machine(vm, at_ms)

    async def advance(self, instance: Instance, machine: Machine) -> Machine:
        with self._call("advance", instance.id):
            vm = self.vms.get(machine.provider_id)
            if vm is None or vm.stopping_ms <= self.now_ms():
                raise Unclear("it does not answer")
            if vm.failure:
                raise Refused(*vm.failure)
            if self.times.install is not None and vm.installed_ms == NEVER_MS:
                vm.installed_ms = self.now_ms() + self.times.install
            return self._machine(vm, self.now_ms())

    async def terminate(self, provider_id: str) -> None:
        with self._call("terminate", provider_id):
            if vm := self.vms.get(provider_id):
                if vm.deployment != OURS:
                    self.foreign_touched.append(provider_id)
                self.end(vm)

    async def machines(self) -> Sequence[Machine]:
        with self._call("machines"):
            return [self._machine(vm, at_ms) for vm, at_ms in self._listed()]

    async def volumes(self, instance_id: str, provider_id: str) -> Sequence[Volume]:
        with self._call("volumes", instance_id):
            at_ms = self._as_of()
            return [
                self._volume(disk)
                for disk in self.disks.values()
                if disk.vm.deployment == OURS
                and (disk.vm.owner == instance_id or disk.vm.id == provider_id)
                and disk.vm.made_ms <= at_ms < self._disk_gone_ms(disk)
            ]

    async def orphan_volumes(self, known: frozenset[str]) -> Sequence[tuple[str, Volume]]:
        with self._call("orphan_volumes"):
            at_ms = self._as_of()
            return [
                (disk.vm.owner, self._volume(disk))
                for disk in self.disks.values()
                if disk.vm.deployment == OURS
                and disk.vm.owner not in known
                and disk.vm.made_ms <= at_ms < self._disk_gone_ms(disk)
            ]

    async def delete_volume(self, provider_volume_id: str) -> None:
        with self._call("delete_volume", provider_volume_id):
            disk, now_ms = self.disks.get(provider_volume_id), self.now_ms()
            if disk is None or self._disk_gone_ms(disk) <= now_ms:
                return
            if disk.vm.deployment != OURS:
                self.foreign_touched.append(provider_volume_id)
            if now_ms < max(min(disk.vm.gone_ms, NEVER_MS), disk.in_use_until_ms):
                raise Unclear("VolumeInUse")
            if disk.asked_ms == NEVER_MS:
                disk.asked_ms, disk.gone_ms = now_ms, now_ms + self.times.delete_disk

    async def look_volume(self, provider_volume_id: str) -> Volume | Gone:
        with self._call("look_volume", provider_volume_id):
            disk, at_ms = self.disks.get(provider_volume_id), self._as_of()
            if disk is None or not disk.vm.made_ms <= at_ms < self._disk_gone_ms(disk):
                return Gone()
            return self._volume(disk)

    async def close(self) -> None:
        pass

    # --- what happens there --------------------------------------------------------------------

    def make(self, owner: str, order: Order, deployment: str = OURS) -> Vm:
        """A machine with its disks, whoever made it."""
        number, now_ms = len(self.vms) + 1, self.now_ms()
        late = NEVER_MS if self.rng.random() < self.stuck_starts else self.times.start
        vm = Vm(f"vm-{number:04}", owner, order, now_ms, deployment, now_ms + late)
        self.vms[vm.id] = vm
        self._disk(vm, boot=True, goes_with_it=self.rng.random() < 0.5)
        if "data" in order.options:
            self._disk(vm, boot=False, goes_with_it=False)
        if "kept" in order.options:
            self._disk(vm, boot=False, goes_with_it=False, ours_to_delete=False)
        return vm

    def leave_disk(self, vm: Vm) -> None:
        """One more disk, that carries its tag."""
        self._disk(vm, boot=False, goes_with_it=False)

    def end(self, vm: Vm) -> None:
        """It is deleted, by whomever."""
        now_ms = self.now_ms()
        if vm.stopping_ms <= now_ms:
            return
        takes_ms = self.times.delete
        if self.rng.random() < self.stuck_ends:
            takes_ms += 1_200_000
        vm.stopping_ms, vm.gone_ms = now_ms, now_ms + takes_ms

    def interrupt(self, vm: Vm) -> None:
        """The notice for a spot machine."""
        if vm.ends_ms is None:
            vm.ends_ms = self.now_ms() + NOTICE_MS
            vm.stopping_ms = min(vm.stopping_ms, vm.ends_ms)
            vm.gone_ms = min(vm.gone_ms, vm.ends_ms + self.times.delete)

    def alive(self) -> list[Vm]:
        """What this deployment is billed for."""
        now_ms = self.now_ms()
        return [v for v in self.vms.values() if v.deployment == OURS and now_ms < v.gone_ms]

    def disks_left(self) -> list[Disk]:
        """The same of disks."""
        now_ms = self.now_ms()
        ours = [disk for disk in self.disks.values() if disk.vm.deployment == OURS]
        return [disk for disk in ours if now_ms < self._disk_gone_ms(disk)]

    def runs(self, vm: Vm) -> bool:
        return vm.runs_ms <= self.now_ms() < vm.stopping_ms

    # --- how it tells --------------------------------------------------------------------------

    def _may(self, order: Order, instance_id: str) -> None:
        try:
            self._check(order)
        except Refused:
            self.refused.add(instance_id)
            raise

    def _check(self, order: Order) -> None:
        if self.denied:
            raise Refused("PROVIDER_DENIED", "UnauthorizedOperation")
        if order.type != "gpu.1":
            raise Refused("PROVIDER_INVALID_ORDER", f"no such type: {order.type}")
        if order.zone in self.sold_out:
            raise Refused("PROVIDER_OUT_OF_STOCK", f"nothing left in {order.zone}")
        if len(self.alive()) >= self.quota:
            raise Refused("PROVIDER_QUOTA_EXCEEDED", f"{self.quota} machines at most")

    @contextmanager
    def _call(self, name: str, about: str = "") -> Iterator[None]:
        self.heard(name, about)
        wrong = self.fault(name)
        if wrong == "throttled":
            raise Unclear("RequestLimitExceeded", throttled=True)
        if wrong in ("down", "strange"):
            raise Unclear(wrong)
        yield
        if wrong == "lost":
            raise Unclear("no reply")

    def _as_of(self) -> int:
        """An answer comes from a copy that may lag."""
        return self.now_ms() - (self.rng.randrange(self.times.lag) if self.times.lag else 0)

    def _listed(self) -> list[tuple[Vm, int]]:
        at_ms = self._as_of()
        return [
            (vm, at_ms)
            for vm in self.vms.values()
            if vm.deployment == OURS and vm.made_ms <= at_ms < vm.gone_ms
        ]

    def _machine(self, vm: Vm, at_ms: int) -> Machine:
        power = Power.STARTING
        if at_ms >= vm.stopping_ms:
            power = Power.STOPPING
        elif at_ms >= vm.runs_ms:
            power = Power.RUNNING
        return Machine(
            provider_id=vm.id,
            instance_id=vm.owner,
            power=power,
            address=f"{vm.id}.cloud" if at_ms >= vm.runs_ms + self.times.address else "",
            zone=vm.order.zone,
            type=vm.order.type,
            market=vm.order.market,
            launched_ms=vm.made_ms,
            installed=at_ms >= vm.installed_ms,
            failure=vm.failure,
            ends_ms=vm.ends_ms,
        )

    def _disk(self, vm: Vm, *, boot: bool, goes_with_it: bool, ours_to_delete: bool = True) -> None:
        name = f"disk-{len(self.disks) + 1:04}"
        self.disks[name] = Disk(name, vm, boot, ours_to_delete, goes_with_it)

    def _disk_gone_ms(self, disk: Disk) -> int:
        return min(disk.gone_ms, disk.vm.gone_ms if disk.goes_with_it else NEVER_MS)

    def _volume(self, disk: Disk) -> Volume:
        return Volume(
            provider_volume_id=disk.id,
            volume_type="ssd",
            size_gb=100 if disk.boot else 200,
            is_boot=disk.boot and self.now_ms() < disk.vm.gone_ms,
            delete_on_terminate=disk.ours_to_delete,
            state="deleting" if disk.asked_ms <= self.now_ms() else "attached",
        )
