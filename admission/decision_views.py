"""JSON out: what the autoscaler decided of a pool, and the news of it. Spans in seconds."""

from typing import Any

from admission.decided import Decided, Obstacle
from admission.instance import Event
from admission.views import iso

COUNTS = (
    "workers_ready", "workers_loading", "workers_draining", "workers_least", "workers_most",
    "wanted_slots", "supply_slots", "slots_most", "capacity", "in_use", "waiting",
)  # fmt: skip
NUMBERS = ("load", "backlog", "gpu_load", "cost_per_hour", "hourly_budget")
SPANS = {
    "estimated_wait": "wait_ms",
    "wait_target": "wait_target_ms",
    "held": "held_ms",
    "boot": "boot_ms",
}
DECISION_VIEWS = {
    "Obstacle": {"code": "string", "reason": "string", "since": "instant"},
    "Decision": {
        "pool": "string", "at": "instant", "reason": "string", "hold": "Obstacle?",
        "short": "Obstacle?", "acted_at": "instant?", "acted": "string?", "cold_start": "number?",
        **dict.fromkeys(COUNTS, "integer?"), **dict.fromkeys(NUMBERS, "number?"),
        **dict.fromkeys(SPANS, "number?"), "arrivals_per_second": "number?",
    },
    "Fleet": {"pools": "[]Decision"},
}  # fmt: skip
"""How they look, in the short words of ``openapi.VIEWS``."""


def decided_view(pool: str, decided: Decided) -> dict[str, Any]:
    """One pool of ``GET /admin/fleet``; null what is not known, as all numbers are in a hold."""
    numbers = decided.numbers
    return {
        "pool": pool,
        "at": iso(decided.at_ms),
        "reason": decided.reason,
        "hold": _obstacle(decided.hold),
        "short": _obstacle(decided.short),
        "acted_at": iso(decided.acted_ms),
        "acted": decided.acted or None,
        "cold_start": _seconds(decided.cold_start_ms),
        **{name: numbers.get(name) for name in (*COUNTS, *NUMBERS)},
        **{name: _seconds(numbers.get(kept)) for name, kept in SPANS.items()},
        "arrivals_per_second": numbers.get("arrivals_per_s"),
    }


def pool_event_view(event: Event) -> dict[str, Any]:
    """One event of a pool on ``/admin/events``; ``pool`` null where it is all of the fleet's."""
    return {
        "pool": event.detail.get("pool"),
        "at": iso(event.at_ms),
        "name": event.name,
        "reason": event.reason,
        "ok": event.ok,
        "detail": {name: value for name, value in event.detail.items() if name != "pool"},
    }


def _obstacle(obstacle: Obstacle | None) -> dict[str, Any] | None:
    if obstacle is None:
        return None
    return {
        "code": obstacle.code,
        "reason": obstacle.reason,
        "since": iso(obstacle.since_ms),
    }


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else round(ms / 1000, 3)
