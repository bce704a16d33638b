"""Plays everything, prints the rows and what they cost at the same p95, and draws both.

Knows what the target is; not how anything is played.
"""

import time
from pathlib import Path

from bench.autoscale import plot
from bench.autoscale.day import BOOT_S, PRICE, SLOTS, WORKERS_MOST
from bench.autoscale.frontier import CONTENDERS, OURS, SEEDS, Row, bound, cost_at, load, sweep
from bench.autoscale.traffic import trace

SAVED_LEAST = 0.10
LEVELS = (2.0, 5.0, 10.0, 30.0, 60.0, 120.0)  # p95 waits at which costs are shown, seconds
FOLDER = Path(__file__).parents[2] / "docs" / "autoscale"


async def main() -> None:
    """Print a table per load and what of the target was reached; write the plots."""
    if not trace():
        print("autoscale: shared/data/azure_llm_conv_2023.csv is not beside the checkout;")
        print("  all loads are made from it, so nothing is played")
        return
    started = time.perf_counter()
    print(f"autoscale: seeds {SEEDS}; {SLOTS} slots a worker, USD {PRICE} an hour, boots of")
    print(
        f"  {BOOT_S[0]:.0f}-{BOOT_S[2]:.0f} s (mostly {BOOT_S[1]:.0f}), 1-{WORKERS_MOST} workers;"
    )
    print("  waits in seconds; * the documented or default value of the knob")
    for number, rows in enumerate(swept := sweep()):
        _print(number, rows)
    plot.draw({load(n, SEEDS[0]).name: rows for n, rows in enumerate(swept)}, FOLDER)
    print(f"{time.perf_counter() - started:.0f} s; drawn in docs/autoscale")


def _print(number: int, rows: list[Row]) -> None:
    made = load(number, SEEDS[0])
    print(f"\n{made.name}: {made.meaning} ({len(made.requests):,} requests)")
    print("                 knob      USD    p50    p95    p99  slots used  launches")
    for each in rows:
        mark = "*" if each.knob == CONTENDERS[each.policy].documented else " "
        print(
            f"  {each.policy:14}{each.knob:5g}{mark}{each.cost:9.2f}{each.p50:7.1f}{each.p95:7.1f}"
            f"{each.p99:7.1f}{each.use:11.0%}{each.launches:10.0f}"
        )
    default = next(
        row for row in rows if row.policy == OURS and row.knob == CONTENDERS[OURS].documented
    )
    print("  USD at equal p95:" + "".join(f"{name:>15}" for name in (*CONTENDERS, "foresight")))
    for level in sorted({*LEVELS, default.p95}):
        line = f"  {level:11.1f} s{'*' if level == default.p95 else ' '}    "
        for name in CONTENDERS:
            cost = cost_at([row for row in rows if row.policy == name], level)
            line += f"{'-' if cost is None else f'{cost:.2f}':>15}"
        print(line + f"{bound(number, level):15.2f}" + _saved(rows, level))
    saved = saving(rows, default.p95)
    assert saved is not None, "the default row is on no frontier"
    words = "reached" if saved >= SAVED_LEAST else "MISSED"
    print(f"  {SAVED_LEAST:.0%} cheaper than the best at our default's p95: {words} ({saved:.1%})")


def saving(rows: list[Row], p95: float, among: tuple[str, ...] | None = None) -> float | None:
    """By how much ours is cheaper at that p95 than the cheapest of the others; None: it is not
    reached by ours, or by none of them."""
    mine = cost_at([row for row in rows if row.policy == OURS], p95)
    names = among or tuple(name for name in CONTENDERS if name != OURS)
    costs = [cost_at([row for row in rows if row.policy == name], p95) for name in names]
    known = [cost for cost in costs if cost is not None]
    return None if mine is None or not known else 1 - mine / min(known)


def _saved(rows: list[Row], level: float) -> str:
    saved = saving(rows, level)
    moving = tuple(name for name in CONTENDERS if name not in (OURS, "fixed"))
    scaled = saving(rows, level, moving)
    words = "" if saved is None else f"  ours saves {saved:.1%}"
    return words + ("" if scaled is None else f", of those that scale {scaled:.1%}")
