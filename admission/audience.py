"""Those who are attached to one pool in this process: whom a change concerns, where they stand.

Asks for many at once: one call of a script for some hundred tickets, never one for each.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator

from admission.domain import Ticket
from admission.listener import Listener
from admission.store.redis_store import RedisStore

CHUNK = 500  # tickets one script looks at: some ms of Redis' time
SLICE = 25  # listeners woken in one go: whoever moves meanwhile waits about a ms

Standing = tuple[Listener, Ticket]  # who waits, and how they saw it last


class Audience:
    """The listeners of one pool."""

    def __init__(self, store: RedisStore, pool: str) -> None:
        self._store, self._pool = store, pool
        self._of: defaultdict[str, set[Listener]] = defaultdict(set)
        self._slots: int | None = None  # when places were last told to all

    def __iter__(self) -> Iterator[Listener]:
        return iter([listener for listeners in self._of.values() for listener in listeners])

    def add(self, listener: Listener) -> None:
        self._of[listener.user].add(listener)

    def discard(self, listener: Listener) -> None:
        self._of[listener.user].discard(listener)
        if not self._of[listener.user]:
            del self._of[listener.user]

    def moved(self, users: Iterable[str]) -> None:
        """Tickets of these users moved."""
        for user in users:
            for listener in self._of.get(user, ()):
                listener.moved()

    def doubt(self) -> None:
        """Anybody's ticket may have moved. Of those who wait, ``tell_places`` finds out."""
        for listener in self:
            if not listener.waiting:
                listener.moved()

    async def tell_places(self) -> None:
        """Tell all who wait where they stand now.

        Raises:
            StoreUnavailable: some were not told.
        """
        before = self._slots
        for chunk in _chunks(_waiting(self)):
            self._slots = await self._place(chunk, before)

    async def attend(self, listeners: Iterable[Listener]) -> bool:
        """Renew the presence of these, and look for what comes without news: deadlines, estimates
        that did not hold. True when the pool has other slots than all were told of.

        Raises:
            StoreUnavailable: some were not renewed.
        """
        other_slots = False
        for listener in listeners:
            if not listener.waiting:
                listener.moved()
        for chunk in _chunks(_waiting(listeners)):
            await self._store.attend(self._pool, [ticket.ticket_id for _, ticket in chunk])
            other_slots |= await self._place(chunk, self._slots) != self._slots
        return other_slots

    async def _place(self, chunk: list[Standing], before: int | None) -> int:
        """Tell these their places, beside a pool that had ``before`` slots; how many it has."""
        tickets = [ticket.ticket_id for _, ticket in chunk]
        places = await self._store.positions(self._pool, tickets)
        slots_changed = before is not None and places.slots != before
        for index, (listener, ticket) in enumerate(chunk):
            now = places.of(ticket, index)
            if now is None:
                listener.moved()
            else:
                listener.place(now, slots_changed=slots_changed)
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        return places.slots


def _waiting(listeners: Iterable[Listener]) -> list[Standing]:
    return [(listener, listener.waiting) for listener in listeners if listener.waiting]


def _chunks(standing: list[Standing]) -> Iterator[list[Standing]]:
    for start in range(0, len(standing), CHUNK):
        yield standing[start : start + CHUNK]
