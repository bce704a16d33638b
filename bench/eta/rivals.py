"""The predictors that the engine's estimate is measured against, each from what it may know.

Knows nothing of errors. Where one knows nothing yet, it says what is configured.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """What a predictor may know of one who waits, and of the pool at that moment. Times in ms."""

    position: int
    waited: int
    slots: int
    cap: int  # of a session
    window: int  # length of the window
    rate: int  # who got a slot within the last window in which anybody did
    last_wait: int | None  # of who got a slot last


def configured(known: Known) -> float:
    """k * T / c: every turn lasts its cap and all slots turn over evenly."""
    return known.position * known.cap / known.slots


def windowed(known: Known) -> float:
    """The rate of the last ten minutes goes on."""
    if not known.rate:
        return configured(known)
    return known.position * known.window / known.rate


def last_to_enter(known: Known) -> float:
    """LES: everybody waits as long as the last who got a slot, less what they waited already."""
    if known.last_wait is None:
        return configured(known)
    return max(0, known.last_wait - known.waited)


RIVALS: dict[str, Callable[[Known], float]] = {
    "rate of 10 min": windowed,
    "LES": last_to_enter,
    "k*T/c": configured,
}
