"""Who waits for one of a session's requests to end, in the order in which they came.

Knows no session and no Redis: it is told of ends, and tells whose turn it is to ask.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

LOOK_S = 1.0  # what Redis said is not trusted for longer (``memory.TRUST_S``)

News = Callable[[], Awaitable[bool]]
"""Waits LOOK_S at most; says whether to try now. The first in line always does, for requests end in
other processes, too; the others when one ended here."""


class Line:
    """Those who wait in this process."""

    def __init__(self) -> None:
        self._called: deque[asyncio.Event] = deque()  # one for each, in their order

    def __bool__(self) -> bool:
        return bool(self._called)

    def advance(self) -> None:
        """One more may begin: the first who was not called yet tries."""
        for called in self._called:
            if not called.is_set():
                called.set()
                return

    @contextmanager
    def place(self) -> Iterator[News]:
        """One more at its end, while the block is open."""
        called = asyncio.Event()
        self._called.append(called)

        async def news() -> bool:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await called.wait()
            tries = called.is_set() or self._called[0] is called
            called.clear()
            return tries

        try:
            yield news
        finally:
            self._called.remove(called)
            self.advance()  # what let this one begin may be room for two
