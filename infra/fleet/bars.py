"""The way of new machines from 0 to 100 %, as it happens: bars that are drawn over one another, or
where that cannot be, a line for each step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from infra.fleet import columns, figures
from scheduler.fleet.codes import CODES

ID_WIDTH, WORDS_WIDTH, BAR_WIDTH = 24, 24, 15
WORDS_MAX = 60
ONE_LINE = 80  # narrower terminals have two lines for each
NUMBERS_WIDTH = 10
PENDING_S = 10.0  # then it is said that nobody takes it
STEPS = {
    5: "asked for",
    20: "the machine is made",
    30: "it runs",
    40: "it has an address",
    50: "agent and vLLM installed",
    60: "vLLM starts",
    75: "the model is loaded",
    90: "the model answers",
    95: "it is healthy",
}
"""What has been reached at each progress (DESIGN section 10)."""
UP = "ready"
DOWN = frozenset(
    {"provisioning_failed", "startup_failed", "failed", "terminating", "terminated", "archived"}
)


@dataclass
class Way:
    """One new machine. ``view``: of the service; None before it was seen or when it is refused."""

    instance_id: str
    view: Mapping[str, object] | None = None
    refusal: str = ""
    since_s: float = 0.0

    @property
    def state(self) -> str:
        return "refused" if self.refusal else str((self.view or {}).get("state", "asked"))

    @property
    def progress(self) -> int:
        found = (self.view or {}).get("progress", 0)
        return found if isinstance(found, int) else 0

    @property
    def is_up(self) -> bool:
        return self.state == UP

    @property
    def is_down(self) -> bool:
        return bool(self.refusal) or self.state in DOWN

    @property
    def is_over(self) -> bool:
        return self.is_up or self.is_down

    def words(self, seconds: float) -> str:
        """What it does, or why it does no more."""
        view = self.view or {}
        if self.refusal:
            return self.refusal
        if code := view.get("error_code"):
            return f"{self.state}: {code}"
        if view.get("pending") and seconds > PENDING_S:
            return "no scheduler took it yet"
        on_its_way = self.state in ("provisioning", "booting")
        return STEPS.get(self.progress, self.state) if on_its_way else self.state

    def obituary(self) -> list[str]:
        """Why it failed, and what can be done."""
        view = self.view or {}
        name = str(view.get("error_code") or "")
        said = str(view.get("error") or self.refusal or "")
        found = [f"{self.instance_id}: {name or self.state} at {self.progress} %"]
        code = CODES.get(name)
        found += [f"  {line}" for line in (said, code.words if code else "") if line]
        return found + ([f"  what to do: {code.remedy}"] if code else [])


class Bars:
    """Draws on ``out``."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._drawn = out, 0
        self._draws, self._plain = columns.draws(out), columns.is_plain(out)
        self._said: dict[str, str] = {}

    def show(self, ways: Sequence[Way], seconds: float) -> None:
        """Draw them, over what was drawn before."""
        if self._draws:
            wide = columns.width_of(self._out) or columns.COLUMNS
            rows = self._rows(ways, seconds, wide)
            back = f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""
            self._out.write(back + "".join(f"{row[:wide]}\n" for row in rows))
            self._drawn = len(rows)
        else:
            for way in ways:
                self._tell(way, seconds)
        self._out.flush()

    def _tell(self, way: Way, seconds: float) -> None:
        said = f"{way.progress:3d} %  {way.words(seconds)}"
        if self._said.get(way.instance_id) != said:
            self._said[way.instance_id] = said
            self._out.write(f"{way.instance_id}  {said}\n")

    def _rows(self, ways: Sequence[Way], seconds: float, wide: int) -> list[str]:
        """As many as the terminal has lines for, those first that are still on their way."""
        each = 1 if wide >= ONE_LINE else 2
        room = max(1, (columns.height_of(self._out) - 2) // each)
        order = sorted(ways, key=lambda way: way.is_over) if len(ways) > room else ways
        rows = [row for way in order[:room] for row in self._row(way, seconds, wide)]
        if left := order[room:]:
            up = sum(way.is_up for way in left)
            down = sum(way.is_down for way in left)
            rows.append(f"and {len(left)} more: {up} ready, {down} failed")
        return rows

    def _row(self, way: Way, seconds: float, wide: int) -> list[str]:
        if way.is_over:
            way.since_s = way.since_s or seconds
            seconds = way.since_s
        words = way.words(seconds)
        if wide < ONE_LINE:
            name_width = max(8, wide - NUMBERS_WIDTH)
            name = figures.short(way.instance_id, name_width)
            bar = figures.bar(way.progress, max(4, wide // 4), plain=self._plain)
            return [f"{name:<{name_width}} {seconds:6.0f} s", f"  {bar}  {words}"]
        name = figures.short(way.instance_id, ID_WIDTH)
        bar = figures.bar(way.progress, BAR_WIDTH, plain=self._plain)
        more = min(WORDS_MAX, WORDS_WIDTH + wide - columns.COLUMNS)
        return [f"{name:<{ID_WIDTH}}  {bar}  {words[:more]:<{more}} {seconds:4.0f} s"]
