"""Two pictures of a load test as SVG: the slots over time, and waits against what was announced.

A few lines and dots, so no library draws them.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 150, 48, 40
COLOURS = ("#d95f02", "#1b9e77", "#7570b3")  # ColorBrewer's Dark2: told apart by the colour-blind
GREY = "#888888"

Point = tuple[float, float]


def draw(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``slots.svg`` and ``waits.svg`` of a report (``report.as_json``); where they are.

    Raises:
        OSError: the folder cannot be made or written.
    """
    samples = report["samples"]
    held = [(s["at_s"], s["active"] + s["draft"] + s["finishing"]) for s in samples]
    lines = {
        "capacity": [(s["at_s"], s["capacity"]) for s in samples],
        "slots in use": held,
        "waiting": [(s["at_s"], s["waiting"]) for s in samples],
    }
    waits = [
        (visit["announced_s"], visit["admitted_s"])
        for visit in report["visits"]
        if visit["announced_s"] is not None and visit["admitted_s"] is not None
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "slots.svg": Chart("People and slots", "seconds", "people").lines(lines),
        "waits.svg": Chart("Waits", "announced, seconds", "waited, seconds").dots(waits),
    }
    for name, picture in pictures.items():
        (folder / name).write_text(picture, encoding="utf-8")
    return [folder / name for name in pictures]


class Chart:
    """Two axes from 0, and what is drawn between them."""

    def __init__(self, title: str, across: str, up: str) -> None:
        self._title, self._across, self._up = title, across, up
        self._most: Point = (1.0, 1.0)

    def lines(self, named: dict[str, list[Point]]) -> str:
        """A line for each name."""
        self._reach([point for points in named.values() for point in points])
        parts = []
        for number, (name, points) in enumerate(named.items()):
            colour = COLOURS[number % len(COLOURS)]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self._at, points))
            drawn = f'fill="none" stroke="{colour}" stroke-width="1.5"'
            parts.append(f'<polyline points="{path}" {drawn}/>{_named(number, name, colour)}')
        return self._framed(parts)

    def dots(self, points: Sequence[Point]) -> str:
        """A dot for each, and the line on which both are the same."""
        self._reach(points or [(1, 1)])
        both = min(self._most)
        (x1, y1), (x2, y2) = self._at((0, 0)), self._at((both, both))
        parts = [
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{GREY}"'
            f' stroke-dasharray="4 3"/>{_named(0, "as announced", GREY)}'
        ]
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{COLOURS[0]}" fill-opacity="0.6"/>'
            for x, y in map(self._at, points)
        ]
        return self._framed(parts)

    def _reach(self, points: Sequence[Point]) -> None:
        self._most = _round(max(x for x, _ in points)), _round(max(y for _, y in points))

    def _at(self, point: Point) -> Point:
        x, y = point[0] / self._most[0], point[1] / self._most[1]
        return LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)

    def _framed(self, parts: list[str]) -> str:
        size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"'
                f' font-family="sans-serif" font-size="12">',
                f"<title>{escape(self._title)}</title>",
                f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
                _text(LEFT, 16, self._title),
                *self._axes(),
                *parts,
                "</svg>\n",
            ]
        )

    def _axes(self) -> Iterator[str]:
        for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
            x, y = self._at((share * self._most[0], share * self._most[1]))
            yield (
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            )
            yield _text(LEFT - 6, y + 4, f"{share * self._most[1]:g}", "end")
            yield _text(x, HEIGHT - BOTTOM + 16, f"{share * self._most[0]:g}", "middle")
        yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, self._across, "middle")
        yield _text(LEFT, TOP - 10, self._up)


def _round(most: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is not below: a fifth of it reads
    well."""
    if most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(times * power for times in (1, 2, 2.5, 5, 10) if times * power >= most)


def _named(number: int, name: str, colour: str) -> str:
    """A name on the right, and its colour."""
    x, y = WIDTH - RIGHT + 14, TOP + 12 + 18 * number
    line = f'<line x1="{x}" x2="{x + 20}" y1="{y - 4}" y2="{y - 4}"'
    return f'{line} stroke="{colour}" stroke-width="3"/>{_text(x + 26, y, name)}'


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    shown = escape(words)
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#333" text-anchor="{anchor}">{shown}</text>'
