"""What is kept and told of an autoscaler's decision. Pure.

All of it is kept, each time, for ``GET /admin/fleet``. A line of the history, for who follows
``/admin/events``, comes only of what is news: that something is asked for, or that a hold or a
shortage begins, becomes another or ends. One that comes and goes is told of once in a minute.
"""

from msgspec import Struct

from admission.decided import Decided, Obstacle
from admission.instance import Event
from scheduler.autoscale import Decision
from scheduler.autoscale.decision import Why

AGAIN_MS = 60_000
REASON_MAX = 500  # characters of it in the history


class Told(Struct, frozen=True):
    """What was told last: the codes of hold and shortage, "" for none."""

    hold: str = ""
    short: str = ""
    at_ms: int = 0


def decided_of(
    decision: Decision,
    before: Decided | None,
    now_ms: int,
    *,
    gap_ms: int,
    cold_start_ms: int | None = None,
) -> Decided:
    """As it is kept, after what was decided ``before``: what is in the way lasts only where that
    was no more than ``gap_ms`` ago."""
    acted = (before.acted_ms, before.acted) if before else (None, "")
    if decision.acts:
        acted = (now_ms, decision.reason)
    if before is not None and now_ms - before.at_ms > gap_ms:
        before = None
    hold, short = (before.hold, before.short) if before else (None, None)
    return Decided(
        at_ms=now_ms,
        reason=decision.reason,
        hold=_lasting(decision.hold, hold, now_ms),
        short=short if decision.hold else _lasting(decision.short, short, now_ms),
        acted_ms=acted[0],
        acted=acted[1],
        cold_start_ms=cold_start_ms,
        numbers=decision.numbers,
    )


def news_of(
    decision: Decision, decided: Decided, told: Told, pool: str
) -> tuple[Event | None, Told]:
    """The line of history, if it is news, and what was told by then."""
    now = Told(_code(decided.hold), _code(decided.short), decided.at_ms)
    changed = (now.hold, now.short) != (told.hold, told.short)
    if not decision.acts and not (changed and now.at_ms - told.at_ms >= AGAIN_MS):
        return None, told
    stuck = "hold" if now.hold else "short" if now.short else "go_on"
    name = "scale" if decision.acts else stuck
    detail = {
        "pool": pool,
        "hold": now.hold or None,
        "short": now.short or None,
        **{
            each: len(getattr(decision, each))
            for each in ("launches", "drains", "undrains", "terminations")
        },
        **decision.numbers,
    }
    reason, ok = decision.reason[:REASON_MAX], name in ("scale", "go_on")
    return Event("", decided.at_ms, 0, name, reason=reason, ok=ok, detail=detail), now


def _lasting(why: Why | None, before: Obstacle | None, now_ms: int) -> Obstacle | None:
    """What is in the way now, since when it is."""
    if why is None:
        return None
    lasts = before is not None and before.code == why.code
    return Obstacle(why.code, why.words, before.since_ms if before and lasts else now_ms)


def _code(obstacle: Obstacle | None) -> str:
    return "" if obstacle is None else obstacle.code
