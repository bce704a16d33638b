"""What the autoscaler decided of a pool, in a line."""

from datetime import datetime
from typing import Any

from infra.fleet import figures

OLD_S = 90  # it decides every 5 s, and waits a minute for what it asked to be taken


def line(decision: dict[str, Any], now: datetime) -> str:
    """One pool of ``/admin/fleet``: what is wanted, why there is no more, and for how long."""
    stuck = decision["hold"] or decision["short"]
    since = figures.instant(stuck["since"] if stuck else None)
    facts = [
        _workers(decision),
        f"so for {figures.span((now - since).total_seconds())}" if since else "",
        _age(decision, now),
    ]
    told = "; ".join(filter(None, facts))
    return f"pool {decision['pool']}: {decision['reason']}" + (f" ({told})" if told else "")


def _workers(decision: dict[str, Any]) -> str:
    """Of how many it may be; "" while it holds: it did not look."""
    if decision["workers_ready"] is None:
        return ""
    there = decision["workers_ready"] + decision["workers_loading"]
    return f"{there} of {decision['workers_least']} to {decision['workers_most']} workers"


def _age(decision: dict[str, Any], now: datetime) -> str:
    decided = figures.instant(decision["at"])
    age_s = (now - decided).total_seconds() if decided else 0.0
    return f"nobody has looked for {figures.span(age_s)}" if age_s > OLD_S else ""
