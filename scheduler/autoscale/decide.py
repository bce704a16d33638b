"""One decision, put together. Pure: the same arguments give the same result."""

from msgspec.structs import replace

from scheduler.autoscale import schedule
from scheduler.autoscale.decision import Decision
from scheduler.autoscale.demand import Demand
from scheduler.autoscale.fleet import LOADING, Fleet, Member
from scheduler.autoscale.growing import Growth, grow
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
        return Decision(reason=f"hold: {why}", hold=why), memory
    memory = memory.seen(demand, fleet, spec, now_ms)
    supply = supply_of(fleet, spec, now_ms)
    want = size(demand, supply, spec, memory, now_ms)
    slots = sum(m.slots for m in supply) + sum(p.slots for p in memory.pending)
    memory = memory.wanted(want.slots, want.steady, slots, spec, now_ms)
    least, most = _bounds(demand, supply, spec, memory, now_ms)
    growth, shrinkage = _step(fleet, supply, want, slots, spec, memory, now_ms, (least, most))
    back = {act.id for act in growth.undrains}
    stay = [member for member in fleet.members if member.id not in back]
    decision = Decision(
        reason=_reason(want, growth, shrinkage, slots),
        launches=growth.launches,
        drains=(*leave_doomed(fleet.members), *shrinkage.drains),
        undrains=growth.undrains,
        terminations=(*end_drained(stay, spec, now_ms), *shrinkage.terminations),
        cold_start_ms=_cold_start_ms(fleet.members, growth, spec, memory, now_ms),
        numbers=want.numbers | _numbers(demand, fleet.members, slots, least, most),
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
    """One of the two ways, or neither. A bound that was lowered comes before everything."""
    least, most = bounds
    if exceeds(supply, spec, most):
        return Growth(), shrink(supply, spec, now_ms, keep=slots, least=least, most=most)
    lacking = _lacking(want, slots, spec, memory, now_ms)
    workers = least - len(supply) - len(memory.pending)
    if lacking > 0 or workers > 0:
        reason = want.why if lacking > 0 else f"at least {least} workers are to be there"
        return (
            grow(
                fleet,
                memory,
                spec,
                now_ms,
                slots=lacking,
                workers=workers,
                most=most,
                reason=reason,
            ),
            Shrinkage(),
        )
    if _may_shrink(supply, spec, memory, now_ms):
        peak = memory.peak(span_ms(spec, memory, now_ms), spec, now_ms)
        keep = 0 if memory.deserted(spec, now_ms) else max(want.slots, want.busy, peak)
        return Growth(), shrink(supply, spec, now_ms, keep=keep, least=least, most=most)
    return Growth(), Shrinkage()


def missing(demand: Demand | None, fleet: Fleet, spec: FleetSpec, now_ms: int) -> str:
    """Why nothing may be decided; "" when all that is needed is known and new enough."""
    if demand is None or None in (demand.waiting, demand.in_use, demand.capacity):
        return "the pool's demand is not known"
    if now_ms - demand.at_ms > spec.stale_ms:
        return f"the pool's demand is {(now_ms - demand.at_ms) / 1000:.0f} s old"
    if fleet.members is None:
        return "the instances are not known"
    if now_ms - fleet.at_ms > spec.stale_ms:
        return f"the view of the fleet is {(now_ms - fleet.at_ms) / 1000:.0f} s old"
    if demand.paused:
        return "the pool is paused"
    if not demand.elastic:
        return "the pool's capacity is a fixed number: workers would not change it"
    ready = [member for member in fleet.members if member.state == "ready"]
    silent = [m for m in ready if not m.usable or _silent_ms(m, now_ms) > spec.stale_ms]
    if 2 * len(silent) > len(ready):
        return f"{len(silent)} of {len(ready)} workers are silent or unready all at once"
    return ""


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
    """Slots to be had now: once more has been wanted for a while, or at once in a surge."""
    if want.urgent:
        return want.slots - slots
    since = memory.short_since_ms
    lasted = since is not None and now_ms - since >= spec.up_after_ms
    return want.slots - slots if lasted else 0


def _may_shrink(supply: tuple[Member, ...], spec: FleetSpec, memory: Memory, now_ms: int) -> bool:
    """Only what was watched for long enough, in no surge, while nobody waits too long, with every
    ready worker heard."""
    watched = memory.since_ms is not None and now_ms - memory.since_ms >= span_ms(
        spec, memory, now_ms
    )
    heard = all(m.loading or _silent_ms(m, now_ms) <= spec.stale_ms for m in supply)
    calm = memory.late_since_ms is None and now_ms >= memory.panic_until_ms
    return watched and heard and calm and not memory.pending


def _cold_start_ms(
    members: tuple[Member, ...], growth: Growth, spec: FleetSpec, memory: Memory, now_ms: int
) -> int | None:
    if any(member.state == "ready" for member in members) or growth.undrains:
        return None
    boot_ms = memory.boot_ms(spec)
    begun = [m.requested_ms for m in members if m.loading] + [p.at_ms for p in memory.pending]
    begun += [now_ms] * bool(growth.launches)
    # One that is overdue is not said to be ready at once: a tenth of a boot is left.
    rests = (max(boot_ms / 10, at + boot_ms - now_ms) for at in begun)
    rest = min(rests, default=None)
    return None if rest is None else round(rest)


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
        limit = f"; no more, {growth.short}" if growth.short else ""
        return f"{more} more: {reason}; {there}{limit}"
    if growth.short:
        return f"more is wanted, but {growth.short}: {want.why}; {there}"
    if shrinkage.drains or shrinkage.terminations:
        acts = (*shrinkage.drains, *shrinkage.terminations)
        return f"{len(acts)} fewer: {acts[0].reason}"
    return f"as it is: {want.why}; {there}"


def _numbers(
    demand: Demand, members: tuple[Member, ...], slots: int, least: int, most: int
) -> dict[str, float | int | None]:
    load = gpu_load(members)
    return {
        "supply_slots": slots,
        "capacity": demand.capacity,
        "in_use": demand.in_use,
        "waiting": demand.waiting,
        "wait_ms": demand.wait_ms,
        "gpu_load": None if load is None else round(load, 3),
        "workers_least": least,
        "workers_most": most,
        "cost_per_hour": round(sum(m.price_per_hour for m in members if m.ours), 6),
    }
