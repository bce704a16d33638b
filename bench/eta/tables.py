"""Plays every phase and prints the errors of the engine's estimate beside those of simpler ones.

Knows what the targets are; not how anything is played or foretold.
"""

import time
from collections import defaultdict
from random import Random

from redis.asyncio import Redis

from admission.store.connection import open_redis
from bench.eta.day import WINDOW_MS, Day
from bench.eta.phases import MADE, REAL, Maker, Phase, read_trace
from bench.eta.rivals import RIVALS, Known
from bench.eta.scores import BANDS, Score, band_of
from bench.scripts import server

OURS = "vestibule"
SEEDS = 3
NEWEST = (0, 0)  # the band of who stands last: the question that LES answers
FRESH = (0, 1)  # of all who wait while the service has seen no more sessions end than FRESH_ENDS
FRESH_ENDS = 20
COLUMNS = (*BANDS, NEWEST, FRESH)
MAE_MOST_MS, COVERAGE = 60_000, (0.85, 0.95)

Scores = dict[tuple[str, tuple[int, int] | None], Score]  # of a predictor, in a band or in all


async def main(seeds: int = SEEDS) -> None:
    """Print a table per phase and what of the targets was reached."""
    print(f"eta: the real engine, sampled every 12 simulated seconds; seeds 1 to {seeds}")
    print(
        "  who left the queue is not counted: no wait followed. Times in minutes, in E in seconds."
    )
    trace = read_trace()
    if not trace:
        print("  no real arrivals: shared/data/azure_llm_conv_2023.csv is not beside the checkout")
    async with server() as url:
        redis = open_redis(url)
        await redis.config_set("appendonly", "no")  # this measures errors, not the disk
        for maker in [*MADE, *(REAL if trace else ())]:
            await _phase(redis, maker, seeds)
        await redis.aclose()


async def _phase(redis: Redis, maker: Maker, seeds: int) -> None:
    scores: Scores = defaultdict(Score)
    started = time.perf_counter()
    for seed in range(1, seeds + 1):
        day = Day(maker(Random(seed)), redis)
        await day.play()
        _count(day, scores)
        if not day.phase.seeded:
            break
    _print(day.phase, scores, time.perf_counter() - started)


def _count(day: Day, scores: Scores) -> None:
    for sample in day.samples:
        for index, user in enumerate(sample.users):
            if user not in day.served:
                continue
            actual = day.served[user] - sample.now
            value, high = sample.told[index]
            known = Known(
                index + 1,
                sample.waited[index],
                sample.slots,
                day.phase.policy.session_ms,
                WINDOW_MS,
                sample.rate,
                sample.last_wait,
            )
            said = {name: rival(known) for name, rival in RIVALS.items()} | {OURS: value}
            for name, ms in said.items():
                bands = [None, band_of(index + 1)]
                if index + 1 == len(sample.users):
                    bands.append(NEWEST)
                if sample.ended <= FRESH_ENDS:
                    bands.append(FRESH)
                for band in bands:
                    scores[name, band].add(ms, high if name == OURS else ms, actual)


def _print(phase: Phase, scores: Scores, took_s: float) -> None:
    ours, unit = scores[OURS, None], phase.unit_ms
    shown = ours.wait / unit
    print(f"{phase.name} {phase.meaning}: {ours.count} predictions, mean wait {shown:.1f}", end="")
    print(f" ({took_s:.0f} s)")
    print(f"  {'':16}   MAE  RMSE   bias  RRMSE  held   MAE by position", end="")
    print("".join(f"  {_named(band):>7}" for band in COLUMNS))
    for name in (OURS, *RIVALS):
        s = scores[name, None]
        line = f"  {name:16} {s.mae / unit:5.2f} {s.rmse / unit:5.2f} {s.bias / unit:+6.2f}"
        line += f"  {s.rmse / s.wait:5.2f} {s.holds:5.0%}  {'':16}"
        bands = [scores.get((name, band)) for band in COLUMNS]
        print(line + "".join(f"  {b.mae / unit:7.2f}" if b else f"  {'-':>7}" for b in bands))
    bands = [scores.get((OURS, band)) for band in COLUMNS]
    line = "".join(f"  {b.coverage:7.1%}" if b else f"  {'-':>7}" for b in bands)
    print(f"  {'high value held':16} {ours.coverage:5.1%} {'':39}{line}")
    print(f"  {_verdict(phase, scores)}")


def _named(band: tuple[int, int]) -> str:
    if band in (NEWEST, FRESH):
        return "last" if band == NEWEST else "fresh"
    return f"{band[0]}-{band[1]}" if band[1] < 1000 else f"{band[0]}-"


def _verdict(phase: Phase, scores: Scores) -> str:
    ours = scores[OURS, None]
    better = all(ours.mae < scores[name, None].mae for name in RIVALS)
    covered = COVERAGE[0] <= ours.coverage <= COVERAGE[1]
    near = ours.mae <= MAE_MOST_MS
    words = {True: "yes", False: "NO"}
    return (
        f"lower MAE than each: {words[better]} · MAE <= 1 min: {words[near]} · "
        f"high value held 85-95 %: {words[covered]}"
    )
