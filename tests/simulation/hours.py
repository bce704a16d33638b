"""Hours: the time in which simulated people live, and Redis' clock beside it.

Everybody is a coroutine that sleeps; only one is awake at any moment, so a seed gives the same day
again. Nothing real sleeps.
"""

import asyncio
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from typing import Any

from admission.clock import ManualClock

Life = Coroutine[Any, Any, None]


class Hours:
    """Wakes who is due next. Redis' clock follows people's time, but may jump ahead of it, or
    stand still until it is caught up with."""

    def __init__(self, clock: ManualClock) -> None:
        self.now_ms = 0
        self._clock = clock
        self._begin_ms = clock.now_ms()
        self._ahead_ms = 0
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._quiet = asyncio.Event()
        self._lives: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def begin(self, life: Life, in_ms: int = 0) -> None:
        """Let somebody live from ``in_ms`` on."""

        def start() -> None:
            task = asyncio.create_task(life)
            self._lives.add(task)
            task.add_done_callback(self._over)

        self._later(in_ms, start)

    async def sleep(self, ms: float) -> None:
        """Sleep ``ms`` of people's time."""
        waker = asyncio.get_running_loop().create_future()
        self._later(max(0, round(ms)), lambda: waker.set_result(None))
        self._quiet.set()
        await waker

    def jump_clock(self, ms: int) -> None:
        """Redis' clock is ``ms`` later at once, for good."""
        self._ahead_ms += ms

    def stop_clock(self, ms: int) -> None:
        """Redis' clock stands still for ``ms``, and stays behind."""
        self._ahead_ms -= ms

    async def run(self, until_ms: int) -> None:
        """Live until ``until_ms``; then everybody falls silent. Raises what anybody raised."""
        while self._due and self._due[0][0] <= until_ms and self._failure is None:
            at_ms, _, wake = heappop(self._due)
            self.now_ms = max(self.now_ms, at_ms)
            clock_ms = self._begin_ms + self.now_ms + self._ahead_ms
            self._clock.advance_ms(max(0, clock_ms - self._clock.now_ms()))
            self._quiet.clear()
            wake()
            await self._quiet.wait()
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)
        if self._failure is not None:
            raise self._failure

    def _later(self, ms: int, wake: Callable[[], None]) -> None:
        self._number += 1
        heappush(self._due, (self.now_ms + ms, self._number, wake))

    def _over(self, life: asyncio.Task[None]) -> None:
        self._lives.discard(life)
        if not life.cancelled() and life.exception() is not None:
            self._failure = self._failure or life.exception()
        self._quiet.set()
