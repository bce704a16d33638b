"""Loads made from an hour of real requests: the hour itself, surges, a day.

The trace is the conversation service of Azure's public dataset of LLM inference of 2023 (P. Patel
et al., "Splitwise: Efficient generative LLM inference using phase splitting", ISCA 2024). A request
holds a slot for as long as an 8B model on one A10G takes when its batch is full: assumed are 3,000
prompt tokens and 30 answer tokens a second. Knows no fleet.
"""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from random import Random

from bench.eta.phases import TRACE

PROMPT_PER_S, ANSWER_PER_S = 3_000, 30
WARM_S = 900.0
HOUR = 3_600.0
MINUTE = 60.0

Request = tuple[float, float]  # when it comes, how long it holds a slot; seconds


@dataclass(frozen=True)
class Load:
    """Requests in order of arrival, within ``ends`` seconds. The first ``WARM_S`` are the first of
    what follows, played once before and not counted."""

    name: str
    meaning: str
    requests: list[Request]
    ends: float


@cache
def trace() -> tuple[Request, ...]:
    """The real hour without its first and last minute, which are not whole; empty where the file is
    not beside the checkout."""
    if not TRACE.exists():
        return ()
    with TRACE.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    came = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
    held = [
        int(row["ContextTokens"]) / PROMPT_PER_S + int(row["GeneratedTokens"]) / ANSWER_PER_S
        for row in rows
    ]
    whole = int((came[-1] - came[0]) / MINUTE) - 1
    return tuple(
        (at - came[0] - MINUTE, long)
        for at, long in zip(came, held, strict=True)
        if MINUTE <= at - came[0] < whole * MINUTE
    )


def hour(_: Random) -> Load:
    """The trace as it is."""
    return _warm("trace", "the real hour", list(trace()), trace()[-1][0])


def surges(chance: Random) -> Load:
    """Six hours at half the trace's rate; once in every two of them, for 10 to 20 minutes, three
    times as much, within half a minute."""
    windows = []
    for number in range(3):
        begins = 2 * number * HOUR + chance.uniform(15, 95) * MINUTE
        windows.append((begins, begins + chance.uniform(10, 20) * MINUTE))

    def rate(at: float) -> float:
        level = 0.5
        for begins, ends in windows:
            up, down = (at - begins) / (MINUTE / 2), (ends - at) / (MINUTE / 2)
            level += max(0.0, min(1.0, up, down))
        return level

    return _made(chance, "surge", "three times as many for 10-20 minutes", 6 * HOUR, rate)


def daily(chance: Random) -> Load:
    """A day: a night with a tenth of the trace's rate, a working day with two peaks, and slow
    weather of about a tenth on top."""
    phases = [(chance.uniform(0, 2 * math.pi), chance.uniform(0.6, 1.6)) for _ in range(6)]

    def rate(at: float) -> float:
        o_clock = at / HOUR
        morning = math.exp(-(((o_clock - 10.5) / 2.2) ** 2))
        afternoon = math.exp(-(((o_clock - 15.5) / 2.6) ** 2))
        evening = 0.45 * math.exp(-(((o_clock - 20.5) / 1.8) ** 2))
        weather = sum(math.sin(phase + 2 * math.pi * o_clock / hours) for phase, hours in phases)
        return (0.1 + 0.85 * min(1.0, morning + afternoon + evening)) * (1 + 0.04 * weather)

    return _made(chance, "day", "a working day, two peaks, a quiet night", 24 * HOUR, rate)


LOADS: tuple[Callable[[Random], Load], ...] = (hour, surges, daily)


def _made(
    chance: Random, name: str, meaning: str, ends: float, rate: Callable[[float], float]
) -> Load:
    """The trace repeated and thinned, or laid over itself, to ``rate`` times its own rate."""
    copies = 2
    requests = sorted(
        (at, held)
        for _ in range(copies)
        for at, held in _around(chance.uniform(0, trace()[-1][0]), ends)
        if chance.random() < rate(at) / copies
    )
    return _warm(name, meaning, requests, ends)


def _warm(name: str, meaning: str, requests: list[Request], ends: float) -> Load:
    before = [request for request in requests if request[0] < WARM_S]
    after = [(at + WARM_S, held) for at, held in requests]
    return Load(name, meaning, before + after, ends + WARM_S)


def _around(start: float, ends: float) -> Iterator[Request]:
    """The trace over and over, from some moment in it."""
    whole = trace()[-1][0]
    for lap in range(int(ends / whole) + 2):
        for at, held in trace():
            moment = at + lap * whole - start
            if 0 <= moment < ends:
                yield moment, held
