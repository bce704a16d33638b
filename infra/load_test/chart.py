"""Axes, lines, bars and dots as SVG, on a light or a dark card as whoever looks has it.

Round steps, units at the axes, each name beside what it names. Knows nothing of a load test.
"""

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

WIDTH = 720
LEFT, RIGHT = 56, 140
LINE = 16  # from one line of text to the next
STEPS = 6  # of an axis, about
TIMES_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200)

STYLE = """<style>
text { font: 12px sans-serif; fill: #57606a }
.title { font-size: 14px; font-weight: 600; fill: #1f2328 }
.card { fill: #ffffff } .grid { stroke: #d8dee4 } .axis { stroke: #8c959f }
.blue { color: #0969da } .orange { color: #bc4c00 } .grey { color: #6e7781 }
.line { fill: none; stroke: currentColor; stroke-width: 1.5 } .dash { stroke-dasharray: 5 3 }
.area { fill: currentColor; fill-opacity: .15 } .dot, .name { fill: currentColor }
.bar { stroke: currentColor; stroke-width: 3; stroke-opacity: .45 }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1 } .title { fill: #f0f6fc }
.card { fill: #0d1117 } .grid { stroke: #21262d } .axis { stroke: #6e7681 }
.blue { color: #58a6ff } .orange { color: #f0883e } .grey { color: #9198a1 }
}
</style>"""
"""Contrast with the card of at least 4.5 for text (WCAG 2.2, 1.4.3); blue and orange stay apart for
the colour-blind."""

Point = tuple[float, float]


class Axis:
    """From 0 to the first round step that is not below ``most``, or just to ``most`` when
    ``tight``; in s, min or h when ``time``."""

    def __init__(self, most: float, *, time: bool = False, tight: bool = False) -> None:
        self._time = time
        self.step = _time_step(most) if time else _step(most)
        steps = most / self.step if tight and most else math.ceil(round(most / self.step, 6))
        self.most = self.step * (steps or 1)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Where, and what is written there."""
        for number in range(int(round(self.most / self.step, 6)) + 1):
            yield number * self.step, self._written(number * self.step)

    def _written(self, value: float) -> str:
        for unit, seconds in (("h", 3600), ("min", 60), ("s", 1)):
            if self._time and value and self.step % seconds == 0:
                return f"{value / seconds:g} {unit}"
        return f"{value:g}"


class Panel:
    """Two axes, ``height`` high from ``top`` down, words above, and what is drawn between."""

    def __init__(self, top: float, height: float, across: Axis, up: Axis, words: str) -> None:
        self._top, self._height, self._across, self._up = top, height, across, up
        self._words = words
        self._parts: list[str] = []
        self._names: list[tuple[float, str, str]] = []

    def line(self, points: Sequence[Point], ink: str, *, dash: bool = False) -> None:
        """Through all of them."""
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self._at, points))
        kind = "line dash" if dash else "line"
        self._parts.append(f'<polyline class="{ink} {kind}" points="{drawn}"/>')

    def area(self, points: Sequence[Point], ink: str) -> None:
        """A line, and what is below it."""
        below = [(points[0][0], 0.0), *points, (points[-1][0], 0.0)]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self._at, below))
        self._parts.append(f'<polygon class="{ink} area" points="{drawn}"/>')
        self.line(points, ink)

    def dot(self, point: Point, ink: str) -> None:
        x, y = self._at(point)
        self._parts.append(f'<circle class="{ink} dot" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>')

    def bar(self, at: float, low: float, high: float, ink: str) -> None:
        """Upright; as long as a dot at least."""
        (x, y1), (_, y2) = self._at((at, low)), self._at((at, high))
        y2 = min(y2, y1 - 2)
        self._parts.append(
            f'<line class="{ink} bar" x1="{x:.1f}" x2="{x:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'
        )

    def name(self, height: float, words: str, ink: str) -> None:
        """Words on the right, as high as what they name, or near it where others stand."""
        self._names.append((self._at((0, height))[1], words, ink))

    def drawn(self) -> Iterator[str]:
        """The SVG of it."""
        right, floor = WIDTH - RIGHT, self._top + self._height
        yield text(LEFT, self._top - 12, self._words)
        for value, words in self._up.ticks():
            _, y = self._at((0, value))
            yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield text(LEFT - 8, y + 4, words, anchor="end")
        for value, words in self._across.ticks():
            x, _ = self._at((value, 0))
            yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>'
            yield text(x, floor + 18, words, anchor="middle")
        yield from self._parts
        yield f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>'
        yield from self._named()

    def _named(self) -> Iterator[str]:
        heights: list[float] = []
        names = sorted(self._names)
        for y, *_ in names:
            heights.append(max(y, heights[-1] + LINE) if heights else y)
        floor = self._top + self._height
        for number in reversed(range(len(heights))):
            heights[number] = min(heights[number], floor)
            floor = heights[number] - LINE
        for y, (_, words, ink) in zip(heights, names, strict=True):
            yield text(WIDTH - RIGHT + 8, y + 4, words, kind=f"{ink} name")

    def _at(self, point: Point) -> Point:
        x = min(1.0, point[0] / self._across.most)
        y = min(1.0, point[1] / self._up.most)
        return LEFT + x * (WIDTH - LEFT - RIGHT), self._top + (1 - y) * self._height


def card(height: float, title: str, about: str, parts: Sequence[str]) -> str:
    """A whole picture: a title, a line about it, and what was drawn."""
    size = f'width="{WIDTH}" height="{height:g}" viewBox="0 0 {WIDTH} {height:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(f'{title}: {about}')}</title>",
            STYLE,
            f'<rect class="card" width="{WIDTH}" height="{height:g}" rx="6"/>',
            text(16, 24, title, kind="title"),
            text(16, 24 + LINE, about),
            *parts,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", kind: str = "") -> str:
    """Words that begin, are centred, or end there."""
    looks = f' class="{kind}"' if kind else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text{looks} {place}>{escape(words)}</text>"


def _step(most: float) -> float:
    """1, 2 or 5 times a power of ten, and 1 at least: what is counted here are people."""
    least = max(1.0, most / STEPS)
    power = 10.0 ** math.floor(math.log10(least))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= least)


def _time_step(most: float) -> float:
    days = 86_400 * math.ceil(most / STEPS / 86_400)
    return next((step for step in TIMES_S if step * STEPS >= most), days)
