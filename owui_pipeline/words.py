"""What people read: which language, and how places and times are said in it.

Knows no ticket and no Open WebUI; the texts themselves stand in ``languages``. The gateway says the
same by ``admission/pages/words.py``, for a chat may wait here or there.
"""

import json
import math
import re
import string
from collections.abc import Mapping
from typing import Any

from owui_pipeline.languages import TABLES

REASONS = ("passed", "capacity", "overdue")
"""Why a place or an estimate is other than before, in admission's words."""

UNIT_S = {"minutes": 60, "hours": 3600}
HOURS_FROM_S = 5400  # as on admission's own pages: 90 minutes are told as 2 hours
DAY_S = 86_400
HIGH_FACTOR = 1.2  # nobody says "about 30 to 32 minutes"
GROUPED_FROM = 10_000  # 1234 is read as it stands in each of our languages
SEPARATORS = {"en": ",", "fr": "\u202f", "it": ".", "de": ".", "es": "\u00a0"}  # CLDR, group

_RANGE = re.compile(  # a language range of Accept-Language (RFC 9110, section 12.5.4)
    r"\s*([A-Za-z]{1,8})(?:[-_][A-Za-z0-9]{1,8})*\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*", re.I
)


def choose(*wishes: str | None) -> str:
    """The first of our languages that is wished for, "en" without one.

    A wish is a language tag ("fr-CA"), the value of an Accept-Language header ("de;q=0.5, it"), or
    nothing, or "auto". What is malformed in one is passed over.
    """
    for wish in wishes:
        for language in _by_preference(wish or ""):
            if language in TABLES:
                return language
    return "en"


def _by_preference(header: str) -> list[str]:
    matches = [match for part in header.split(",")[:20] if (match := _RANGE.fullmatch(part))]
    wanted = [(float(match[2] or 1), match[1].lower()) for match in matches]
    wanted.sort(key=lambda wish: -wish[0])
    return [language for quality, language in wanted if quality]


def ordinal(number: int, language: str) -> str:
    """A place as that language's texts name it: "5th" in English, the bare number in the others,
    where the form of an ordinal would hang on the word beside it."""
    written = str(number)
    if number >= GROUPED_FROM:
        written = f"{number:,}".replace(",", SEPARATORS[language])
    if language != "en":
        return written
    teens = number % 100 in (11, 12, 13)
    return f"{written}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def plural(language: str, number: int) -> str:
    """The form of CLDR's plural rules that a whole number below a million takes: "one" or
    "other"."""
    return "one" if number == 1 or (language == "fr" and number == 0) else "other"


def placeholders(text: str) -> set[str]:
    """The names in braces.

    Raises:
        ValueError: a brace without its other half, or more than a name between two.
    """
    names = set()
    for _, name, spec, conversion in string.Formatter().parse(text):
        if spec or conversion:
            raise ValueError(f"write {{{name}}} with nothing else in the braces")
        if name is not None:
            names.add(name)
    return names


def own_texts(text: str) -> dict[str, dict[str, str]]:
    """An administrator's own texts, by language (always all of ours) and key.

    ``text``: nothing, or a JSON object: ``{"waiting": "Place {place}"}`` for all languages,
    ``{"fr": {"waiting": "Place {place}"}}`` for one, which goes before.

    Raises:
        ValueError: not of that form, an unknown key or language, or a name in braces that our own
            text does not have; the message names the key.
    """
    try:
        told = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"texts: not JSON: {error}") from None
    if not isinstance(told, dict):
        raise ValueError("texts: not a JSON object")
    for_all = _checked("texts", {key: told[key] for key in told if key not in TABLES})
    return {
        language: {**for_all, **_checked(f"texts.{language}", told.get(language, {}))}
        for language in TABLES
    }


def _checked(where: str, texts: Any) -> dict[str, str]:
    if not isinstance(texts, dict):
        raise ValueError(f"{where}: not an object of keys and texts")
    for key, text in texts.items():
        ours = TABLES["en"].get(key)
        if ours is None:
            known = f"texts: {', '.join(TABLES['en'])}; languages: {', '.join(TABLES)}"
            raise ValueError(f"{where}.{key}: no such text or language ({known})")
        if not isinstance(text, str):
            raise ValueError(f"{where}.{key}: not a text")
        try:
            unknown = placeholders(text) - placeholders(ours)
        except ValueError as error:
            raise ValueError(f"{where}.{key}: {error} (a brace itself is doubled)") from None
        if unknown:
            known = " ".join(f"{{{name}}}" for name in sorted(placeholders(ours))) or "none"
            raise ValueError(f"{where}.{key}: unknown {{{min(unknown)}}} (known: {known})")
    return texts


class Words:
    """One language, with the texts an administrator put in the place of ours."""

    def __init__(self, language: str = "en", own: Mapping[str, str] | None = None) -> None:
        """``language``: one of TABLES, else KeyError; ``own``: that language's `own_texts`."""
        self.language = language
        self._table = {**TABLES[language], **(own or {})}

    def say(self, key: str, **values: object) -> str:
        """The text of that key, filled in."""
        return self._table[key].format(**values)

    def line(
        self,
        position: int | None,
        wait_s: float | None,
        high_s: float | None,
        because: str | None = None,
    ) -> str:
        """The place in line and the estimate, each when it is known.

        ``because``: one of REASONS where that is worth a word; any other is passed over.
        """
        if position is None:
            line = self.say("in_line")
        elif wait_s is None:
            line = self.say("waiting", place=ordinal(position, self.language))
        else:
            place, wait = ordinal(position, self.language), self.wait(wait_s, high_s)
            line = self.say("waiting_about", place=place, wait=wait)
        return self.say(because, line=line) if because in REASONS else line

    def wait(self, seconds: float, high_s: float | None = None) -> str:
        """A time to come, as people say it: "less than a minute", "about 4 to 9 minutes".

        ``high_s``: what nine of ten waits stay below. It is told when it is HIGH_FACTOR times as
        long or more, and never as more than a day.
        """
        if seconds >= DAY_S:
            return self.say("more", time=self._count("hours", DAY_S // 3600))
        high_s = min(high_s or 0, DAY_S)
        high_s = high_s if high_s >= seconds * HIGH_FACTOR else seconds
        unit = "minutes" if high_s < HOURS_FROM_S else "hours"
        if seconds < 60:
            # Rounded up, for it is said to be less.
            high = math.ceil(high_s / UNIT_S[unit])
            if high <= 1:
                return self.say("less_than_a_minute")
            return self.say("less", time=self._count(unit, high))
        high, low_unit = _rounded(high_s, unit), unit if seconds >= UNIT_S[unit] else "minutes"
        low = _rounded(seconds, low_unit)
        if low_unit != unit:
            return self.say("range", low=self._count(low_unit, low), time=self._count(unit, high))
        if low == high:
            return self._count(f"about_{unit}", high)
        return self.say("range", low=low, time=self._count(unit, high))

    def left(self, seconds: float) -> str:
        """A time that is left: "2 minutes", to the nearest one; "less than a minute"; from two
        hours on whole hours."""
        if seconds < 60:
            return self.say("less_than_a_minute")
        minutes = _rounded(seconds, "minutes")
        if minutes < 120:
            return self._count("minutes", minutes)
        return self._count("hours", minutes // 60)

    def when(self, seconds: float | None) -> str:
        """When to try again: "in a minute", also when that is not known; "in about 4 minutes"."""
        if seconds is None or seconds < 90:
            return self.say("in_a_minute")
        return self.say("when", wait=self.wait(seconds))

    def elapsed(self, seconds: float) -> str:
        """A time that passed: "42 s", "3 min 5 s", "1 h 10 min"; the same in all our languages.
        Never "0 s", for it did pass."""
        minutes, rest = divmod(max(1, round(seconds)), 60)
        hours, minutes = divmod(minutes, 60)
        parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
        return " ".join(f"{count} {unit}" for count, unit in parts if count)

    def _count(self, unit: str, number: int) -> str:
        return self.say(f"{unit}_{plural(self.language, number)}", n=number)


def _rounded(seconds: float, unit: str) -> int:
    return int(seconds / UNIT_S[unit] + 0.5)  # half up, as admission's pages do
