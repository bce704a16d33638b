"""The languages of our pages: which one a reader gets, and its words, plurals and durations.

A place in one line is said as the plugin says it, for a chat may show now the one, now the other
(``owui_pipeline/words.py``, which imports nothing of ours).
"""

import math
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from admission.domain import Ticket

LANGUAGES = ("en", "fr", "it", "de", "es")
DEFAULT = LANGUAGES[0]
GROUPED_FROM = 10_000  # 1234 is read as it stands in each of these languages
UNIT_S = {"minutes": 60, "hours": 3600}
HOURS_FROM_S = 5400
DAY_S = 86_400
HIGH_FACTOR = 1.2  # nobody says "about 30 to 32 minutes"
_SEPARATORS = {
    "en": ",",
    "fr": "\u202f",
    "it": ".",
    "de": ".",
    "es": "\u00a0",
}  # CLDR, decimal group
_RANGE = re.compile(
    r"\s*([A-Za-z]{1,8}|\*)(?:-[A-Za-z0-9]{1,8})*\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*"
)


def choose(wanted: str | None, accept_language: str) -> str:
    """The language asked for by name, else the best of an Accept-Language header (RFC 9110,
    section 12.5.4), else English."""
    if wanted in LANGUAGES:
        return wanted
    best, best_weight = DEFAULT, 0.0
    for part in accept_language.split(",")[:20]:
        matched = _RANGE.fullmatch(part)
        if not matched:
            continue
        weight = float(matched[2] or 1)
        if matched[1].lower() in LANGUAGES and weight > best_weight:
            best, best_weight = matched[1].lower(), weight
    return best


class Words:
    """One language's words."""

    def __init__(self, language: str) -> None:
        """``language``: one of LANGUAGES."""
        self.language = language
        text = (files("admission.pages") / "words" / f"{language}.toml").read_text("utf-8")
        self.all: Mapping[str, Any] = tomllib.loads(text)

    def __getitem__(self, section: str) -> Any:
        return self.all[section]

    def number(self, n: int) -> str:
        """A whole number as it is written."""
        return f"{n:,}".replace(",", _SEPARATORS[self.language]) if n >= GROUPED_FROM else str(n)

    def counted(self, forms: Mapping[str, str], n: int) -> str:
        """The plural form for ``n`` (CLDR's rules for whole numbers below a million)."""
        one = n <= 1 if self.language == "fr" else n == 1
        return forms["one" if one else "other"].format(n=self.number(n))

    def about(self, seconds: float) -> str:
        """A time to come, no more exact than it is known."""
        unit = _unit(seconds)
        return self._less() if seconds < 60 else self._count(unit, rounded(seconds, unit))

    def at_most(self, high_s: float, wait_s: float) -> str:
        """The high value of an estimate, which a tenth of the waits pass; nothing where it says the
        same as the estimate does."""
        if high_s < 60 or self.about(high_s) == self.about(wait_s):
            return ""
        unit = _unit(high_s)
        return self._count(f"most_{unit}", rounded(high_s, unit))

    def wait(self, seconds: float, high_s: float | None) -> str:
        """A time to come and its high value in one: "about 4 to 9 minutes". The high value is told
        when it is HIGH_FACTOR times as long or more, and never as more than a day."""
        time = self["time"]
        if seconds >= DAY_S:
            return str(time["above"]).format(time=self._count("plain_hours", DAY_S // 3600))
        high_s = min(high_s or 0, DAY_S)
        high_s = high_s if high_s >= seconds * HIGH_FACTOR else seconds
        unit = _unit(high_s)
        if seconds < 60:
            high = math.ceil(high_s / UNIT_S[unit])  # up, for it is said to be less
            below = str(time["below"]).format(time=self._count(f"plain_{unit}", high))
            return below if high > 1 else self._less()
        low_unit = unit if seconds >= UNIT_S[unit] else "minutes"
        low, high = rounded(seconds, low_unit), rounded(high_s, unit)
        if (low, low_unit) == (high, unit):
            return self._count(unit, high)
        said = self.number(low) if low_unit == unit else self._count(f"plain_{low_unit}", low)
        return str(time["range"]).format(low=said, time=self._count(f"plain_{unit}", high))

    def _less(self) -> str:
        return str(self["time"]["less"])

    def _count(self, forms: str, n: int) -> str:
        return self.counted(self["time"][forms], n)

    def ordinal(self, n: int) -> str:
        """A place as this language's sentences name it: "5th", or the bare number. The forms are
        those of CLDR's ordinal rules, as in the script; only English has more than one."""
        teens = n % 100 in (11, 12, 13)
        kind = "other" if teens else {1: "one", 2: "two", 3: "few"}.get(n % 10, "other")
        return str(self["waiting"]["ordinal"][kind]).format(n=self.number(n))

    def place(self, position: int | None, wait_s: float | None, high_s: float | None) -> str:
        """The place and the estimate in one line, each when it is known."""
        waiting = self["waiting"]
        if position is None:
            return str(waiting["heading"])
        place = self.ordinal(position)
        if wait_s is None:
            return str(waiting["place"]).format(place=place)
        return str(waiting["place_time"]).format(place=place, time=self.wait(wait_s, high_s))

    def place_of(self, ticket: Ticket) -> str:
        """Where a waiting ticket stands, in one line."""
        wait_ms, high_ms = ticket.wait_ms, ticket.wait_high_ms
        wait_s = None if wait_ms is None else math.ceil(wait_ms / 1000)
        high_s = None if high_ms is None else math.ceil(high_ms / 1000)
        return self.place(ticket.position, wait_s, high_s)

    def waited(self, seconds: float) -> str:
        """That the turn has come, and after how long: "42 s", "3 min 5 s", "1 h 10 min"."""
        minutes, rest = divmod(max(1, round(seconds)), 60)
        hours, minutes = divmod(minutes, 60)
        parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
        time = " ".join(f"{n} {unit}" for n, unit in parts if n)
        return str(self["waiting"]["over"]).format(time=time)


def _unit(seconds: float) -> str:
    return "minutes" if seconds < HOURS_FROM_S else "hours"


def rounded(seconds: float, unit: str) -> int:
    """Half up, as JavaScript's Math.round does, so that page and script say the same."""
    return int(seconds / UNIT_S[unit] + 0.5)


@cache
def words(language: str) -> Words:
    """One language's words, read once.

    Raises:
        KeyError: not one of LANGUAGES.
    """
    if language not in LANGUAGES:
        raise KeyError(language)
    return Words(language)
