"""Less capacity: who drains, least useful first, and who is ended."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from scheduler.autoscale.decision import Act
from scheduler.autoscale.fleet import Member
from scheduler.autoscale.memory import Memory
from scheduler.autoscale.places import SPOT
from scheduler.autoscale.spec import FleetSpec

CENT = 0.01  # of an hour's price, so that sums of fractions do not count
SETTLED_MS = 2_000  # after a drain began, no gateway sends more (DESIGN section 5: within 1 s)


class Shrinkage(Struct, frozen=True):
    """Drains begun, and instances that end at once."""

    drains: tuple[Act, ...] = ()
    terminations: tuple[Act, ...] = ()


def end_drained(members: Iterable[Member], spec: FleetSpec, now_ms: int) -> tuple[Act, ...]:
    """Those that drained: empty since the drain began, or out of time."""
    ends = []
    for member in members:
        if member.state != "draining" or not member.ours:
            continue
        heard = member.heard_ms or 0
        new = heard >= member.since_ms + SETTLED_MS and now_ms - heard <= spec.stale_ms
        if member.in_use == 0 and new:
            ends.append(Act(member.id, "it has drained"))
        elif member.drain_by_ms is not None and member.drain_by_ms <= now_ms:
            ends.append(Act(member.id, "its time to drain is over"))
    return tuple(ends)


def leave_doomed(members: Iterable[Member]) -> tuple[Act, ...]:
    """Those that their provider takes back: nothing new is begun on them."""
    return tuple(
        Act(member.id, "its provider takes it back", member.ends_ms)
        for member in members
        if member.ours and member.state == "ready" and member.ends_ms is not None
    )


def span_ms(spec: FleetSpec, memory: Memory, now_ms: int) -> int:
    """Over how long a surplus is looked at: shorter where the GPUs have nothing to do, and after
    a surge that is over."""
    idle, slump = memory.idle_since_ms, memory.slump_ms
    if idle is not None and now_ms - idle >= spec.idle_after_ms:
        return spec.idle_after_ms
    if slump is not None and now_ms - slump <= spec.surplus_after_ms:
        return spec.idle_after_ms
    return spec.surplus_after_ms


def exceeds(supply: Iterable[Member], spec: FleetSpec, most: int) -> bool:
    """Whether there are more workers, or dearer ones, than there may be: a bound was lowered."""
    ours = [member for member in supply if member.ours]
    cost = sum(member.price_per_hour for member in ours)
    over_budget = spec.hourly_budget is not None and cost > spec.hourly_budget + CENT
    return len(ours) > most or over_budget


def shrink(
    supply: Sequence[Member],
    spec: FleetSpec,
    now_ms: int,
    *,
    keep: int,
    least: int,
    most: int,
) -> Shrinkage:
    """Down to ``keep`` slots and ``least`` workers; within the bounds whatever is wanted.

    The order is `_rank`'s. One that is not picked leaves its chance to the next: with workers of
    several sizes a smaller one may fit where a larger did not.
    """
    left = list(supply)
    drains, ends = [], []
    for member in sorted((each for each in supply if each.ours and not each.kept), key=_rank):
        slots, over = sum(each.slots for each in left), exceeds(left, spec, most)
        ondemand = sum(each.market != SPOT for each in left if each.ours)
        based = member.market != SPOT and ondemand <= spec.ondemand_base
        surplus = slots - member.slots >= keep and len(left) > least and not based
        if not surplus and not over:
            continue
        words = f"{slots - keep} of {slots} slots were not wanted for a while"
        if over:
            words = "there is more than the bounds allow"
        if member.loading:
            ends.append(Act(member.id, f"it still loads: {words}"))
        else:
            drains.append(Act(member.id, words, now_ms + spec.drain_ms))
        left.remove(member)
    return Shrinkage(tuple(drains), tuple(ends))


def _rank(member: Member) -> tuple[bool, float, int, float, int, str]:
    """Least useful first: one that still loads serves nobody; then the dearest slot, the fewest in
    use (unknown: as if full), the lowest GPU load, the youngest, whose cache is the emptiest."""
    return (
        not member.loading,
        -member.price_per_hour / max(1, member.slots),
        member.slots if member.in_use is None else member.in_use,
        1.0 if member.gpu_load is None else member.gpu_load,
        -(member.ready_ms or member.requested_ms),
        member.id,
    )
