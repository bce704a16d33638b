"""What an operator wants of a pool's fleet: every knob, its unit, its range, its default."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from scheduler.autoscale.schedule import Hours

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
REQUEST_WAIT_MS, SESSION_WAIT_MS = 5_000, MINUTE_MS
"""``wait_target_ms`` by a pool's kind."""
REQUEST_HELD_MS = 30_000


class BadSpec(ValueError):
    """A knob that makes no sense; its name comes first in the message."""


class FleetSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pool's fleet. Spans are in ms, shares are fractions of 1, money is in the places'
    currency. The ranges are in ``RANGES``.

    Raises:
        BadSpec: a value is out of its range, or two of them contradict each other.
    """

    pool: str = "default"

    # Bounds. Instances count until the provider said that they are gone.
    workers_min: int = 0
    workers_max: int = 10
    hourly_budget: float | None = None  # all instances of the pool together; None: no bound
    spot: bool = True  # order spot machines where they are cheaper
    ondemand_base: int = 0  # so many workers are never spot
    schedule: tuple[Hours, ...] = ()

    # Up.
    wait_target_ms: int | None = None  # None: by the pool's kind (``target_ms``)
    late_share: float = 0.05  # of those who come, who may wait longer
    headroom: float = 1.0  # times the load that is expected
    saturation: float = 0.98  # slots in use, of those there are
    up_after_ms: int = 30_000  # so long wait or saturation must be over their bounds
    boot_ms: int = 5 * MINUTE_MS  # from order to ready, until some have been seen
    clear_boots: float = 1.0  # the excess is cleared within so many boot times
    held_ms: int | None = None  # a slot, until some turns have ended; None: ``turn_ms``
    panic_window_ms: int = 10_000
    panic_ratio: float = 1.5  # arrivals of that window over the usual ones
    panic_hold_ms: int = MINUTE_MS  # so long a panic lasts after its last sign

    # What is usual: time constants of what is learnt.
    usual_window_ms: int = 5 * MINUTE_MS  # of arrivals, and of the time a slot is held
    trend_window_ms: int = HOUR_MS // 2

    # Down.
    idle_load: float | None = 0.2  # GPU load; None where there are no GPUs
    idle_after_ms: int = 3 * MINUTE_MS
    surplus_after_ms: int = 6 * MINUTE_MS
    zero_after_ms: int = 15 * MINUTE_MS
    drain_ms: int = 2 * MINUTE_MS  # what runs is given so long to finish

    # Missing data.
    stale_ms: int = 30_000  # so old demand, fleet and heartbeats may be (DESIGN section 9)
    silence_ms: int = 3 * MINUTE_MS  # after it a silent worker no longer counts as supply
    gap_ms: int = 2 * MINUTE_MS  # after so long without a decision, rates begin anew
    offers_stale_ms: int = 15 * MINUTE_MS  # older offers are not ordered from; asked for every 5

    # Places.
    failures_most: int = 2  # so many failures of a place are forgiven
    cooldown_ms: int = MINUTE_MS  # then it is closed, twice as long with each further one
    cooldown_most_ms: int = HOUR_MS

    def target_ms(self, session_ms: int | None) -> int:
        """The wait that is aimed at. ``session_ms``: how long a session of the pool lasts; None
        where a slot is held for one request."""
        if self.wait_target_ms is not None:
            return self.wait_target_ms
        return REQUEST_WAIT_MS if session_ms is None else SESSION_WAIT_MS

    def turn_ms(self, session_ms: int | None) -> int:
        """How long a slot is held, before that is known; a session all of its time."""
        if self.held_ms is not None:
            return self.held_ms
        return REQUEST_HELD_MS if session_ms is None else session_ms

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise BadSpec(f"{name}: {value} is not between {least} and {most}")
        for name, other in NOT_ABOVE:
            if getattr(self, name) > getattr(self, other):
                raise BadSpec(f"{name}: {getattr(self, name)} is above {other}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "FleetSpec":
        """From plain values, as read from JSON.

        Raises:
            BadSpec: a name is unknown, a value has the wrong type or is out of its range.
        """
        try:
            return msgspec.convert(dict(values), cls)
        except msgspec.ValidationError as error:
            raise BadSpec(_named(str(error))) from error


RANGES: dict[str, tuple[float, float]] = {
    "workers_min": (0, 10_000),
    "workers_max": (0, 10_000),
    "hourly_budget": (0, 1e9),
    "ondemand_base": (0, 10_000),
    "wait_target_ms": (100, 6 * HOUR_MS),
    "late_share": (0.0001, 0.9),
    "headroom": (0.5, 10),
    "saturation": (0.1, 1),
    "up_after_ms": (0, HOUR_MS),
    "boot_ms": (1_000, 2 * HOUR_MS),
    "clear_boots": (0.05, 100),
    "held_ms": (100, 24 * HOUR_MS),
    "panic_window_ms": (1_000, 10 * MINUTE_MS),
    "panic_ratio": (1.1, 100),
    "panic_hold_ms": (0, HOUR_MS),
    "usual_window_ms": (5_000, HOUR_MS),
    "trend_window_ms": (5_000, 6 * HOUR_MS),
    "idle_load": (0, 1),
    "idle_after_ms": (0, 24 * HOUR_MS),
    "surplus_after_ms": (0, 24 * HOUR_MS),
    "zero_after_ms": (0, 7 * 24 * HOUR_MS),
    "drain_ms": (0, 24 * HOUR_MS),
    "stale_ms": (1_000, HOUR_MS),
    "silence_ms": (1_000, HOUR_MS),
    "gap_ms": (1_000, HOUR_MS),
    "offers_stale_ms": (MINUTE_MS, 24 * HOUR_MS),
    "failures_most": (0, 100),
    "cooldown_ms": (1_000, 24 * HOUR_MS),
    "cooldown_most_ms": (1_000, 24 * HOUR_MS),
}
NOT_ABOVE = (
    ("workers_min", "workers_max"),
    ("ondemand_base", "workers_max"),
    ("stale_ms", "silence_ms"),
    ("idle_after_ms", "surplus_after_ms"),
    ("cooldown_ms", "cooldown_most_ms"),
)


def _named(message: str) -> str:
    """msgspec's "… - at `$.x`" with the field first, as our own messages have it."""
    words, at, path = message.partition(" - at `$.")
    return f"{path.rstrip('`')}: {words}" if at else words
