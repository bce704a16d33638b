"""The fleet's history as it is written, for everybody who follows it in this process.

One reader of the stream, however many follow: it looks while somebody does, and keeps the newest
entries for all of them, ready to be sent. Whoever fell further behind than that, or comes back
after a while, reads on from the stream by pages until it has caught up; so a slow reader costs no
memory and misses nothing that the stream still holds.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from admission.errors import StoreUnavailable
from admission.fleet_views import kind_of, recorded_view
from admission.store.fleet_records import Recorded
from admission.store.fleet_store import FleetStore

LOOK_S = 0.5  # how late an event may be told; a look that finds nothing takes Redis some 50 us
PING_S = 15.0  # as for tickets (news.PING_S)
KEPT = 500  # of about 2 kB each
PAGE = 100
BEGINNING = "0-0"  # before the first entry that ever was

Order = tuple[int, ...]  # an entry's id as numbers: "12-3" comes before "12-10"


class Begin(NamedTuple):
    """The entry after which it goes on. ``gap``: some that the follower had not seen are gone, so
    it must read ``/admin/instances`` again."""

    entry: str
    gap: bool


class Told(NamedTuple):
    """An entry as it is sent: its id, its place, its kind, and the event's view as JSON."""

    entry: str
    order: Order
    kind: str
    text: str


class Bulletin:
    """What all who follow have in common."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store
        self._followers = 0
        self._wanted = asyncio.Event()  # somebody follows
        self._news = asyncio.Event()  # another at each news, so that all who wait are woken
        self._newest: deque[Told] = deque()
        self._after = BEGINNING  # whatever came after this entry, and was read, is in ``_newest``
        self._closing = False

    async def follow(self, after: str | None) -> AsyncGenerator[Begin | Told | None, None]:
        """Where it begins, then each entry; None when a ping is due. Ends when the service stops.

        Args:
            after: the last entry that was seen; None begins with what comes next.

        Raises:
            StoreUnavailable: at the begin; later it is waited for.
        """
        first, last = await self._store.ends()
        begin = _begin(after, first, last)
        yield begin
        order = _order(begin.entry)
        with self._following(last):
            while not self._closing:
                news = self._news
                page = await self._page(order)
                for each in page:
                    order = each.order
                    yield each
                if not page and not await _within(PING_S, news):
                    yield None

    async def keep_reading(self) -> None:
        """Look for what is new as long as somebody follows. Never ends by itself."""
        while True:
            await self._wanted.wait()
            if not await self._read():
                await asyncio.sleep(LOOK_S)

    def close(self) -> None:
        """End all who follow."""
        self._closing = True
        self._wake()

    @contextmanager
    def _following(self, last: str) -> Iterator[None]:
        if not self._followers:
            self._newest.clear()
            self._after = last
            self._wanted.set()
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers:
                self._wanted.clear()

    async def _read(self) -> bool:
        """Take over the next page; whether there may be more."""
        after = self._last()
        try:
            page = await self._store.history(after, PAGE)
        except StoreUnavailable:
            return False
        if not page or after != self._last():  # all went meanwhile, and others came
            return False
        self._newest += map(_told, page)
        while len(self._newest) > KEPT:
            self._after = self._newest.popleft().entry
        self._wake()
        return len(page) == PAGE

    def _last(self) -> str:
        return self._newest[-1].entry if self._newest else self._after

    async def _page(self, order: Order) -> list[Told]:
        """What comes after this place, as far as it is known here, or one page of the stream."""
        while order < _order(self._after) and not self._closing:
            try:
                return [_told(each) for each in await self._store.history(_entry(order), PAGE)]
            except StoreUnavailable:
                await asyncio.sleep(LOOK_S)
        found: deque[Told] = deque()
        for each in reversed(self._newest):
            if each.order <= order:
                break
            found.appendleft(each)
        return list(found)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _begin(after: str | None, first: str, last: str) -> Begin:
    if after is None:
        return Begin(last, gap=False)
    if _order(after) > _order(last):  # of a stream that was lost
        return Begin(last, gap=True)
    return Begin(after, gap=after != BEGINNING and _order(after) < _order(first))


async def _within(seconds: float, event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _told(recorded: Recorded) -> Told:
    text = msgspec.json.encode(recorded_view(recorded)).decode()
    return Told(recorded.entry, _order(recorded.entry), kind_of(recorded.event), text)


def _order(entry: str) -> Order:
    return tuple(map(int, entry.split("-")))


def _entry(order: Order) -> str:
    return "-".join(map(str, order))
