"""One decision, put together. Pure: the same arguments give the same result."""

from msgspec.structs import replace

from admission.decided import Hold, Short
from scheduler.autoscale import schedule
from scheduler.autoscale.decision import Decision, Why
from scheduler.autoscale.demand import Demand
from scheduler.autoscale.fleet import LOADING, Fleet, Member
from scheduler.autoscale.growing import Growth, Lack, grow
from scheduler.autoscale.memory import Memory, Pending, gpu_load
from scheduler.autoscale.shrinking import (
    Shrinkage,
    end_drained,
    exceeds,
    leave_doomed,
    shrink,
    span_ms,
)
from scheduler.autoscale.sizing import Want, size
from scheduler.autoscale.spec import FleetSpec


def decide(
    demand: Demand | None, fleet: Fleet, spec: FleetSpec, memory: Memory, now_ms: int
) -> tuple[Decision, Memory]:
    """The next step of one pool's fleet, and the memory for the call after it.

    Raises nothing: what is missing is a hold, and changes no memory.
    """
    why = missing(demand, fleet, spec, now_ms)
    if demand is None or fleet.members is None or why:
        return Decision.held(why or DEMAND_UNKNOWN), memory
    memory = memory.seen(demand, fleet, spec, now_ms)
    supply = supply_of(fleet, spec, now_ms)
    want = size(demand, supply, spec, memory, now_ms)
    slots = sum(m.slots for m in supply) + sum(p.slots for p in memory.pending)
    memory = memory.wanted(want.wished, want.steady, slots, spec, now_ms)
    bounds = _bounds(demand, supply, spec, memory, now_ms)
    growth, shrinkage = _step(fleet, supply, want, slots, spec, memory, now_ms, bounds)
    back = {act.id for act in growth.undrains}
    stay = [member for member in fleet.members if member.id not in back]
    decision = Decision(
        reason=_reason(want, growth, shrinkage, slots),
        short=growth.short,
        launches=growth.launches,
        drains=(*leave_doomed(fleet.members), *shrinkage.drains),
        undrains=growth.undrains,
        terminations=(*end_drained(stay, spec, now_ms), *shrinkage.terminations),
        numbers=want.numbers | _numbers(demand, fleet.members, slots, spec, bounds),
    )
    return decision, replace(memory, pending=memory.pending + _ordered(growth, now_ms))


def _step(
    fleet: Fleet,
    supply: tuple[Member, ...],
    want: Want,
    slots: int,
    spec: FleetSpec,
    memory: Memory,
    now_ms: int,
    bounds: tuple[int, int],
) -> tuple[Growth, Shrinkage]:
    """One of the two ways, or neither. A bound that was lowered comes before everything. That more
    is wanted than could be used keeps nobody."""
    least, most = bounds
    if exceeds(supply, spec, most):
        return Growth(), shrink(supply, spec, now_ms, keep=slots, least=least, most=most)
    lacking = _lacking(want, slots, spec, memory, now_ms)
    workers = least - len(supply) - len(memory.pending)
    growth, useless = Growth(), False
    if lacking > 0 or workers > 0:
        usable = None if want.slots_most is None else want.slots_most - slots
        lack = Lack(lacking, workers, want.slots_most, usable)
        reason = want.why if lacking > 0 else f"at least {least} workers are to be there"
        growth = grow(fleet, memory, spec, now_ms, lack=lack, most=most, reason=reason)
        useless = growth.short is not None and growth.short.code is Short.SLOTS_MOST
        if growth.undrains or growth.launches or not useless:
            return growth, Shrinkage()
    if _may_shrink(supply, spec, memory, now_ms, useless=useless):
        peak = memory.peak(span_ms(spec, memory, now_ms), spec, now_ms)
        keep = 0 if memory.deserted(spec, now_ms) else max(want.slots, want.busy, peak)
        return growth, shrink(supply, spec, now_ms, keep=keep, least=least, most=most)
    return growth, Shrinkage()


DEMAND_UNKNOWN = Why(Hold.DEMAND_UNKNOWN, "the pool's demand is not known")


def missing(demand: Demand | None, fleet: Fleet, spec: FleetSpec, now_ms: int) -> Why | None:
    """Why nothing may be decided; None when all that is needed is known and new enough."""
    if demand is None or None in (demand.waiting, demand.in_use, demand.capacity):
        return DEMAND_UNKNOWN
    if now_ms - demand.at_ms > spec.stale_ms:
        age_s = (now_ms - demand.at_ms) / 1000
        return Why(Hold.DEMAND_OLD, f"the pool's demand is {age_s:.0f} s old")
    if fleet.members is None:
        return Why(Hold.FLEET_UNKNOWN, "the instances are not known")
    if now_ms - fleet.at_ms > spec.stale_ms:
        age_s = (now_ms - fleet.at_ms) / 1000
        return Why(Hold.FLEET_OLD, f"the view of the fleet is {age_s:.0f} s old")
    if demand.paused:
        return Why(Hold.POOL_PAUSED, "the pool is paused")
    if not demand.elastic:
        words = f"the pool's capacity is a fixed number ({demand.capacity}): no worker changes it"
        return Why(Hold.CAPACITY_FIXED, words)
    ready = [member for member in fleet.members if member.state == "ready"]
    silent = [m for m in ready if not m.usable or _silent_ms(m, now_ms) > spec.stale_ms]
    if 2 * len(silent) > len(ready):
        words = f"{len(silent)} of {len(ready)} workers are silent or unready all at once"
        return Why(Hold.WORKERS_SILENT, words)
    return None


def supply_of(fleet: Fleet, spec: FleetSpec, now_ms: int) -> tuple[Member, ...]:
    """Who is ready or will be: neither draining nor taken back, nor unusable, nor silent for
    long."""
    return tuple(
        member
        for member in fleet.members or ()
        if member.ends_ms is None
        and member.usable
        and (
            member.state in LOADING
            or (member.state == "ready" and _silent_ms(member, now_ms) <= spec.silence_ms)
        )
    )


def _silent_ms(member: Member, now_ms: int) -> int:
    """A worker that never reported counts from when it became ready."""
    return now_ms - (member.heard_ms if member.heard_ms is not None else member.since_ms)


def _bounds(
    demand: Demand, supply: tuple[Member, ...], spec: FleetSpec, memory: Memory, now_ms: int
) -> tuple[int, int]:
    """(least, most) workers now. There is one for whoever is there, and the last one stays for a
    while after them."""
    lead = round(memory.boot_ms(spec))
    least, most = schedule.bounds(spec.schedule, spec.workers_min, spec.workers_max, now_ms, lead)
    if demand.waiting or demand.in_use or (supply and not memory.deserted(spec, now_ms)):
        least = min(most, max(least, 1))
    return least, most


def _lacking(want: Want, slots: int, spec: FleetSpec, memory: Memory, now_ms: int) -> int:
    """Slots that are wanted now: once more has been wanted for a while, or at once in a surge."""
    if want.urgent:
        return want.wished - slots
    since = memory.short_since_ms
    lasted = since is not None and now_ms - since >= spec.up_after_ms
    return want.wished - slots if lasted else 0


def _may_shrink(
    supply: tuple[Member, ...], spec: FleetSpec, memory: Memory, now_ms: int, *, useless: bool
) -> bool:
    """Only what was watched for long enough, with every ready worker heard, in no surge, while
    nobody waits too long; but for workers whose slots are ``useless`` to all of them."""
    watched = memory.since_ms is not None and now_ms - memory.since_ms >= span_ms(
        spec, memory, now_ms
    )
    heard = all(m.loading or _silent_ms(m, now_ms) <= spec.stale_ms for m in supply)
    calm = memory.late_since_ms is None and now_ms >= memory.panic_until_ms
    return watched and heard and (calm or useless) and not memory.pending


def _ordered(growth: Growth, now_ms: int) -> tuple[Pending, ...]:
    return tuple(
        Pending(
            launch.id,
            launch.place.name,
            launch.place.market,
            launch.place.slots,
            launch.place.price_per_hour,
            now_ms,
        )
        for launch in growth.launches
    )


def _reason(want: Want, growth: Growth, shrinkage: Shrinkage, slots: int) -> str:
    there = f"{slots} are there or coming"
    if growth.launches or growth.undrains:
        more = len(growth.launches) + len(growth.undrains)
        reason = (growth.launches or growth.undrains)[0].reason
        limit = f"; no more, {growth.short.words}" if growth.short else ""
        return f"{more} more: {reason}; {there}{limit}"
    if shrinkage.drains or shrinkage.terminations:
        acts = (*shrinkage.drains, *shrinkage.terminations)
        return f"{len(acts)} fewer: {acts[0].reason}"
    if growth.short:
        return f"more is wanted, but {growth.short.words}: {want.why}; {there}"
    return f"as it is: {want.why}; {there}"


def _numbers(
    demand: Demand,
    members: tuple[Member, ...],
    slots: int,
    spec: FleetSpec,
    bounds: tuple[int, int],
) -> dict[str, float | int | None]:
    load = gpu_load(members)
    return {
        "workers_ready": sum(member.state == "ready" for member in members),
        "workers_loading": sum(member.loading for member in members),
        "workers_draining": sum(member.state == "draining" for member in members),
        "workers_least": bounds[0],
        "workers_most": bounds[1],
        "supply_slots": slots,
        "capacity": demand.capacity,
        "in_use": demand.in_use,
        "waiting": demand.waiting,
        "wait_ms": demand.wait_ms,
        "gpu_load": None if load is None else round(load, 3),
        "slots_most": demand.slots_most,
        "hourly_budget": spec.hourly_budget,
        "cost_per_hour": round(sum(m.price_per_hour for m in members if m.ours), 6),
    }
