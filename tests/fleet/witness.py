"""What must hold of a fleet at every instant, and once everything has come to rest.

It sees the history, the provider's own state and what the simulation did to it, and asks none of
the fleet's arithmetic.
"""

from collections import Counter
from dataclasses import dataclass, field

from admission.instance import Event, Instance, State
from scheduler.fleet.table import OVER, TABLE
from tests.fleet.agents import PlainWorkers
from tests.fleet.cloud import FakeCloud
from tests.fleet.plain_store import PlainFleetStore

FAILURES = {State.PROVISIONING_FAILED, State.STARTUP_FAILED, State.FAILED}
ENDS = FAILURES | {State.DRAINING, State.TERMINATING}
UNDER_WAY_MS = 120_000  # a launch, after its intent was written
OUR_REASONS = {"PROVIDER_SILENT"}  # an outage that lasts ends an order, whoever is to blame


class Broken(AssertionError):
    """An invariant does not hold."""


def hold(what: object, *words: object) -> None:
    if not what:
        raise Broken(" ".join(str(word) for word in words))


@dataclass
class Witness:
    """``troubled``: instances that the simulation did something to; ``unwanted``: those that
    somebody asked to drain or to end."""

    store: PlainFleetStore
    cloud: FakeCloud
    workers: PlainWorkers
    troubled: set[str] = field(default_factory=set)
    unwanted: set[str] = field(default_factory=set)
    last: dict[str, Instance] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    effects: Counter[tuple[str, str]] = field(default_factory=Counter)
    read: int = 0
    broken: Broken | None = None  # during a call, where the caller would take it for the provider's

    def __post_init__(self) -> None:
        self.cloud.heard = self._heard

    def look(self) -> None:
        """After every step of anybody."""
        if self.broken:
            raise self.broken
        self._read()
        made = Counter(vm.owner for vm in self.cloud.vms.values() if vm.deployment == "ours")
        hold(not made or max(made.values()) == 1, "two machines for one id", made.most_common(1))
        hold(not self.cloud.foreign_touched, "another deployment's", self.cloud.foreign_touched)

    @property
    def excused(self) -> set[str]:
        return self.troubled | self.unwanted | self.cloud.refused

    def _read(self) -> None:
        for entry in self.store.stream[self.read :]:
            self._line(entry.event, entry.instance)
        self.read = len(self.store.stream)

    # --- the history -------------------------------------------------------------------------

    def _line(self, event: Event, after: Instance | None) -> None:
        self.events[event.name if event.ok else f"{event.name} failed"] += 1
        if command := event.detail.get("command"):
            self.effects[command, event.instance_id] += 1
            hold(self.effects[command, event.instance_id] == 1, "a command twice", event)
        if after is None:
            return
        before = self.last.get(after.id)
        self.last[after.id] = after
        self._arrow(event, before, after)
        hold(event.reason, "without a word", event)
        if before is not None:
            hold(after.version == before.version + 1, "a version was left out", event)
            hold(after.progress >= before.progress, "the progress went back", before, after)
            hold(after.order == before.order, "the order changed", after)
        if event.name in ("lose_machine", "end"):
            # A launch that a sleeper sends later still makes one after all: the sweep's to find.
            late_ms = min(after.ended_ms or 0, (after.tried_ms or 0) + UNDER_WAY_MS)
            alive = [vm for vm in self.cloud.alive() if vm.made_ms < late_ms]
            there = [vm for vm in alive if vm.owner == after.id]
            named = [vm for vm in there if vm.id == after.provider_id or not after.provider_id]
            hold(not named, "said to be gone", named)
        if event.name == "lose_volume":
            left = [disk.id for disk in self.cloud.disks_left()]
            hold(event.detail["volume"] not in left, "said to be deleted", event)
        if event.target in ENDS and event.target != event.source:
            self._reason(event, after)

    def _arrow(self, event: Event, before: Instance | None, after: Instance) -> None:
        row = TABLE.get(event.name)
        hold(row is not None, "an arrow that the table does not have", event)
        assert row is not None
        if before is None:
            hold(not row.sources and after.version == 1, "it begins in the middle", event)
        else:
            hold(before.state in row.sources, event.name, "from", before.state)
        wanted = row.target or (before.state if before else None)
        hold(after.state == wanted, event.name, "led to", after.state)
        if row.progress is not None:
            hold(after.progress == row.progress, event.name, "at", after.progress)

    def _reason(self, event: Event, after: Instance) -> None:
        """Nobody ends what is wanted and well."""
        excused = after.id in self.excused or after.error_code in OUR_REASONS
        hold(excused or event.name in ("adopt", "reopen", "reappear"), "without a reason", event)

    # --- what the provider was asked -------------------------------------------------------------

    def _heard(self, call: str, about: str) -> None:
        try:
            self._call(call, about)
        except Broken as broken:
            self.broken = self.broken or broken

    def _call(self, call: str, about: str) -> None:
        """The intent stands in the history before the provider is asked."""
        self._read()
        if call == "launch":
            known = self.last.get(about)
            hold(known and known.tried_ms, "a launch that nobody had written down", about)
        if call == "terminate":
            owners = [i for i in self.last.values() if i.provider_id == about]
            wanted = [i for i in owners if i.state not in OVER | {State.TERMINATING}]
            hold(not wanted, "a wanted machine was ended", wanted)
            hold(owners, "a machine was ended that nobody had written down", about)
        if call == "delete_volume":
            disk = self.cloud.disks[about]
            hold(disk.ours_to_delete, "a disk that is kept was deleted", about)
            holders = [
                i for i in self.last.values() for v in i.volumes if v.provider_volume_id == about
            ]
            hold(holders, "a disk was deleted that nobody had written down", about)
            live = [i for i in holders if i.state not in OVER | {State.TERMINATING}]
            hold(not live, "a disk of a wanted machine was deleted", about)

    # --- at rest -----------------------------------------------------------------------------

    def rest(self) -> None:
        """When nothing happens any more."""
        known = self.store.kept.values()
        for each in known:
            stable = {State.READY, *OVER}
            hold(each.state in stable, "not at rest", each)
            self._settled(each)
        live = {i.id: i.provider_id for i in known if i.state is State.READY}
        there = {vm.owner: vm.id for vm in self.cloud.alive()}
        hold(there == live, "machines", there, "but instances", live)
        for disk in self.cloud.disks_left():
            wanted = disk.vm.owner in live or not disk.ours_to_delete
            hold(wanted, "a disk is left", disk)
        hold(not self.store.waiting, "commands wait", self.store.waiting)
        over = {each.id for each in known if each.state in OVER}
        hold(not over & self.workers.all.keys(), "a worker outlives its machine")
        well = live.keys() - self.troubled
        drained = [w for w in well if w in self.workers.all and self.workers.all[w].draining]
        hold(not drained, "a worker is drained, its instance is ready", drained)
        for each in self.last.values():
            if each.id not in self.excused and each.asked_by != "orphans":
                fine = each.state is State.READY or each.error_code in OUR_REASONS
                hold(fine, "wanted and well, and not ready", each)

    def _settled(self, each: Instance) -> None:
        lines = [e.event for e in self.store.stream if e.event.instance_id == each.id]
        rescued = max([n for n, line in enumerate(lines) if line.name == "rescue"], default=0)
        failed = [line.detail["code"] for line in lines[rescued:] if line.target in FAILURES]
        if each.state is State.READY:
            hold(each.progress == 100 and not each.error_code, "ready, but", each)
            return
        hold(not failed or each.error_code == failed[-1], "another code than it failed by", each)
        settled = all(v.state in ("deleted", "kept") for v in each.volumes)
        hold(settled and each.ended_ms is not None, "over, but", each)
        for volume in each.volumes:
            if volume.state == "deleted":
                name = volume.provider_volume_id
                said = {line.name for line in lines if line.detail.get("volume") == name}
                told = {"delete_volume", "lose_volume"} <= said
                hold(told, "a deletion that the history does not tell", volume)
