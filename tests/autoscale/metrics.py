"""A pool's metrics, as ``RedisStore.metrics`` gives them."""

from typing import Any

from admission.domain import PoolMetrics


def metrics(**facts: Any) -> PoolMetrics:
    """An elastic pool that nobody uses, but for ``facts``."""
    known: dict[str, Any] = {
        "now_ms": 1_800_000_000_000,
        "capacity": 8,
        "active": 0,
        "draft": 0,
        "finishing": 0,
        "waiting": 0,
        "free": 8,
        "paused": False,
        "granting": True,
        "ready_workers": 2,
        "admitted_total": 0,
        "expired_total": 0,
        "abandoned_total": 0,
        "settings": {"capacity": "auto", "max_active": 50},
    }
    return PoolMetrics(**{**known, **facts})
