"""A call's place in the queue: joined, followed until its turn comes, left when the call is over.

Knows the queue; not how its caller is told, nor what runs in the turn (``turn``).
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress

from aiohttp import web

from admission import joins, wire
from admission.auth import Caller
from admission.domain import Status, Ticket
from admission.errors import AdmissionError, Busy, StoreUnavailable, Unavailable
from admission.gateway import turn
from admission.gateway.tally import one_more
from admission.keys import DIRECTORY, NEWSROOM, STORE, WAITERS
from admission.outcomes import Confirmed, NotConfirmed

OF_USER_MAX = 100
"""Calls of one user that wait in this process; a session tells as many chats apart."""

Tell = Callable[[Ticket | None], Awaitable[None]]
"""Gets the ticket of who waits, at first and when its place or estimate changed; None when it is
time for a sign of life."""


class Place:
    """One call's place, while the block is open; at its end the call has left, however it ended.

    A session outlives its calls; a lease of a request pool is given back.
    """

    def __init__(
        self,
        request: web.Request,
        who: Caller,
        pool: str,
        user: str,
        *,
        client: str = "",
        ticket: str = "",
    ) -> None:
        """``client`` names the call in the queue ('': a name of its own); ``ticket`` is a place in
        a request pool that was taken before, to be adopted."""
        self._request, self._who, self._pool, self._user = request, who, pool, user
        self._store = request.app[STORE]
        self._client = client or uuid.uuid4().hex
        self._adopted = bool(ticket)
        self._stays = self._adopted  # until it is used: a refused call changes nothing
        self._seen: Ticket | None = None
        self.ticket = ticket  # its id

    async def __aenter__(self) -> "Place":
        return self

    async def __aexit__(self, *_: object) -> None:
        # The caller may be gone and this task cancelled: the place is left all the same.
        await asyncio.shield(self._leave())

    async def take(self, tell: Tell, limit_s: float | None = None, *, pace_s: float = 0.0) -> None:
        """Return when the turn has come.

        Args:
            limit_s: seconds it waits at most; 0 takes only a slot that is free now.
            pace_s: places are told at most so often.

        Raises:
            Busy: none is free (``no_session``), too many calls of this user wait
                (``too_many_wait``), the time is over (``wait_over``), or the ticket ended
                (``ticket_ended``).
            Unavailable: nobody new is taken in, the service stops, or Redis is away.
            Forbidden, BadInput, Conflict: as of a join.
        """
        try:
            async with asyncio.timeout(limit_s or None) as limit:
                ticket = await (self._look() if self._adopted else self._join())
                if not await self._has_come(ticket):
                    if limit_s == 0:
                        raise turn.refusal(ticket)
                    with one_more(self._request.app[WAITERS], self._user) as number:
                        if number > OF_USER_MAX:
                            raise turn.refusal(ticket, code="too_many_wait")
                        await self._follow(tell, pace_s)
        except TimeoutError:
            if not limit.expired():
                raise
            raise turn.refusal(self._seen, code="wait_over") from None
        except asyncio.CancelledError:
            self._stays = False
            raise
        self._stays = False

    def refused(self) -> None:
        """Its call did not begin: what was adopted stays as it was."""
        self._stays = self._adopted

    async def _follow(self, tell: Tell, pace_s: float) -> None:
        """Being followed is presence."""
        newsroom = self._request.app[NEWSROOM]
        with newsroom.listener(self._pool, self._user, self.ticket, pace_s=pace_s) as listener:
            async with aclosing(newsroom.told(listener)) as told:
                async for news in told:
                    if news is None:
                        await tell(None)
                    elif await self._has_come(news.ticket):
                        return
                    elif news.ticket.status is Status.WAITING:
                        await tell(news.ticket)
        if newsroom.closing:
            # The place is kept for one grace, and found again by the user's next call.
            self._stays = not self._request.app[DIRECTORY].is_request_pool(self._pool)
            raise closing()
        raise over()

    async def _has_come(self, ticket: Ticket) -> bool:
        """Is it this ticket's turn? An offered slot is taken."""
        self._seen = ticket
        match ticket.status:
            case Status.ACTIVE:
                return True
            case Status.WAITING:
                return False
            case Status.DRAFT:
                match await self._store.confirm(self._pool, self._user, ticket=ticket.ticket_id):
                    case Confirmed():
                        return True
                    case NotConfirmed("waiting", _):
                        return False
        raise over()

    async def _look(self) -> Ticket:
        ticket = await self._store.status(self._pool, self._user, ticket=self.ticket)
        if not isinstance(ticket, Ticket):
            raise over()
        return ticket

    async def _join(self) -> Ticket:
        """Also for a caller who goes away meanwhile the join is whole, and can be left again."""
        wish = wire.JoinBody(auto_confirm=True, client=self._client, request_id=uuid.uuid4().hex)
        joining = asyncio.ensure_future(
            joins.join(self._request, self._who, self._pool, self._user, wish)
        )
        try:
            ticket = await asyncio.shield(joining)
        except asyncio.CancelledError:
            with suppress(AdmissionError):
                self.ticket = (await joining).ticket_id  # this one is left, no other request's
            raise
        self.ticket = ticket.ticket_id
        return ticket

    async def _leave(self) -> None:
        """The last call that waited takes a waiting place along; a session stays."""
        if self._stays:
            return
        client = "" if self._adopted else self._client
        with suppress(StoreUnavailable):
            await self._store.leave(self._pool, self._user, client=client, ticket=self.ticket)


def closing() -> Unavailable:
    """What to tell who still waits when the service stops."""
    return Unavailable("The service restarts: ask again.", code="closing", retry_after_s=1)


def over() -> Busy:
    """What to tell who still waits when the user's turn was given up."""
    return Busy("Your turn ended before it came.", code="ticket_ended")
