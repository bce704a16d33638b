"""Phases of load: who comes when, how long they would wait and how long they stay, from a seed.

Knows no engine. A to D, G and H are made; E and F come from an hour of real requests, where it is
at hand: the conversation trace of 2023 in Azure's public dataset of LLM inference.
"""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from random import Random

from admission.domain import PoolPolicy

MINUTE = 60_000
HOUR = 60 * MINUTE
CAP = 20 * MINUTE
DRAFT = 5 * MINUTE
PATIENCE = 40 * MINUTE
NO_SHOW = 0.25
CONFIRM_MEAN = 30_000
CONFIRM_LEAST = 3_000
TRACE = Path(__file__).parents[3] / "shared" / "data" / "azure_llm_conv_2023.csv"


@dataclass(frozen=True)
class Visitor:
    """One user's plan, in ms; ``confirms`` is None for a no-show, 0 for no draft at all."""

    comes: int
    patience: float
    confirms: int | None
    stays: float


@dataclass(frozen=True)
class Machine:
    """One that an autoscaler orders, in ms from the start; ``ready`` None: it fails at ``over``."""

    slots: int
    ordered: int
    ready: int | None
    over: int = 0


@dataclass(frozen=True)
class Phase:
    """A load: its visitors by arrival, the pool, and when an autoscaler sets which capacity, or
    which machines it orders; ``told``: whether it says that they are coming."""

    name: str
    meaning: str
    visitors: list[Visitor]
    policy: PoolPolicy
    capacities: dict[int, int] = field(default_factory=dict)  # ms from the start -> slots
    machines: tuple[Machine, ...] = ()
    told: bool = True
    ends: int = 4 * HOUR
    unit_ms: int = MINUTE  # in which errors are shown
    seeded: bool = True  # False: every seed is the same day
    asks: bool = True  # False: who is next has the slot at once

    @property
    def drafts(self) -> bool:
        """A request pool knows none."""
        return self.asks and self.policy.kind == "session"


Maker = Callable[[Random], Phase]


def poisson(chance: Random, start: int, end: int, per_minute: float) -> Iterator[int]:
    """Arrivals of a Poisson process in [start, end)."""
    at = start + chance.expovariate(per_minute / MINUTE)
    while at < end:
        yield int(at)
        at += chance.expovariate(per_minute / MINUTE)


def _people(
    chance: Random, comings: Iterator[int], *, patient: bool = False, stay: bool = False
) -> list[Visitor]:
    return [
        Visitor(
            comes,
            math.inf if patient else chance.expovariate(1 / PATIENCE),
            None
            if chance.random() < NO_SHOW
            else CONFIRM_LEAST + int(chance.expovariate(1 / CONFIRM_MEAN)),
            math.inf if stay else chance.expovariate(1 / (15 * MINUTE)),
        )
        for comes in comings
    ]


def _pool(slots: int) -> PoolPolicy:
    # Nobody is sent away for being idle: these visitors never are.
    return PoolPolicy(capacity=slots, session_ms=CAP, draft_ms=DRAFT, idle_ms=24 * HOUR)


def steady(chance: Random) -> Phase:
    """A: more come than are served, evenly; who loses patience leaves."""
    people = _people(chance, poisson(chance, 0, 4 * HOUR, 6))
    return Phase("A", "steady overload", people, _pool(50))


def surge(chance: Random) -> Phase:
    """B: an hour of twice what the slots can serve, between calm hours."""

    def comings() -> Iterator[int]:
        yield from poisson(chance, 0, HOUR, 4)
        yield from poisson(chance, HOUR, 2 * HOUR, 10)
        yield from poisson(chance, 2 * HOUR, 4 * HOUR, 3)

    return Phase("B", "surge, then calm", _people(chance, comings()), _pool(50))


def waves(chance: Random) -> Phase:
    """C: two events, all within ten minutes each; nobody loses patience, all stay to the cap."""

    def comings() -> Iterator[int]:
        yield from poisson(chance, 0, 10 * MINUTE, 20)
        yield from poisson(chance, 3 * HOUR, 3 * HOUR + 10 * MINUTE, 15)

    people = _people(chance, comings(), patient=True, stay=True)
    return Phase("C", "session waves", people, _pool(50), ends=5 * HOUR)


def autoscaling(chance: Random) -> Phase:
    """D: a surge that an autoscaler answers after 20 minutes: from 50 slots to 80."""

    def comings() -> Iterator[int]:
        yield from poisson(chance, 0, HOUR, 4)
        yield from poisson(chance, HOUR, 3 * HOUR, 10)
        yield from poisson(chance, 3 * HOUR, 4 * HOUR, 3)

    people = _people(chance, comings())
    scaled = {HOUR + 20 * MINUTE: 80}
    return Phase("D", "surge, 50 -> 80 slots", people, _pool(50), scaled)


BOOT = 6 * MINUTE
BOOT_SPREAD = 0.2  # standard deviation of its logarithm
STEP = 20 * MINUTE  # a machine more, and as many people more as it serves
PER_SLOT = 0.11  # people a minute, of those who come


def growing(chance: Random) -> Phase:
    """H: a load that grows by a machine of 10 slots every 20 minutes, and each is ordered late; one
    of them fails, and the next one is ordered as it does."""

    def comings() -> Iterator[int]:
        for at in range(0, 4 * HOUR, STEP):
            yield from poisson(chance, at, at + STEP, 1 + PER_SLOT * 10 * (2 + at / STEP))

    def boot() -> int:
        return int(BOOT * chance.lognormvariate(0, BOOT_SPREAD))

    machines = [Machine(20, -BOOT, 0)]
    for at in range(STEP, 4 * HOUR, STEP):
        ordered = at
        if at == 6 * STEP:
            ordered += 9 * MINUTE
            machines.append(Machine(10, at, None, ordered))
        machines.append(Machine(10, ordered, ordered + boot()))
    policy = replace(_pool(0), capacity="auto", max_active=1000, sessions_per_slot=1)
    people = _people(chance, comings())
    return Phase("H", "a machine every 20 minutes", people, policy, machines=tuple(machines))


def untold(chance: Random) -> Phase:
    """H, and nobody says that they are coming."""
    return replace(growing(chance), name="H'", meaning="the same, not told", told=False)


def short(chance: Random) -> Phase:
    """G: a fresh service, and sessions of a hundredth of the cap, but for who goes without a word:
    as in a replay of ten minutes by `vestibule load-test` (docs/load-test.md)."""

    def stay() -> float:
        kind = chance.random()
        if kind < 0.045:  # unused for a minute; idle for six
            return MINUTE if kind < 0.03 else 6 * MINUTE
        return chance.uniform(12_500, 15_500) if kind < 0.95 else chance.uniform(8_000, 10_000)

    people = [
        Visitor(comes, chance.uniform(1_000, 10_000) if n % 20 == 0 else math.inf, 0, stay())
        for n, comes in enumerate(poisson(chance, 0, 10 * MINUTE, 18))
    ]
    return Phase("G", "short sessions", people, _pool(5), ends=HOUR // 2, unit_ms=1000, asks=False)


@dataclass(frozen=True)
class Traced:
    """One request of the trace: ms since its first, and its tokens."""

    comes: int
    context: int
    generated: int


def read_trace(path: Path = TRACE) -> list[Traced]:
    """The hour of real requests; empty when the file is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    moments = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
    return [
        Traced(
            int((moment - moments[0]) * 1000),
            int(row["ContextTokens"]),
            int(row["GeneratedTokens"]),
        )
        for moment, row in zip(moments, rows, strict=True)
    ]


PREFILL_PER_S, DECODE_PER_S = 5000, 30
"""Tokens per second of one request: assumed, of a mid-sized model on one GPU under load."""
REQUEST_CAP = 2 * MINUTE
REQUEST_SLOTS = 40
THINNED = 20


def real_requests(_: Random) -> Phase:
    """E: the real hour, each request its own user in a request pool. Its slot is held for its
    context / 5000 + its answer / 30 tokens per second; nobody loses patience."""
    requests = [
        Visitor(
            request.comes,
            math.inf,
            0,
            1000 * (request.context / PREFILL_PER_S + request.generated / DECODE_PER_S),
        )
        for request in read_trace()
    ]
    policy = PoolPolicy(
        kind="request",
        capacity=REQUEST_SLOTS,
        session_ms=REQUEST_CAP,
        lease_ms=REQUEST_CAP,
        grace_ms=24 * HOUR,
    )
    return Phase("E", "real requests", requests, policy, ends=HOUR, unit_ms=1000, seeded=False)


def real_arrivals(chance: Random) -> Phase:
    """F: every 20th real arrival is one user as in A, for a session pool of 100 slots."""
    start = chance.randrange(THINNED)
    comings = (request.comes for request in read_trace()[start::THINNED])
    people = _people(chance, comings)
    return Phase("F", "real arrivals, 1 in 20, as users", people, _pool(100), ends=2 * HOUR)


MADE: tuple[Maker, ...] = (steady, surge, waves, autoscaling, short, growing, untold)
REAL: tuple[Maker, ...] = (real_requests, real_arrivals)
