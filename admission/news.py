"""Wakes the open event streams of a user when there is news for them.

Knows who listens in this process; not what changed: each stream reads its own snapshot.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager


class Newsroom:
    """Users with open streams, and one event for each stream."""

    def __init__(self) -> None:
        self._streams: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._closing = False

    @contextmanager
    def attach(self, user: str) -> Iterator[asyncio.Event]:
        """An event that is set at each piece of news for ``user``, and when the service stops."""
        event = asyncio.Event()
        if self._closing:
            event.set()
        self._streams[user].add(event)
        try:
            yield event
        finally:
            self._streams[user].discard(event)
            if not self._streams[user]:
                del self._streams[user]

    @property
    def closing(self) -> bool:
        """True once every stream must end."""
        return self._closing

    async def follow(self, users: AsyncIterator[str | None]) -> None:
        """Wake streams as ``users`` names them; None wakes all. Ends when ``users`` does."""
        async for user in users:
            self._wake(user)

    def close(self) -> None:
        """Wake every stream for the last time."""
        self._closing = True
        self._wake(None)

    def _wake(self, user: str | None) -> None:
        if user is None:
            for events in self._streams.values():
                for event in events:
                    event.set()
        else:
            for event in self._streams.get(user, ()):
                event.set()
