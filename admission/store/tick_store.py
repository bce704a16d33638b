"""The leases of the ticks on Redis, and what is known of each tick's runs.

A lease has a holder, a deadline and an epoch: a number that is given once, ever, and grows with
each holder. Who was paused and wakes up late holds an epoch that is no longer the last one, and
what it still writes can be refused by it (``fence``).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis

from admission.clock import Clock
from admission.store import names, scripts
from admission.store.connection import answering

LEASE_MS = 5_000
"""How long a lease is good for, and so how long at most no tick runs when their holder is killed.

It is renewed about every second: a holder may miss four beats, for a pause of its process or one of
Redis' server, which answers within 5 s or counts as away (``connection``).
"""


@dataclass(frozen=True)
class LastRun:
    """A run that ended ``ended_ms`` ago; the tick is due in ``due_ms``. ``error``: None, or why it
    failed."""

    ended_ms: int
    took_ms: int
    due_ms: int
    error: str | None = None


@dataclass(frozen=True)
class Word:
    """What a clockwork says of one tick. Counts are those since it got ``epoch``, so that a word
    that comes twice counts once; 0: it holds no lease. ``running_ms``: one runs since so long."""

    period_ms: int
    epoch: int = 0
    runs: int = 0
    failures: int = 0
    running_ms: int | None = None
    last: LastRun | None = None
    leave: bool = False

    def told(self) -> dict[str, Any]:
        """As ``beat.lua`` takes it; what is None is left out."""
        last = self.last and {k: v for k, v in vars(self.last).items() if v is not None}
        said = {**vars(self), "last": last}
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True)
class Lease:
    """``epoch``: 0 while somebody else holds it, whose lease is good for ``left_ms``."""

    epoch: int
    due_ms: int
    left_ms: int


@dataclass(frozen=True)
class TickFacts:
    """One tick as all clockworks know it; instants in ms since 1970, None for what never was.

    ``holder`` None: nobody's lease is good. ``due_ms``: not before. ``running_ms``: since when.
    """

    name: str
    holder: str | None
    epoch: int
    until_ms: int
    period_ms: int
    due_ms: int
    runs: int
    failures: int
    running_ms: int | None
    ended_ms: int | None
    took_ms: int | None
    done_ms: int | None
    error: str | None
    error_ms: int | None


class TickStore:
    """Raises StoreUnavailable when Redis does not answer."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock

    def passed_ms(self) -> float:
        """Milliseconds on a clock of this process that measures spans of the store's time."""
        return self._clock.passed_ms()

    async def beat(self, owner: str, words: Mapping[str, Word]) -> dict[str, Lease]:
        """Tell what was run, extend the leases one holds, and take those that nobody does.

        One call, whatever the number of ticks. Repeating it does no harm.
        """
        told = {name: word.told() for name, word in words.items()}
        _, *found = await self._run("beat", owner=owner, lease_ms=LEASE_MS, words=json.dumps(told))
        rows = zip(*[iter(found)] * 4, strict=True)
        return {name.decode(): Lease(*map(int, numbers)) for name, *numbers in rows}

    async def all(self) -> list[TickFacts]:
        """Every tick that anybody ran within a week, sorted by name."""
        _, now_ms, found = await self._run("list")
        rows = ((found[i].decode(), json.loads(found[i + 1])) for i in range(0, len(found), 2))
        return [_facts(name, kept, int(now_ms)) for name, kept in sorted(rows)]

    async def _run(self, name: str, **given: str | int) -> list[Any]:
        text, contract = _script(name)
        arguments = scripts.arguments(contract, {"now_ms": self._clock.now_ms(), **given})
        with answering():
            call: Any = self._redis.eval(text, 1, names.TICKS_KEY, *arguments)
            reply: list[Any] = await call
            return reply


@cache
def _script(name: str) -> tuple[str, scripts.Contract]:
    folder = files("admission.store") / "lua"
    text = (folder / "ticks" / f"{name}.lua").read_text()
    return (folder / "lib" / "clock.lua").read_text() + text, scripts.read_contract(text)


def _facts(name: str, kept: dict[str, Any], now_ms: int) -> TickFacts:
    is_held = kept["until_ms"] > now_ms
    return TickFacts(
        name=name,
        holder=kept["owner"] if is_held else None,
        epoch=kept["epoch"],
        until_ms=kept["until_ms"],
        period_ms=kept["period_ms"],
        due_ms=kept["due_ms"],
        runs=kept["runs"],
        failures=kept["failures"],
        running_ms=kept.get("running_ms") if is_held else None,
        ended_ms=kept.get("ended_ms"),
        took_ms=kept.get("took_ms"),
        done_ms=kept.get("done_ms"),
        error=kept.get("error"),
        error_ms=kept.get("error_ms"),
    )
