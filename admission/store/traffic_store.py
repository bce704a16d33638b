"""What the gateways have running on the workers: each process tells its own and hears the sum.

A process that dies is silent, and what it told ends at a stored deadline. Knows no addresses: a
process is a random name.
"""

import json
import secrets
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis

from admission.clock import Clock
from admission.store import names, scripts
from admission.store.connection import answering

LEASE_MS = 5_000
"""How long a process' word counts: it gives it every second (``directory``)."""


class TrafficStore:
    """One process' part in it. Raises StoreUnavailable when Redis does not answer."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._process = secrets.token_hex(8)

    async def exchange(self, running: Mapping[str, int]) -> dict[str, int]:
        """Tell how many requests of this process run on each worker; what those of all others do.

        One call, whatever the number of processes: the sums are kept as they change.
        """
        own = {worker: count for worker, count in sorted(running.items()) if count > 0}
        source, contract = _script()
        given: dict[str, str | int] = {
            "now_ms": self._clock.now_ms(),
            "process": self._process,
            "counts": json.dumps(own),
            "lease_ms": LEASE_MS,
        }
        arguments = scripts.arguments(contract, given)
        with answering():
            call: Any = self._redis.eval(
                source, len(names.TRAFFIC_KEYS), *names.TRAFFIC_KEYS, *arguments
            )
            _, found = await call
        total = {found[i].decode(): int(found[i + 1]) for i in range(0, len(found), 2)}
        others = {worker: count - own.get(worker, 0) for worker, count in total.items()}
        return {worker: count for worker, count in others.items() if count > 0}

    async def running(self) -> dict[str, int]:
        """How many requests all gateways have running on each worker, as they told last."""
        with answering():
            call: Any = self._redis.hgetall(names.TRAFFIC_KEYS[0])
            found = await call
        return {worker.decode(): int(count) for worker, count in found.items()}


@cache
def _script() -> tuple[str, scripts.Contract]:
    folder = files("admission.store") / "lua"
    text = (folder / "traffic" / "exchange.lua").read_text()
    return (folder / "lib" / "clock.lua").read_text() + text, scripts.read_contract(text)
