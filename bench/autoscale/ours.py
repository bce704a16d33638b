"""The product's own decision on the simulated fleet: it translates, and decides nothing."""

from admission.instance import State
from bench.autoscale.day import PRICE, SLOTS, WORKERS_MOST, Day, Machine
from scheduler.autoscale import Decision, Demand, Fleet, FleetSpec, Member, Memory, Place, decide

EVERY_S = 10.0
PLACE = Place(provider="aws", type="g5.xlarge", price_per_hour=PRICE, slots=SLOTS)


class Ours:
    """``scheduler.autoscale.decide``, called every 10 s with what Redis and heartbeats would say.

    The estimated wait stands for the engine's: places before one, times the mean time that the
    newest hundred turns took, over the slots. A GPU is busy while anything runs on it, as NVML
    counts it.
    """

    every = EVERY_S

    def __init__(self, spec: FleetSpec) -> None:
        self._spec, self._memory = spec, Memory()
        self._ids: dict[str, Machine] = {}
        self.decisions: list[tuple[float, Decision]] = []

    def look(self, day: Day) -> None:
        """One decision, done at once."""
        now_ms = round(day.now * 1000)
        names = {machine.number: id for id, machine in self._ids.items()}
        for machine in day.machines:
            self._ids.setdefault(names.get(machine.number, f"first-{machine.number}"), machine)
        living = {id: m for id, m in self._ids.items() if m.ended is None}
        self._ids = living
        fleet = Fleet(
            at_ms=now_ms,
            members=tuple(_member(id, m, now_ms) for id, m in sorted(living.items())),
            places=(PLACE,),
        )
        decision, self._memory = decide(
            _demand(day, now_ms), fleet, self._spec, self._memory, now_ms
        )
        for launch in decision.launches:
            self._ids[launch.id] = day.launch()
        for act in decision.undrains:
            day.undrain(living[act.id])
        for act in (*decision.drains, *decision.terminations):
            if living[act.id].draining is None:
                day.drain(living[act.id])
        if decision.acts:
            self.decisions.append((day.now, decision))


def spec(**knobs: float) -> FleetSpec:
    """The defaults but for the bounds, which are everybody's, and ``knobs``."""
    return FleetSpec.of({"workers_min": 1, "workers_max": WORKERS_MOST, **knobs})


def _demand(day: Day, now_ms: int) -> Demand:
    waiting, capacity = len(day.waiting), SLOTS * len(day.ready)
    held = sum(day.held) / len(day.held) if day.held else None
    free = max(0, capacity - day.in_use)
    wait_ms: float | None = 0.0 if free > waiting else None
    if wait_ms is None and capacity and held is not None:
        wait_ms = 1000 * (waiting + 1 - free) * held / capacity
    return Demand(
        at_ms=now_ms,
        waiting=waiting,
        in_use=day.in_use,
        capacity=capacity,
        wait_ms=wait_ms,
        arrived_total=day.arrived,
        begun_total=day.begun,
    )


def _member(id: str, machine: Machine, now_ms: int) -> Member:
    state = State.READY if machine.ready else State.BOOTING
    if machine.draining is not None:
        state = State.DRAINING
    return Member(
        id=id,
        state=state,
        slots=SLOTS,
        place=PLACE.name,
        price_per_hour=PRICE,
        requested_ms=round(machine.ordered * 1000),
        since_ms=round((machine.draining or machine.ordered) * 1000),
        ready_ms=round(machine.ready_at * 1000) if machine.ready and machine.ordered else None,
        in_use=machine.in_use if machine.ready else None,
        gpu_load=float(machine.in_use > 0) if machine.ready else None,
        heard_ms=now_ms if machine.ready else None,
    )
