"""Brings the news of tickets to those who are attached to this process.

A ticket that moved is read and shown at once. Places are asked for all together, when something
changed and at most every second. To be attached is presence, which is renewed for many in one call
(DESIGN sections 4 to 6).
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from admission.audience import Audience
from admission.domain import Change, Status, Ticket
from admission.errors import StoreUnavailable
from admission.listener import Listener, News
from admission.outcomes import Alive, Ended
from admission.store.redis_store import RedisStore

PING_S = 15.0  # DESIGN section 5; below the 60 s idle limit of nginx (proxy_read_timeout)
ROUNDS = 15  # in which those attached are pinged, so that not all are in one moment
PLACES_S = 1.0  # places are told at most this often (DESIGN section 6)
GATHER_S = 0.02  # who moved comes first, and what moves together is told together


class Newsroom:
    """Everybody who is attached to this process."""

    def __init__(
        self, store: RedisStore, also: Callable[[Change], None] = lambda change: None
    ) -> None:
        """``also`` hears every change, before anybody is woken."""
        self._store, self._also = store, also
        self._audiences: dict[str, Audience] = {}  # by pool
        self._rota: deque[Listener] = deque()  # by when their next ping is due
        self._pools_changed: set[str] = set()  # whose places may be others now
        self._places = asyncio.Event()  # of some pool
        self._closing = False

    async def follow(self, pool: str, user: str, ticket: str = "") -> AsyncGenerator[Ticket, None]:
        """The user's ticket now and at each change, the end last; nothing when there is none.

        ``ticket`` names one of a request pool. Whoever is followed is present.

        Raises:
            StoreUnavailable: at the begin; later it is waited for.
        """
        with self.listener(pool, user, ticket) as listener:
            async for news in self.told(listener):
                if news:
                    yield news.ticket

    @contextmanager
    def listener(
        self, pool: str, user: str, ticket: str = "", *, pace_s: float = 0.0
    ) -> Iterator[Listener]:
        """A listener for ``told``, attached while this is open."""
        listener = Listener(pool, user, ticket, pace_s)
        listener.ping_s = _now_s() + PING_S
        audience = self._audiences.setdefault(pool, Audience(self._store, pool))
        audience.add(listener)
        if self._closing:
            listener.wake()
        self._rota.append(listener)
        try:
            yield listener
        finally:
            audience.discard(listener)
            listener.gone = True

    async def told(self, listener: Listener) -> AsyncGenerator[News | None, None]:
        """The listener's ticket now and at each change, the end last; None when a ping is due.

        Ends also when the service stops.

        Raises:
            StoreUnavailable: at the begin; later it is waited for.
        """
        ticket = await self._arrive(listener)
        while ticket is not None:
            news = listener.show(ticket)
            if news:
                yield news
            if ticket.status is Status.DISCONNECTED:
                return
            await listener.woken()
            if self._closing:
                return
            if listener.take_ping():
                yield None
            ticket = await self._next(listener)

    # --- what lasts as long as the service -----------------------------------------------------

    @property
    def closing(self) -> bool:
        """True once every stream must end."""
        return self._closing

    def close(self) -> None:
        """Wake everybody for the last time."""
        self._closing = True
        for audience in self._audiences.values():
            for listener in audience:
                listener.wake()

    async def hear(self) -> None:
        """Wake those whose ticket moved, as the store tells it. Never ends by itself."""
        async for change in self._store.changes():
            self._also(change)
            if change.pool is None:
                for listener in self._rota:
                    listener.ping_s = 0  # whoever may have been away too long is back
            pools = list(self._audiences) if change.pool is None else [change.pool]
            for pool in pools:
                self._hear_of(pool, change.users)

    async def keep_places(self) -> None:
        """Tell places when they changed. Never ends by itself."""
        while True:
            await self._places.wait()
            began_s = _now_s()
            await asyncio.sleep(GATHER_S)
            self._places.clear()
            pools, self._pools_changed = self._pools_changed, set()
            for pool in pools:
                try:
                    await self._audiences[pool].tell_places()
                except StoreUnavailable:
                    self._places_changed(pool)
            await asyncio.sleep(max(0.0, began_s + PLACES_S - _now_s()))

    async def keep_presence(self) -> None:
        """Renew the presence of everybody, and ping them, every PING_S. Never ends by itself."""
        while True:
            await asyncio.sleep(PING_S / ROUNDS)
            due: defaultdict[str, list[Listener]] = defaultdict(list)
            for listener in self._due():
                due[listener.pool].append(listener)
                listener.ping()
            for pool, listeners in due.items():
                with suppress(StoreUnavailable):  # the grace is longer than a few rounds
                    if await self._audiences[pool].attend(listeners):
                        self._places_changed(pool)

    def _due(self) -> Iterator[Listener]:
        now_s = _now_s()
        while self._rota and self._rota[0].ping_s <= now_s:
            listener = self._rota.popleft()
            if not listener.gone:
                listener.ping_s = now_s + PING_S
                self._rota.append(listener)
                yield listener

    def _hear_of(self, pool: str, users: Iterable[str] | None) -> None:
        audience = self._audiences.get(pool)
        if audience is None:
            return
        if users is None:
            audience.doubt()
        else:
            audience.moved(users)
        self._places_changed(pool)

    def _places_changed(self, pool: str) -> None:
        self._pools_changed.add(pool)
        self._places.set()

    # --- one listener's ticket -------------------------------------------------------------------

    async def _arrive(self, listener: Listener) -> Ticket | None:
        match await self._store.heartbeat(listener.pool, listener.user, ticket=listener.named):
            case Alive(ticket) | Ended(ticket):
                return ticket
            case _:
                return None

    async def _next(self, listener: Listener) -> Ticket | None:
        """What to look at now that it was woken; None when the ticket is forgotten."""
        place = listener.take_place()
        if not listener.stale:
            return place or listener.shown
        listener.stale = False
        try:
            seen = await self._store.status(listener.pool, listener.user, ticket=listener.named)
        except StoreUnavailable:
            listener.stale = True  # the place is kept; woken again when Redis is back
            return listener.shown
        return seen if isinstance(seen, Ticket) else None


def _now_s() -> float:
    return asyncio.get_running_loop().time()
