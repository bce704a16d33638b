"""The times in which use is counted: the minute, the day and the month, all in UTC.

Pure: an instant goes in as ms since 1970.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from math import ceil

MINUTE_MS = 60_000
DAY_MS = 86_400_000


class Span(StrEnum):
    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True)
class Window:
    """One minute, day or month. ``name`` is how it stands in Redis."""

    name: str
    begin_ms: int
    end_ms: int


def window(span: Span, now_ms: int) -> Window:
    """The one that ``now_ms`` lies in; days begin at 00:00 UTC, months on the first."""
    if span is Span.MONTH:
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        begin = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        end = begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
        return Window(f"month:{begin:%Y-%m}", _ms(begin), _ms(end))
    length_ms = MINUTE_MS if span is Span.MINUTE else DAY_MS
    number = now_ms // length_ms
    return Window(f"{span}:{number}", number * length_ms, (number + 1) * length_ms)


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def in_a_minute(now_ms: int, before: int, now: int) -> float:
    """How much the last 60 s saw, about: the whole of this minute, and of the one before it the
    part that is less than 60 s ago, as if it had been even.

    Args:
        before, now: counts of the minute before and of this one.
    """
    return now + before * (1 - now_ms % MINUTE_MS / MINUTE_MS)


def below_in_ms(now_ms: int, before: int, now: int, limit: int) -> int:
    """When ``in_a_minute`` will be below ``limit`` if nothing is added, ms from now, at least 1."""
    rest_ms = MINUTE_MS - now_ms % MINUTE_MS
    if now < limit and before:  # in this minute, as the one before moves out
        share = (limit - now) / before  # of it may still count
        return max(1, rest_ms - int(share * MINUTE_MS) + 1)
    share = limit / now if now else 1.0  # in the next one, as this one moves out
    return rest_ms + ceil((1 - min(1.0, max(0.0, share))) * MINUTE_MS) + 1
