"""How long the queues are, as CloudWatch reads it: a line of JSON on a function's standard output.

CloudWatch makes metrics of such lines by itself (CloudWatch User Guide, "Embedded metric format
specification"), and ``infra/aws/terraform`` an alarm of one. Knows no users.
"""

import json
import sys
from typing import Any

from admission.store.redis_store import RedisStore

NAMESPACE = "Vestibule"
METRICS = {"waiting": "Count", "first_waits_s": "Seconds"}
"""Name -> unit: how many wait, and how long whoever is first has waited; 0 when nobody does."""


async def tell(store: RedisStore, function: str) -> None:
    """Write a line for each pool, as measured by the function of that name.

    Raises:
        StoreUnavailable.
    """
    for pool in await store.pools():
        sys.stdout.write(json.dumps(await _measured(store, pool, function)) + "\n")
    sys.stdout.flush()


async def _measured(store: RedisStore, pool: str, function: str) -> dict[str, Any]:
    metrics = await store.metrics(pool)
    first = await store.waiting(pool, offset=0, limit=1)
    waits_ms = max(0, metrics.now_ms - first[0].joined_ms) if first else 0
    about = {
        "Namespace": NAMESPACE,
        # Over all pools, for the alarm, and of each.
        "Dimensions": [["function"], ["function", "pool"]],
        "Metrics": [{"Name": name, "Unit": unit} for name, unit in METRICS.items()],
    }
    return {
        "_aws": {"Timestamp": metrics.now_ms, "CloudWatchMetrics": [about]},
        "function": function,
        "pool": pool,
        "waiting": metrics.waiting,
        "first_waits_s": waits_ms / 1000,
    }
