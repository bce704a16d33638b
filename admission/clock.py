"""Who says what time it is: Redis in production, the test itself in tests and simulation."""

import time
from typing import Protocol


class Clock(Protocol):
    """Gives each script its ``now_ms``; 0 means that the script reads Redis' own clock.

    ``passed_ms`` is for spans alone, in this process: it never goes back, and begins anywhere.
    """

    def now_ms(self) -> int: ...

    def passed_ms(self) -> float: ...


class RedisClock:
    """Every script reads Redis ``TIME``: one clock for all hosts."""

    def now_ms(self) -> int:
        return 0

    def passed_ms(self) -> float:
        return time.monotonic() * 1000


class ManualClock:
    """A clock that only moves when told to, for tests and simulation; it refuses to go back."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def passed_ms(self) -> float:
        return self._now_ms

    def advance_ms(self, ms: int) -> None:
        """Move forward by ``ms`` >= 0 milliseconds.

        Raises:
            ValueError: ``ms`` is negative.
        """
        if ms < 0:
            raise ValueError("time does not go back")
        self._now_ms += ms
