"""Errors of predictions, counted: MAE, RMSE, bias and how often the named time held."""

import math
from dataclasses import dataclass

BANDS = ((1, 5), (6, 20), (21, 50), (51, 10**9))
"""Positions in the queue that are counted together: the front, the middle, the back."""


@dataclass
class Score:
    """Sums over predictions; times in ms."""

    count: int = 0
    actual: float = 0
    absolute: float = 0
    squared: float = 0
    signed: float = 0
    held: int = 0
    high_held: int = 0

    def add(self, said: float, high: float, actual: float) -> None:
        """One prediction, its high value, and the wait that followed."""
        self.count += 1
        self.actual += actual
        self.absolute += abs(said - actual)
        self.squared += (said - actual) ** 2
        self.signed += said - actual
        self.held += actual <= said
        self.high_held += actual <= high

    @property
    def wait(self) -> float:
        return self.actual / self.count

    @property
    def mae(self) -> float:
        return self.absolute / self.count

    @property
    def rmse(self) -> float:
        return math.sqrt(self.squared / self.count)

    @property
    def bias(self) -> float:
        """Above 0: people are told too long a wait."""
        return self.signed / self.count

    @property
    def holds(self) -> float:
        """Share of waits that were no longer than the value."""
        return self.held / self.count

    @property
    def coverage(self) -> float:
        """Share of waits that were no longer than the high value."""
        return self.high_held / self.count


def band_of(position: int) -> tuple[int, int]:
    """The band a position is counted in."""
    return next(band for band in BANDS if position <= band[1])
