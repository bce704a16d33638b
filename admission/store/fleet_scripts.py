"""The fleet's keys on Redis, and how its scripts are run: each on all of them."""

from functools import cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis

from admission.clock import Clock
from admission.store import fence as fences
from admission.store import names, scripts
from admission.store.connection import answering
from admission.store.fence import Fence, Fenced

KEYS = [*(names.fleet_key(key.name) for key in names.FLEET_KEYS), names.TICKS_KEY]


class FleetScripts:
    """Those in ``lua/fleet``, by name."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis, self._clock = redis, clock

    async def run(
        self, script: str, fence: Fence | None = None, **given: str | bytes | int
    ) -> list[str]:
        """Its answer, the tag first.

        Raises:
            Fenced: another holds the lease of the fence's tick by now.
            StoreUnavailable.
        """
        source, contract = _script(script)
        if fence is not None:
            given |= {"tick": fence.tick, "epoch": fence.epoch}
        given = {"now_ms": self._clock.now_ms(), **given}
        assert given.keys() == set(contract.arguments), script
        arguments = [given[name] for name in contract.arguments]
        with answering():
            call: Any = self._redis.eval(source, len(KEYS), *KEYS, *arguments)
            reply = [part.decode() if isinstance(part, bytes) else part for part in await call]
        if reply[0] == "fenced":
            raise Fenced(str(fence))
        return reply


@cache
def _script(name: str) -> tuple[str, scripts.Contract]:
    folder = files("admission.store") / "lua"
    keys = [*(key.name for key in names.FLEET_KEYS), "ticks"]
    fields = ", ".join(f"{key} = KEYS[{i}]" for i, key in enumerate(keys, 1))
    clock, records, script = (
        (folder / f"{part}.lua").read_text()
        for part in ("lib/clock", "fleet/records", f"fleet/{name}")
    )
    head = f"local FLEET = {{ {fields} }}"
    return "\n".join([head, clock, fences.LUA, records, script]), scripts.read_contract(script)
