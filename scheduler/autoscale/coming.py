"""Which machines are on their way, for who waits: how many slots, when, and how sure that is."""

from admission.domain import Coming
from scheduler.autoscale.decision import Decision
from scheduler.autoscale.fleet import Fleet
from scheduler.autoscale.memory import Memory
from scheduler.autoscale.spec import FleetSpec

LEAST = 0.1  # of a boot is left of one that is overdue: it is not said to be ready at once
STANDARD = 1.25  # standard deviations in a mean deviation, where errors are normal: sqrt(pi / 2)
UNLEARNT = 0.25  # of a boot, as deviation before any boot was seen


def coming(
    fleet: Fleet, decision: Decision, memory: Memory, spec: FleetSpec, now_ms: int
) -> list[Coming] | None:
    """Those that load and are wanted, and those that were ordered: after ``decision``, with the
    ``memory`` it left. None: the instances are not known."""
    if fleet.members is None:
        return None
    given_up = {act.id for act in (*decision.drains, *decision.terminations)}
    due = [
        (member.worker_id or member.id, member.slots, member.requested_ms)
        for member in fleet.members
        if member.loading and member.usable and member.ends_ms is None and member.id not in given_up
    ]
    due += [(each.id, each.slots, each.at_ms) for each in memory.pending]
    return [_coming(*each, spec, memory, now_ms) for each in due]


def _coming(
    worker: str, slots: int, ordered_ms: int, spec: FleetSpec, memory: Memory, now_ms: int
) -> Coming:
    """Who is late already may be as late again."""
    boot_ms = memory.boot_ms(spec)
    rest_ms = ordered_ms + boot_ms - now_ms
    spread_ms = boot_ms * UNLEARNT
    if memory.boot.mean_ms is not None:
        spread_ms = memory.boot.deviation_ms * STANDARD
    return Coming(
        worker,
        slots,
        in_ms=round(max(rest_ms, boot_ms * LEAST)),
        spread_ms=round(spread_ms + max(0.0, -rest_ms)),
    )
