"""Each policy at several values of its main knob, and costs compared at the same p95 wait.

A policy's *frontier* is the cost that it needs for a p95 wait: of its rows only those count that no
other beats in both, and between two of them the cost is interpolated over log(p95 + 1 s). Rows
whose p95 is over ten minutes are a queue that collapsed, and lead nowhere. Knows no fleet.
"""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from random import Random

from bench.autoscale import ours, peers
from bench.autoscale.day import COUNTS_FROM_S, PRICE, SLOTS, Day, Outcome, Policy
from bench.autoscale.traffic import LOADS, MINUTE, Load
from scheduler.autoscale.staffing import slots_for

SEEDS = (1, 2, 3)
"""Of the reported figures. The knobs' defaults were chosen on seeds 101 and 102."""
COLLAPSED_S = 600.0
OURS = "vestibule"


@dataclass(frozen=True)
class Contender:
    """A policy and its main knob: the values that are played, and the documented one if any."""

    make: Callable[[float], Policy]
    knob: str
    values: tuple[float, ...]
    documented: float | None = None


def _ours(wait_s: float) -> Policy:
    return ours.Ours(ours.spec(wait_target_ms=round(wait_s * 1000)))


CONTENDERS: dict[str, Contender] = {
    OURS: Contender(_ours, "wait target, s", (0.5, 1, 2, 3.5, 5, 8, 15, 30, 60), 5),
    "fixed": Contender(peers.Fixed, "replicas", (9, 10, 11, 12, 13, 14, 15, 16, 18)),
    "request rate": Contender(
        peers.RequestRate, "requests/s each", (0.3, 0.35, 0.4, 0.43, 0.46, 0.5, 0.53, 0.56, 0.6)
    ),
    "queue": Contender(peers.QueueLength, "waiting each", (0.5, 1, 2, 5, 10, 20, 40, 80, 160), 5),
    "queue+running": Contender(
        peers.QueueAndRunning, "in system each", (3, 3.5, 3.8, 4, 4.25, 4.5, 4.75, 5, 5.5)
    ),
    "concurrency": Contender(
        peers.Concurrency, "target use", (0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9), 0.7
    ),
    "GPU use": Contender(
        peers.GpuUtilisation, "target use", (0.55, 0.65, 0.7, 0.75, 0.8, 0.84, 0.87, 0.89, 0.905)
    ),
}


@dataclass(frozen=True)
class Row:
    """One policy at one value of its knob, on all seeds of a load. Seconds, USD a day played."""

    policy: str
    knob: float
    cost: float
    p50: float
    p95: float
    p99: float
    use: float
    launches: float


@cache
def load(number: int, seed: int) -> Load:
    """The load of that number, made once in each process."""
    return LOADS[number](Random(seed))


def play(number: int, seed: int, policy: Policy) -> Outcome:
    """One load under one policy, beginning with what the first quarter of an hour needs."""
    made = load(number, seed)
    held = sum(held for at, held in made.requests if at < COUNTS_FROM_S)
    day = Day(made, seed)
    day.start(max(1, math.ceil(1.1 * held / COUNTS_FROM_S / SLOTS)))
    return day.play(policy)


def row(job: tuple[int, str, float]) -> Row:
    """Play (load, policy, knob) on every seed."""
    number, name, knob = job
    days = [play(number, seed, CONTENDERS[name].make(knob)) for seed in SEEDS]
    waits = sorted(wait for day in days for wait in day.waits)

    def wait(share: float) -> float:
        return waits[min(len(waits) - 1, int(share * len(waits)))]

    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(days)

    return Row(
        name,
        knob,
        cost=mean(day.cost for day in days),
        p50=wait(0.5),
        p95=wait(0.95),
        p99=wait(0.99),
        use=mean(day.use for day in days),
        launches=mean(day.launches for day in days),
    )


def sweep() -> list[list[Row]]:
    """The rows of every load, each played in a process of its own."""
    jobs = [
        (number, name, knob)
        for number in range(len(LOADS))
        for name, contender in CONTENDERS.items()
        for knob in contender.values
    ]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        # The longest day comes last in the list, and must not be begun last.
        done = dict(zip(reversed(jobs), pool.map(row, reversed(jobs)), strict=True))
    return [[done[job] for job in jobs if job[0] == number] for number in range(len(LOADS))]


def cost_at(rows: Sequence[Row], p95: float) -> float | None:
    """What a policy costs at that p95 wait; None: it never waits so little."""
    front: list[tuple[float, float]] = []
    for each in sorted(rows, key=lambda one: (one.p95, one.cost)):
        if each.p95 <= COLLAPSED_S and (not front or each.cost < front[-1][1]):
            front.append((math.log(each.p95 + 1), each.cost))
    at = math.log(p95 + 1)
    if not front or at < front[0][0] - 1e-9:
        return None
    for (left, dear), (right, cheap) in zip(front, front[1:], strict=False):
        if at <= right:
            return dear + (cheap - dear) * max(0.0, at - left) / (right - left)
    return front[-1][1]


def bound(number: int, p95: float) -> float:
    """The cost of one who foresees the load: at each minute the whole workers that the mean load of
    five minutes around it needs for that p95, there when they are needed and gone when not."""
    made = load(number, SEEDS[0])
    begins, minutes = int(COUNTS_FROM_S / MINUTE), math.ceil(made.ends / MINUTE)
    held, all_held = [0.0] * minutes, [long for _, long in made.requests]
    for at, long in made.requests:
        held[int(at / MINUTE)] += long / MINUTE
    mean_ms, workers = 1000 * sum(all_held) / len(all_held), 0
    for minute in range(begins, minutes):
        around = held[max(0, minute - 2) : minute + 3]
        needed = slots_for(sum(around) / len(around), max(1.0, 1000 * p95), mean_ms, 0.05)
        workers += math.ceil(needed / SLOTS)
    return workers * PRICE * MINUTE / 3600
