"""Two pictures as SVG: cost over p95 wait of every policy, and one day of the fleet.

A few lines and dots, so no library draws them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from bench.autoscale.day import SLOTS
from bench.autoscale.frontier import COLLAPSED_S, CONTENDERS, OURS, SEEDS, Row, play
from bench.autoscale.traffic import HOUR, LOADS
from infra.load_test.plot import Chart

WIDTH, HEIGHT, GAP, TOP, BOTTOM = 300, 260, 60, 40, 44
COLOURS = ("#000000", "#999999", "#e69f00", "#cc79a7", "#0072b2", "#009e73", "#d55e00")
"""Okabe and Ito's: told apart by the colour-blind."""
TICKS_S = (0.0, 1.0, 5.0, 20.0, 60.0, 300.0)
DEAREST = 2.5  # times the cheapest row: what is dearer is not drawn


def frontiers(swept: Mapping[str, Sequence[Row]], folder: Path) -> None:
    """Write ``frontier.svg``: a panel for each load.

    Raises:
        OSError: the folder cannot be made or written.
    """
    width = len(swept) * (WIDTH + GAP) + 140
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{TOP + HEIGHT + BOTTOM}"'
        f' viewBox="0 0 {width} {TOP + HEIGHT + BOTTOM}" role="img" font-family="sans-serif"'
        f' font-size="12">',
        "<title>Cost over p95 wait</title>",
        f'<rect width="{width}" height="{TOP + HEIGHT + BOTTOM}" fill="#ffffff"/>',
    ]
    for number, (name, rows) in enumerate(swept.items()):
        parts += _panel(name, rows, GAP + number * (WIDTH + GAP))
    for number, name in enumerate(CONTENDERS):
        x, y = len(swept) * (WIDTH + GAP) + 20, TOP + 12 + 18 * number
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{COLOURS[number]}"/>')
        parts.append(_text(x + 10, y, name, "start"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "frontier.svg").write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")


def day(folder: Path) -> None:
    """Write ``day.svg``: the last load under our policy, with the slots that it had and paid for."""
    contender = CONTENDERS[OURS]
    assert contender.documented is not None
    outcome = play(len(LOADS) - 1, SEEDS[0], contender.make(contender.documented))
    every = outcome.samples[:: max(1, len(outcome.samples) // 400)]
    lines = {
        "slots paid for": [(at / HOUR, float(SLOTS * count)) for at, _, count, _ in every],
        "slots ready": [(at / HOUR, float(slots)) for at, slots, _, _ in every],
        "in the system": [(at / HOUR, float(there)) for at, _, _, there in every],
    }
    chart = Chart("A day under Vestibule's autoscaler", "hours", "slots and requests")
    (folder / "day.svg").write_text(chart.lines(lines), encoding="utf-8")


def _panel(name: str, rows: Sequence[Row], left: int) -> Iterator[str]:
    cheapest = min(row.cost for row in rows if row.p95 <= COLLAPSED_S)
    shown = [row for row in rows if row.p95 <= COLLAPSED_S and row.cost <= DEAREST * cheapest]
    least, most = 0.9 * cheapest, max(row.cost for row in shown)

    def at(p95: float, cost: float) -> tuple[float, float]:
        across = math.log(p95 + 1) / math.log(COLLAPSED_S + 1)
        return left + across * WIDTH, TOP + HEIGHT * (most - cost) / (most - least)

    yield _text(left, 20, f"{name}: USD over p95 wait", "start")
    for wait in TICKS_S:
        x, _ = at(wait, least)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + HEIGHT}" stroke="#eee"/>'
        yield _text(x, TOP + HEIGHT + 16, f"{wait:g} s", "middle")
    for step in range(5):
        cost = least + (most - least) * step / 4
        _, y = at(0, cost)
        yield f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>'
        yield _text(left - 6, y + 4, f"{cost:.{0 if most > 50 else 1}f}", "end")
    for number, policy in enumerate(CONTENDERS):
        points = sorted((row.p95, row.cost) for row in shown if row.policy == policy)
        places = [at(*point) for point in points]
        for x, y in places:
            radius = 4 if policy == OURS else 3
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{COLOURS[number]}"/>'
        if policy == OURS:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            yield f'<polyline points="{path}" fill="none" stroke="{COLOURS[number]}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="#333" text-anchor="{anchor}">{escape(words)}</text>'
    )
