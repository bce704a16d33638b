"""Two pictures: what every policy costs at the same p95 wait, and a day of the fleet under ours."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.autoscale.day import SLOTS
from bench.autoscale.frontier import CONTENDERS, OURS, SEEDS, Row, cost_at, play
from bench.autoscale.traffic import LOADS, WARM_S
from infra.load_test.chart import LINE, Axis, Panel, card

TOP, HEIGHT, FOOT = 76, 140, 40
LONGEST_S = {"trace": 20.0, "surge": 240.0, "day": 60.0}  # of the p95 waits that are drawn
DEAREST = 1.8  # times ours: what is dearer is not drawn
SPAN = 30  # looks, that is five minutes
POINTS = 120  # of a curve, about


def draw(swept: dict[str, Sequence[Row]], folder: Path) -> None:
    """Write ``frontier.svg`` and ``day.svg``.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "frontier.svg").write_text(frontiers(swept), encoding="utf-8")
    (folder / "day.svg").write_text(day(), encoding="utf-8")


def frontiers(swept: dict[str, Sequence[Row]]) -> str:
    """A panel for each load: USD over the p95 wait, a curve for each policy."""
    parts: list[str] = []
    for number, (name, rows) in enumerate(swept.items()):
        top = TOP + number * (HEIGHT + 4 * LINE + 8)
        parts += _panel(name, rows, top).drawn()
    height = TOP + len(swept) * (HEIGHT + 4 * LINE + 8) - LINE
    about = "lower is better; what costs almost twice as much as ours is not drawn"
    return card(height, "What waits of a certain length cost", about, parts)


def _panel(name: str, rows: Sequence[Row], top: float) -> Panel:
    longest = LONGEST_S[name]
    waits = [longest * step / POINTS for step in range(POINTS + 1)]
    curves = {
        policy: [(wait, cost) for wait in waits if (cost := cost_at(of, wait)) is not None]
        for policy in CONTENDERS
        if (of := [row for row in rows if row.policy == policy])
    }
    most = DEAREST * min(cost for _, cost in curves[OURS])
    words = f"{name}: USD, over the p95 wait"
    panel = Panel(top, HEIGHT, Axis(longest, time=True, tight=True), Axis(most), words)
    for policy, curve in curves.items():
        shown = [(wait, cost) for wait, cost in curve if cost <= most]
        if len(shown) < 2:
            continue
        ink = {OURS: "blue", "fixed": "grey"}.get(policy, "orange")
        panel.line(shown, ink, dash=policy == "fixed")
        panel.name(shown[-1][1], policy, ink)
    default = next(r for r in rows if r.policy == OURS and r.knob == CONTENDERS[OURS].documented)
    panel.dot((default.p95, default.cost), "blue")
    return panel


def _mean(values: Iterable[int]) -> float:
    known = list(values)
    return sum(known) / len(known)


def day() -> str:
    """The last load under our policy: what was paid for, and what was in use or waited."""
    knob = CONTENDERS[OURS].documented
    assert knob is not None
    outcome = play(len(LOADS) - 1, SEEDS[0], CONTENDERS[OURS].make(knob))
    samples = [each for each in outcome.samples if each[0] >= WARM_S]
    # Means of some minutes, so that it can be read.
    spans = [samples[at : at + SPAN] for at in range(0, len(samples) - SPAN, SPAN)]
    starts = [span[0][0] - WARM_S for span in spans]
    paid = [(at, SLOTS * _mean(n for _, _, n, _ in s)) for at, s in zip(starts, spans, strict=True)]
    there = [(at, _mean(n for _, _, _, n in s)) for at, s in zip(starts, spans, strict=True)]
    across = Axis(starts[-1], time=True, tight=True)
    panel = Panel(TOP, 170, across, Axis(max(count for _, count in paid)), "slots and requests")
    panel.area(there, "blue")
    panel.line(paid, "grey")
    middle = len(spans) // 2
    panel.name(paid[middle][1], "slots paid for", "grey")
    panel.name(there[middle][1], "in use or waiting", "blue")
    about = (
        f"{outcome.use:.0%} of the slots paid for were in use; p95 wait {outcome.wait(0.95):.1f} s"
    )
    return card(TOP + 170 + FOOT, "A day under the autoscaler", about, list(panel.drawn()))
