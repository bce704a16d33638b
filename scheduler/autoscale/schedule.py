"""Office hours: bounds of the fleet that hold at certain times of the week."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

MINUTES = 24 * 60


class Hours(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From ``start`` to ``end`` on ``days`` (0 Monday to 6 Sunday) in ``timezone``.

    Times are "HH:MM" on the wall there, "24:00" too; an ``end`` that is not after ``start`` is on
    the next day. While it holds, there are at least ``workers_min`` and at most ``workers_max``.

    Raises:
        ValueError: a field makes no sense; it is named.
    """

    start: str
    end: str
    days: tuple[int, ...] = (0, 1, 2, 3, 4)
    timezone: str = "UTC"
    workers_min: int | None = None
    workers_max: int | None = None

    def __post_init__(self) -> None:
        _minute("start", self.start)
        _minute("end", self.end)
        if not self.days or not set(self.days) <= set(range(7)):
            raise ValueError(f"days: {self.days} are not numbers from 0 (Monday) to 6 (Sunday)")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"timezone: {self.timezone!r} is not known") from error
        for name, bound in (("workers_min", self.workers_min), ("workers_max", self.workers_max)):
            if bound is not None and bound < 0:
                raise ValueError(f"{name}: {bound} is below 0")

    def holds(self, now_ms: int) -> bool:
        """Whether they hold at this instant."""
        there = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(ZoneInfo(self.timezone))
        minute = there.hour * 60 + there.minute
        start, end = _minute("start", self.start), _minute("end", self.end)
        if start < end:
            return there.weekday() in self.days and start <= minute < end
        yesterday = (there - timedelta(days=1)).weekday()
        return (there.weekday() in self.days and minute >= start) or (
            yesterday in self.days and minute < end
        )


def bounds(
    schedule: Sequence[Hours], least: int, most: int, now_ms: int, lead_ms: int
) -> tuple[int, int]:
    """(least, most) workers now. A raised least holds ``lead_ms`` early, so that they are ready."""
    for hours in schedule:
        now = hours.holds(now_ms)
        if hours.workers_min is not None and (now or hours.holds(now_ms + lead_ms)):
            least = max(least, hours.workers_min)
        if hours.workers_max is not None and now:
            most = min(most, hours.workers_max)
    return min(least, most), most


def _minute(field: str, text: str) -> int:
    hour, colon, minute = text.partition(":")
    if colon and len(hour) == len(minute) == 2 and (hour + minute).isdecimal():
        minutes = int(hour) * 60 + int(minute)
        if int(minute) < 60 and minutes <= MINUTES:
            return minutes
    raise ValueError(f"{field}: {text!r} is not a time like 08:30")
