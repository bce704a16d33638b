"""Two pictures of a load test: the slots and who waited for them, second by second; and each wait
against what was announced."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.load_test.chart import LINE, Axis, Panel, card

TOP = 76  # of the first panel, below the title and the words over its axis
FOOT = 40  # below the last one, for its axis
LONG = 3  # an announcement is drawn up to so many times the longest wait


def draw(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``slots.svg`` and ``waits.svg`` of a report (``report.as_json``); where they are.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"slots.svg": slots(report), "waits.svg": waits(report)}
    for name, picture in pictures.items():
        (folder / name).write_text(picture, encoding="utf-8")
    return [folder / name for name in pictures]


def slots(report: dict[str, Any]) -> str:
    """Slots in use, and below them who waited, over time."""
    samples = report["samples"]
    capacity = [(s["at_s"], s["capacity"]) for s in samples]
    held = [(s["at_s"], s["active"] + s["draft"] + s["finishing"]) for s in samples]
    waiting = [(s["at_s"], s["waiting"]) for s in samples]
    across = Axis(_most(s["at_s"] for s in samples), time=True, tight=True)

    height, below = 100, TOP + 100 + 3 * LINE + 12
    most = max(_most(n for _, n in held), _most(n for _, n in capacity))
    above = Panel(TOP, height, across, Axis(most), "slots")
    above.area(held, "blue")
    above.line(capacity, "grey", dash=True)
    above.name(capacity[-1][1], "capacity", "grey")
    above.name(_middle(held), "in use", "blue")
    queue = Axis(_most(n for _, n in waiting))
    line = Panel(below, height, across, queue, "people who wait")
    line.area(waiting, "orange")
    line.name(_middle(waiting), f"at most {_most(n for _, n in waiting):g}", "orange")

    people, used = report["people"]["came"], report["slots"]["used_while_people_waited"]
    about = f"{_people(people)} came"
    if used is not None:
        about += f"; while anybody waited, {used:.0%} of the slots were in use"
    parts = [*above.drawn(), *line.drawn()]
    return card(below + height + FOOT, "Slots, and who waits for them", about, parts)


def waits(report: dict[str, Any]) -> str:
    """Of everybody who waited and was served, by when they came: a bar from the wait that was
    announced first to its upper end, and a dot for the wait that followed."""
    told = [
        visit
        for visit in report["visits"]
        if visit["announced_s"] is not None and visit["admitted_s"] is not None
    ]
    longest = _most(visit["admitted_s"] for visit in told)
    said = _most(visit["announced_high_s"] for visit in told)
    across = Axis(_most(s["at_s"] for s in report["samples"]), time=True, tight=True)
    up = Axis(max(longest, min(said, LONG * longest)), time=True)
    panel = Panel(TOP, 220, across, up, "wait, by when they came")
    for visit in told:
        if visit["announced_s"] <= up.most:
            panel.bar(visit["came_s"], visit["announced_s"], visit["announced_high_s"], "orange")
    for visit in told:
        panel.dot((visit["came_s"], visit["admitted_s"]), "blue")
    beyond = sum(visit["announced_s"] > up.most for visit in told)
    if told:
        late = told[-len(told) // 4 :]
        panel.name(_middle([(0, v["announced_s"]) for v in late]), "announced", "orange")
        panel.name(_middle([(0, v["admitted_s"]) for v in late]), "waited", "blue")
    about = f"{_people(len(told))} waited: a bar from the time announced first to its upper end"
    about += ", a dot for the wait"
    if beyond:
        about += f"; {beyond} {'was' if beyond == 1 else 'were'} told more than is drawn here"
    return card(TOP + 220 + FOOT, "Waits, and what was announced", about, [*panel.drawn()])


def _people(number: int) -> str:
    return "one person" if number == 1 else f"{number or 'no'} people"


def _most(values: Any) -> float:
    return float(max(values, default=0))


def _middle(points: Sequence[tuple[float, float]]) -> float:
    """The median height of the last quarter, beside which a name stands."""
    heights = sorted(height for _, height in points[-max(1, len(points) // 4) :])
    return heights[len(heights) // 2]
