"""How many slots a pool wants, and why: the heart of the policy.

Reference: the package docstring.
"""

import math
from collections.abc import Iterator, Sequence

from msgspec import Struct

from scheduler.autoscale.demand import Demand
from scheduler.autoscale.fleet import Member
from scheduler.autoscale.memory import Memory
from scheduler.autoscale.spec import FleetSpec
from scheduler.autoscale.staffing import slots_for

SURGE_MOST = 2
"""A surge is never believed to bring more than so many times those who are there: a class that
joins at once is no rate that goes on."""


class Want(Struct, frozen=True):
    """``wished`` slots when a machine ordered now would be ready; ``slots``: those of them that may
    be used, by ``slots_most``; ``steady`` of those for more than the excess of now. ``busy``: the
    slots that what runs now would want if it stayed. ``urgent``: at once; that it lasts is known
    already."""

    wished: int
    slots_most: int | None
    slots: int
    steady: int
    busy: int
    why: str
    urgent: bool
    numbers: dict[str, float | int | None]


def size(
    demand: Demand, supply: Sequence[Member], spec: FleetSpec, memory: Memory, now_ms: int
) -> Want:
    """What ``demand`` wants beside ``supply``: the members that are ready or loading."""
    panic = now_ms < memory.panic_until_ms
    boot_ms = memory.boot_ms(spec)
    held_ms = memory.traffic.held_ms or float(spec.turn_ms(demand.session_ms))
    target_ms = spec.target_ms(demand.session_ms)
    rate = _rate(panic, boot_ms, spec, memory)
    load = _load(demand, rate, held_ms, boot_ms)
    steady, busy = (
        slots_for(each * spec.headroom, target_ms, held_ms, spec.late_share)
        for each in (load, memory.traffic.busy or 0.0)
    )
    if rate is None:
        steady = demand.in_use or 0
    backlog = _backlog(demand, supply, rate, held_ms, boot_ms, now_ms)
    excess = _excess(backlog, held_ms, boot_ms, spec)
    if memory.deserted(spec, now_ms):
        steady = 0  # a rate that fades is never quite nothing
    slots, urgent = steady + excess, panic
    why = (
        f"waits of at most {_seconds(target_ms)} for a load of {load:.1f} slots in "
        f"{_seconds(boot_ms)} take {steady}, those who wait until then {excess} more"
    )
    for words, overdue in _overdue(demand, spec, memory, boot_ms, now_ms):
        if overdue > slots:
            slots, why, urgent = overdue, words, True
    if panic:
        slots = min(slots, SURGE_MOST * ((demand.in_use or 0) + (demand.waiting or 0)))
    busy = max(busy, _unsaturated(spec, memory))  # else the next call would order again
    most = max(slots, busy) if demand.slots_most is None else demand.slots_most
    numbers: dict[str, float | int | None] = {
        "wanted_slots": slots,
        "load": round(load, 2),
        "arrivals_per_s": None if rate is None else round(rate * 1000, 3),
        "held_ms": round(held_ms),
        "wait_target_ms": target_ms,
        "boot_ms": round(boot_ms),
        "backlog": round(backlog, 1),
    }
    return Want(
        slots,
        demand.slots_most,
        min(slots, most),
        min(slots, most, steady),
        min(busy, max(most, demand.in_use or 0)),
        ("surge: " if panic else "") + why,
        urgent,
        numbers,
    )


def _rate(panic: bool, boot_ms: float, spec: FleetSpec, memory: Memory) -> float | None:
    traffic = memory.traffic
    ahead = traffic.rate_in(boot_ms, spec)
    if panic and traffic.fast_rate is not None:
        return max(ahead or 0.0, traffic.fast_rate)
    return ahead


def _load(demand: Demand, rate: float | None, held_ms: float, boot_ms: float) -> float:
    """Slots in use after ``boot_ms`` if nobody had to wait: those of now that are left, and those
    who come until then (M/M/infinity). Where turns are short this is rate x held."""
    now = (demand.in_use or 0) + (demand.waiting or 0)
    if rate is None:
        return float(demand.in_use or 0)
    left = math.exp(-boot_ms / held_ms)
    return now * left + rate * held_ms * (1 - left)


def _backlog(
    demand: Demand,
    supply: Sequence[Member],
    rate: float | None,
    held_ms: float,
    boot_ms: float,
    now_ms: int,
) -> float:
    """Who will still wait after ``boot_ms``, served by what is there and what comes meanwhile."""
    served = 0.0
    for member in supply:
        rest_ms = max(0.0, member.requested_ms + boot_ms - now_ms) if member.loading else 0.0
        served += member.slots * max(0.0, boot_ms - rest_ms) / held_ms
    return max(0.0, (demand.waiting or 0) + (rate or 0.0) * boot_ms - served)


def _excess(backlog: float, held_ms: float, boot_ms: float, spec: FleetSpec) -> int:
    """The slots that clear it within ``clear_boots``; one each at most."""
    # Those whose turns are long would still run then, and are in the load already.
    left = math.exp(-boot_ms / held_ms)
    apart = backlog * (1 - left)
    slots = min(apart, apart * held_ms / (boot_ms * spec.clear_boots))
    # Where that is most of them, a part of one is no slot of its own.
    return round(slots) if left > 0.5 else math.ceil(slots)


def _overdue(
    demand: Demand, spec: FleetSpec, memory: Memory, boot_ms: float, now_ms: int
) -> Iterator[tuple[str, int]]:
    """What the slots of now say by themselves, in words and slots. An estimated wait of w at c
    slots is c x w of work; what is over the target is to be done within one boot time."""
    capacity = demand.capacity or 0
    if _lasted(memory.late_since_ms, spec.up_after_ms, now_ms) and demand.wait_ms is not None:
        target_ms = spec.target_ms(demand.session_ms)
        over = demand.wait_ms - target_ms
        words = f"the estimated wait is {_seconds(demand.wait_ms)}, over {_seconds(target_ms)}"
        most = (demand.in_use or 0) + (demand.waiting or 0)
        yield words, min(most, capacity + math.ceil(capacity * over / boot_ms))
    if _lasted(memory.full_since_ms, spec.up_after_ms, now_ms):
        busy = memory.traffic.busy or 0.0
        words = f"{busy:.1f} of {capacity} slots are in use"
        yield words, _unsaturated(spec, memory)


def _lasted(since_ms: int | None, span_ms: int, now_ms: int) -> bool:
    return since_ms is not None and now_ms - since_ms >= span_ms


def _seconds(ms: float) -> str:
    return f"{ms / 1000:.0f} s" if ms >= 10_000 else f"{ms / 1000:.2g} s"


def _unsaturated(spec: FleetSpec, memory: Memory) -> int:
    """The least slots of which those in use are not ``saturation``."""
    return math.floor((memory.traffic.busy or 0.0) / spec.saturation) + 1
