"""A pool, its fleet and its clock for the autoscaler's tests: what is decided is done at once.

Knows what the reconciler would make of a decision; nothing of how one is reached.
"""

from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from admission.instance import State
from scheduler.autoscale import (
    Decision,
    Demand,
    Failure,
    Fleet,
    FleetSpec,
    Member,
    Memory,
    Place,
    decide,
)

START_MS = 1_800_000_000_000  # Friday, 15 January 2027, 08:00 UTC
SPOT = Place(provider="aws", type="g5", zone="a", market="spot", price_per_hour=0.4, slots=4)
SPOT_B = Place(provider="aws", type="g5", zone="b", market="spot", price_per_hour=0.5, slots=4)
PLAIN = Place(provider="aws", type="g5", zone="a", price_per_hour=1.0, slots=4)
BOOT_MS = 240_000


@dataclass
class Scene:
    """Requests flow evenly and are served as a fluid; machines boot in ``BOOT_MS``."""

    spec: FleetSpec
    places: tuple[Place, ...] = (PLAIN,)
    now_ms: int = START_MS
    memory: Memory = Memory()
    members: dict[str, Member] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    waiting: float = 0.0
    in_use: float = 0.0
    arrived: float = 0.0
    begun: float = 0.0
    held_ms: float = 10_000.0
    gpu_load: float | None = 0.9
    sold_out: set[str] = field(default_factory=set)
    history: list[Decision] = field(default_factory=list)

    def ready(self, count: int, place: Place = PLAIN, **facts: Any) -> list[str]:
        """So many ready workers more; their ids."""
        ids = [f"w-{len(self.members) + number}" for number in range(count)]
        for id in ids:
            self.members[id] = member(id, place, now_ms=self.now_ms, **facts)
        return ids

    @property
    def slots(self) -> int:
        """Of the ready workers: the pool's capacity."""
        return sum(m.slots for m in self.members.values() if m.state == State.READY)

    def count(self, *states: State) -> int:
        return sum(m.state in states for m in self.members.values())

    def demand(self, **facts: Any) -> Demand:
        """As Redis would count it; the estimated wait by the present rate."""
        queue, free = round(self.waiting), self.slots - round(self.in_use)
        wait = None if not self.slots else max(0, queue + 1 - free) * self.held_ms / self.slots
        known: dict[str, Any] = {
            "at_ms": self.now_ms,
            "waiting": queue,
            "in_use": round(self.in_use),
            "capacity": self.slots,
            "wait_ms": wait,
            "arrived_total": round(self.arrived),
            "begun_total": round(self.begun),
        }
        return Demand(**{**known, **facts})

    def fleet(self, **facts: Any) -> Fleet:
        known: dict[str, Any] = {
            "at_ms": self.now_ms,
            "members": tuple(self.members.values()),
            "places": self.places,
            "failures": tuple(self.failures),
        }
        return Fleet(**{**known, **facts})

    def decide(self, **demand: Any) -> Decision:
        """One decision, not done."""
        decision, self.memory = decide(
            self.demand(**demand), self.fleet(), self.spec, self.memory, self.now_ms
        )
        self.history.append(decision)
        return decision

    def run(self, seconds: float, rate: float = 0.0, every_s: float = 10.0) -> list[Decision]:
        """Let time pass with ``rate`` arrivals a second; the decisions that were made and done."""
        made = []
        for _ in range(round(seconds / every_s)):
            self._flow(rate, every_s * 1000)
            self.now_ms += round(every_s * 1000)
            self._live()
            made.append(self.decide())
            self.do(made[-1])
        return made

    def do(self, decision: Decision) -> None:
        """What the reconciler would do, at once."""
        for launch in decision.launches:
            if launch.place.name in self.sold_out:
                self.failures.append(Failure(launch.place.name, self.now_ms))
            else:
                self.members[launch.id] = member(
                    launch.id, launch.place, State.BOOTING, now_ms=self.now_ms
                )
        for act in decision.undrains:
            self._become(act.id, state=State.READY, drain_by_ms=None)
        for act in decision.drains:
            self._become(act.id, state=State.DRAINING, drain_by_ms=act.by_ms)
        for act in decision.terminations:
            del self.members[act.id]

    def _flow(self, rate: float, ms: float) -> None:
        """In steps of a second: what comes takes free slots, what is served leaves."""
        for _ in range(round(ms / 1000)):
            self.in_use -= self.in_use * min(1.0, 1000 / self.held_ms)
            self.arrived += rate
            self.waiting += rate
            taken = max(0.0, min(self.waiting, self.slots - self.in_use))
            self.waiting -= taken
            self.in_use += taken
            self.begun += taken

    def _live(self) -> None:
        for id, each in self.members.items():
            if each.state == State.BOOTING and self.now_ms - each.requested_ms >= BOOT_MS:
                self._become(id, state=State.READY, ready_ms=self.now_ms)
        ready = max(1, self.count(State.READY))
        for id, each in self.members.items():
            if each.state in (State.READY, State.DRAINING):
                share = round(self.in_use / ready) if each.state == State.READY else 0
                self.members[id] = replace(
                    each, in_use=share, gpu_load=self.gpu_load, heard_ms=self.now_ms
                )

    def _become(self, id: str, **facts: Any) -> None:
        self.members[id] = replace(self.members[id], since_ms=self.now_ms, **facts)


def member(
    id: str,
    place: Place = PLAIN,
    state: State = State.READY,
    *,
    now_ms: int = START_MS,
    **facts: Any,
) -> Member:
    """An instance at a place; one that is ready was heard just now."""
    known: dict[str, Any] = {
        "slots": place.slots,
        "place": place.name,
        "market": place.market,
        "price_per_hour": place.price_per_hour,
        "requested_ms": now_ms,
        "since_ms": now_ms,
    }
    if state in (State.READY, State.DRAINING):
        known |= {"heard_ms": now_ms, "in_use": 0, "gpu_load": 0.5}
    return Member(id=id, state=state, **{**known, **facts})
