"""One turn of a frontend's user: joined, waited for, confirmed, kept alive, and left at its end.

Knows what a ticket may do meanwhile; how it is asked for is ``client_calls``', how its changes come
``client_events``'.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from inspect import isawaitable

from admission import logs
from admission.client_calls import PASSING, Calls, Ticket, Wish, ended
from admission.client_events import follow
from admission.domain import Status
from admission.errors import AdmissionError, Conflict, NotFound

BEAT_S = (8.0, 10.0)  # an answer that is not renewed for 30 s counts as ended, and so does a lease
BEAT_AGAIN_S = (1.0, 3.0)  # after a heartbeat that nobody answered
FINISHING_S = 120.0  # so long after a session's end its last answer may run (DESIGN section 4)
TOKEN_LIFE_S = 3600.0
TOKEN_OLD_S = TOKEN_LIFE_S / 2  # then a call that presents it brings a new one (DESIGN section 5)
LEAVE_S = 3.0  # an ending waits no longer than that; deadlines end what was not left

Tell = Callable[[Ticket], Awaitable[None] | None]

log = logging.getLogger(__name__)


class TurnOver(Exception):
    """The turn ended before its block did; ``ticket`` says how (its ``reason``)."""

    def __init__(self, ticket: Ticket) -> None:
        super().__init__(ticket.reason or str(ticket.status))
        self.ticket = ticket


class Turn:
    """What the block of ``Client.turn`` gets."""

    def __init__(
        self,
        calls: Calls,
        blocks: Counter[str],
        user: str,
        pool: str,
        wish: Wish,
        tell: Tell | None,
    ) -> None:
        """``blocks``: how many of this client are open, by ticket; ``wish`` names a client."""
        self.user_id, self.client = user, wish["client"]
        self._calls, self._blocks, self._pool = calls, blocks, pool
        self._wish, self._tell = wish, tell
        self._joined = False  # perhaps: then it is left
        self._ticket: Ticket | None = None
        self._told: Ticket | None = None
        self._token, self._token_at_s = "", 0.0
        self._ends_s = float("inf")  # on the loop's clock, with what an answer may finish in
        self._failure: Exception | None = None
        self._over, self._moved = asyncio.Event(), asyncio.Event()

    # --- for the block -------------------------------------------------------------------------

    @property
    def ticket(self) -> Ticket:
        """As it was seen last; ``disconnected`` once the turn is over."""
        assert self._ticket is not None, "only in the block"
        return self._ticket

    @property
    def token(self) -> str:
        """A user token: with it a browser may ask for this user, for half an hour at least."""
        return self._token

    @property
    def deadline(self) -> datetime | None:
        """When the session ends, whatever happens, in UTC; on the service's clock."""
        return self.ticket.expires_at

    @property
    def is_over(self) -> bool:
        """Whether the session, or the lease, has ended. An answer may run on for a while."""
        return self._over.is_set()

    async def ended(self) -> Ticket:
        """Wait until it is over; how it ended."""
        await self._over.wait()
        return self.ticket

    def headers(self) -> dict[str, str]:
        """For calls of the gateway in this turn: who calls, which answer it is, and the lease that
        is adopted in a request pool (which is for one call, and given back after it)."""
        return {
            "Authorization": f"Bearer {self._token}",
            "X-Vestibule-Message": self.client,
            "X-Vestibule-Ticket": self.ticket.ticket_id,
        }

    # --- its life, for the client --------------------------------------------------------------

    async def take(self) -> None:
        """Return when the turn has come.

        Raises:
            TurnOver: its ticket ended before.
            AdmissionError: as of a join; Away after so long without an answer.
        """
        if await self._has_come(await self._join()):
            return
        async with aclosing(self._changes(self._look)) as changes:
            async for ticket in changes:
                if await self._has_come(ticket):
                    return

    @asynccontextmanager
    async def kept(self, *, cut: bool) -> AsyncIterator[None]:
        """A block in which the turn is kept alive, and its end is told.

        Raises:
            TurnOver: with ``cut``, in the block, when the slot is not the user's any more.
        """
        try:
            async with asyncio.timeout(None) as limit:
                keeping = asyncio.create_task(self._keep(limit, cut=cut))
                try:
                    yield
                finally:
                    keeping.cancel()
                    await asyncio.wait({keeping})
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._failure or TurnOver(self.ticket) from None

    async def leave(self, *, keeps_session: bool) -> None:
        """Make room. Also for who is cancelled meanwhile it is whole, within LEAVE_S."""
        if not self._joined:
            return
        leaving = asyncio.create_task(self._leave(keeps_session=keeps_session))
        try:
            await asyncio.shield(leaving)
        except asyncio.CancelledError:
            await asyncio.wait({leaving}, timeout=LEAVE_S)
            raise

    # --- waiting -------------------------------------------------------------------------------

    async def _has_come(self, ticket: Ticket) -> bool:
        """Act on the ticket; is it its turn?"""
        if ticket.status is not Status.DISCONNECTED and ticket.ticket_id != self._id:
            ticket = await self._join()  # the user left elsewhere and came anew: wait with them
        await self._see(ticket)
        if ticket.status is Status.DRAFT:
            with suppress(Conflict, NotFound):  # it changed meanwhile: the next news says to what
                ticket = await self._calls.ask(
                    "confirm", self.user_id, self._pool, ticket_id=ticket.ticket_id
                )
                await self._see(ticket)
        if ticket.status is Status.DISCONNECTED:
            raise TurnOver(ticket)
        return ticket.status is Status.ACTIVE

    async def _look(self) -> Ticket:
        """The ticket now. This poll is presence, and renews the token."""
        try:
            return await _whole(
                self._calls.look(self.user_id, self._pool, self._key(), **self._named())
            )
        except NotFound as error:
            if error.code != "ticket_unknown":
                raise
        return await self._join()  # its data are lost: there is no other place to go back to

    async def _join(self) -> Ticket:
        """The user's place. A join that has begun is whole, so that the leave which may follow does
        not overtake it."""
        self._joined = True
        joining = asyncio.ensure_future(
            self._calls.ask("join", self.user_id, self._pool, **self._wish)
        )
        try:
            ticket = await asyncio.shield(joining)
        except asyncio.CancelledError:
            await asyncio.wait({joining}, timeout=LEAVE_S)
            if not joining.cancel() and not joining.exception():
                self._hold(joining.result())
            raise
        except AdmissionError as error:
            self._joined = self._ticket is not None or error.status in PASSING
            raise
        self._hold(ticket)
        return ticket

    def _hold(self, ticket: Ticket) -> None:
        """From now on this is the turn's ticket."""
        self._release()
        self._ticket, self._pool = ticket, ticket.pool
        self._blocks[ticket.ticket_id] += 1

    def _release(self) -> None:
        if self._id in self._blocks:
            self._blocks[self._id] -= 1
            self._blocks += Counter()  # forgets who has none

    # --- in the block --------------------------------------------------------------------------

    async def _keep(self, limit: asyncio.Timeout, *, cut: bool) -> None:
        """Renew the turn until nothing of it is left."""
        watching = asyncio.create_task(self._watch())
        try:
            while (pause_s := await self._beat()) is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._moved.wait()
                self._moved.clear()
            if cut:
                limit.reschedule(_now_s())
        except Exception as error:  # noqa: BLE001 - of on_update: the block's caller gets it
            self._failure = error
            limit.reschedule(_now_s())
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _watch(self) -> None:
        """Hurry the next heartbeat when a stream tells that the turn moved."""

        async def last_seen() -> Ticket:
            return self.ticket  # the heartbeats are the polls

        async with aclosing(self._changes(last_seen)) as changes:
            async for ticket in changes:
                if ticket.status is not Status.ACTIVE or ticket.ticket_id != self._id:
                    self._moved.set()
                    return

    async def _beat(self) -> float | None:
        """One heartbeat, which is use; how long until the next, None when there is no sense in one.

        After the session's end it renews the answer, which may finish.
        """
        try:
            ticket = await _whole(
                self._calls.ask_once(
                    "heartbeat", self.user_id, self._pool, self._key(), **self._named()
                )
            )
            finishing = ticket.finishing
        except AdmissionError as error:
            if error.code not in ("ticket_ended", "ticket_unknown"):
                logs.event(log, "turn_not_renewed", logging.WARNING, code=error.code)
                if _now_s() < self._ends_s:
                    return random.uniform(*BEAT_AGAIN_S)
            over, finishing = ended(error), bool(error.extra.get("finishing"))
        else:
            if ticket.ticket_id == self._id and ticket.status is Status.ACTIVE:
                await self._see(ticket)
                return random.uniform(*BEAT_S)
            over = None  # the user has another by now
        self._over.set()
        await self._see(over or replace(self.ticket, status=Status.DISCONNECTED, expires_at=None))
        return random.uniform(*BEAT_S) if finishing else None

    # --- both ----------------------------------------------------------------------------------

    @property
    def _id(self) -> str:
        return self._ticket.ticket_id if self._ticket else ""

    def _named(self) -> dict[str, str]:
        return {"client": self.client, "ticket_id": self._id}

    def _key(self) -> str:
        """The user token when it is to be renewed, else the client's own key."""
        age_s = _now_s() - self._token_at_s
        return self._token if TOKEN_OLD_S < age_s < TOKEN_LIFE_S else ""

    def _changes(self, look: Callable[[], Awaitable[Ticket]]) -> AsyncGenerator[Ticket, None]:
        return follow(lambda: self._calls.open(self.user_id, self._pool, self._id), look)

    async def _see(self, ticket: Ticket) -> None:
        """Remember the ticket, and tell what is new of it."""
        news, self._ticket = ticket != self._told, ticket
        if ticket.token:
            self._token, self._token_at_s = ticket.token, _now_s()
        if ticket.status is Status.ACTIVE and ticket.expires_in is not None:
            self._ends_s = _now_s() + ticket.expires_in + FINISHING_S
        if news and self._tell:
            self._told = ticket
            telling = self._tell(ticket)
            if isawaitable(telling):
                await telling

    async def _leave(self, *, keeps_session: bool) -> None:
        self._release()
        try:
            async with asyncio.timeout(LEAVE_S):
                left = await self._calls.leave(self.user_id, self._pool, **self._named())
                last = self._id and self._id not in self._blocks
                if left.status is Status.ACTIVE and last and not keeps_session:
                    await self._calls.leave(self.user_id, self._pool, ticket_id=self._id)
        except NotFound:
            pass
        except (AdmissionError, TimeoutError) as error:
            code = getattr(error, "code", "away")
            logs.event(log, "turn_not_left", logging.WARNING, code=code)


async def _whole(heartbeat: Coroutine[None, None, Ticket]) -> Ticket:
    """Its answer. Also for who is cancelled it is whole, within LEAVE_S: one that came after the
    leave of its chat would name the answer again, and hold the slot for half a minute."""
    asking = asyncio.create_task(heartbeat)
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        await asyncio.wait({asking}, timeout=LEAVE_S)
        if not asking.cancel() and not asking.cancelled():
            asking.exception()  # nobody is left to hear of it
        raise


def _now_s() -> float:
    return asyncio.get_running_loop().time()
