"""The languages of our pages: which one a reader gets, and its words, plurals and durations."""

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

    def about(self, seconds: int) -> str:
        """A time to come, no more exact than it is known."""
        return str(self["time"]["less"]) if seconds < 60 else self._time("", seconds)

    def at_most(self, high_s: int, wait_s: int) -> str:
        """The high value of an estimate, which a tenth of the waits pass; nothing where it says the
        same as the estimate does."""
        if high_s < 60 or self.about(high_s) == self.about(wait_s):
            return ""
        return self._time("most_", high_s)

    def _time(self, kind: str, seconds: int) -> str:
        if seconds < 5400:
            return self.counted(self["time"][f"{kind}minutes"], round_half_up(seconds / 60))
        return self.counted(self["time"][f"{kind}hours"], round_half_up(seconds / 3600))

    def place(self, position: int, wait_s: int | None) -> str:
        """The place and the estimate in one sentence."""
        waiting = self["waiting"]
        if wait_s is None:
            return str(waiting["place"]).format(n=self.number(position))
        return str(waiting["place_time"]).format(n=self.number(position), time=self.about(wait_s))

    def place_of(self, ticket: Ticket) -> str:
        """Where a waiting ticket stands, in one sentence."""
        if ticket.position is None:
            return str(self["waiting"]["heading"])
        wait_s = None if ticket.wait_ms is None else round(ticket.wait_ms / 1000)
        return self.place(ticket.position, wait_s)

    def waited(self, seconds: float) -> str:
        """That the turn has come, and after how long: "42 s", "3 min 5 s", "1 h 10 min"."""
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
        time = " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"
        return str(self["waiting"]["over"]).format(time=time)


def round_half_up(x: float) -> int:
    """As JavaScript's Math.round does, so that page and script say the same."""
    return int(x + 0.5)


@cache
def words(language: str) -> Words:
    """One language's words, read once.

    Raises:
        KeyError: not one of LANGUAGES.
    """
    if language not in LANGUAGES:
        raise KeyError(language)
    return Words(language)
