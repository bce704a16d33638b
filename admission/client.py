"""A client for other frontends: a turn as a block, and the calls it is made of.

    async with Client("http://127.0.0.1:8600", key) as vestibule:
        async with vestibule.turn("ada", on_update=print) as turn:
            ...  # ada has a slot here, and nowhere else

Needs aiohttp and msgspec; of ours only words and errors, so it may be used far from the service.
Its key is a service key, which acts for any user, or a user's own key or token. docs/client.md.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, Unpack

from aiohttp import ClientSession

from admission.client_calls import Away, Calls, Left, Ticket, Wish
from admission.client_events import follow
from admission.client_turn import Tell, Turn, TurnOver
from admission.domain import DEFAULT_POOL

__all__ = ["Away", "Client", "Left", "Ticket", "Turn", "TurnOver", "Wish"]

PATIENCE_S = 60.0  # a waiting place is kept for as long without a sign of life


class Client:
    """Talks to one service, for any number of users at once.

    Every call may raise an ``AdmissionError`` with ``status``, ``code``, ``field``,
    ``retry_after_s`` and the rest of the problem in ``extra``: ``Unauthorized``, ``Forbidden``,
    ``BadInput``, ``Unavailable`` (the queue is full, the pool paused), and ``Away`` when nobody
    answered. What passes by itself, a lost connection, 5xx or a 429, is tried again before.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        patience_s: float = PATIENCE_S,
        http: ClientSession | None = None,
    ) -> None:
        """
        Args:
            url: where Vestibule listens, also below a path.
            key: "" where it asks for none (VESTIBULE_AUTH=off). A user token is renewed.
            patience_s: how long a call is tried again.
            http: for proxies or certificates of your own; it must allow as many connections as
                turns are open, and one more. You close it.

        Raises:
            ValueError: not a URL, or not a key.
        """
        self._calls = Calls(url, key, patience_s, http)
        self._blocks: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; no turn may be open."""
        await self._calls.aclose()

    @asynccontextmanager
    async def turn(
        self,
        user: str,
        *,
        pool: str = DEFAULT_POOL,
        on_update: Tell | None = None,
        wait_s: float | None = None,
        keeps_session: bool = False,
        cut: bool = False,
        **wish: Unpack[Wish],
    ) -> AsyncIterator[Turn]:
        """A block that begins when the user's turn has come; it is left however the block ends.

        While it waits the place is kept, and an offered slot is taken at once. While it runs the
        session is in use, so it ends at its deadline only, or when somebody ends it; an answer
        that runs then may run on for up to two minutes. In a request pool the slot is for this
        block alone. Several blocks of a user share the session of a session pool, also with other
        frontends; the last one of this client ends it.

        Args:
            pool: unless ``model`` chooses it.
            on_update: gets the ticket at first and at each change, its end too; may be a coroutine
                function. What it raises ends the block.
            wait_s: how long to wait at most.
            keeps_session: the end of the block ends its use, not the session, which then lasts
                until its deadline, or until it is idle while others wait. So do chats.
            cut: end the block with ``TurnOver`` when the slot is no longer the user's. For work
                that does not go through the gateway, which takes care of it.
            wish: as of ``join``; a draft is skipped unless ``auto_confirm`` is False.

        Raises:
            TurnOver: the ticket ended while it waited: removed, the pool closed, left elsewhere.
            TimeoutError: the turn has not come within ``wait_s``.
            AdmissionError: as of ``join``.
        """
        name = wish.get("client") or uuid.uuid4().hex
        defaults: Wish = {"auto_confirm": True, "request_id": uuid.uuid4().hex}
        turn = Turn(
            self._calls, self._blocks, user, pool, {**defaults, **wish, "client": name}, on_update
        )
        try:
            async with asyncio.timeout(wait_s):
                await turn.take()
            async with turn.kept(cut=cut):
                yield turn
        finally:
            await turn.leave(keeps_session=keeps_session)

    # --- one call each -------------------------------------------------------------------------

    async def join(self, user: str, *, pool: str = DEFAULT_POOL, **wish: Unpack[Wish]) -> Ticket:
        """A place in the queue, or the slot at once; the one the user has, if any. Its ``token``
        acts for this user for an hour.

        Raises:
            NotFound: no such pool, or nobody serves the model. Conflict: a request pool, and no
                ``request_id``. Unavailable: the queue is full, or the pool paused.
        """
        return await self._calls.ask("join", user, pool, **wish)

    async def status(self, user: str, *, pool: str = DEFAULT_POOL, ticket_id: str = "") -> Ticket:
        """The ticket, without any side effect; one that ended for five minutes more.

        Raises:
            NotFound: there is none.
        """
        return await self._calls.ask("status", user, pool, ticket_id=ticket_id)

    async def confirm(self, user: str, *, pool: str = DEFAULT_POOL, ticket_id: str = "") -> Ticket:
        """The session that an offered slot becomes, or has become already.

        Raises:
            Conflict: no slot is offered yet, or the ticket is another. NotFound: it is over.
        """
        return await self._calls.ask("confirm", user, pool, ticket_id=ticket_id)

    async def heartbeat(
        self, user: str, *, pool: str = DEFAULT_POOL, ticket_id: str = "", client: str = ""
    ) -> Ticket:
        """Be present; with ``client``, in use. In a request pool it renews the lease.

        Raises:
            NotFound: the turn is over (``ticket_ended``), or there is none.
        """
        return await self._calls.ask("heartbeat", user, pool, ticket_id=ticket_id, client=client)

    async def leave(
        self, user: str, *, pool: str = DEFAULT_POOL, ticket_id: str = "", client: str = ""
    ) -> Left:
        """End the turn; with ``client``, detach that chat, which ends no session.

        Raises:
            NotFound: there is none.
        """
        return await self._calls.leave(user, pool, ticket_id=ticket_id, client=client)

    def events(
        self, user: str, *, pool: str = DEFAULT_POOL, ticket_id: str = ""
    ) -> AsyncGenerator[Ticket, None]:
        """The ticket at once and at each change, ``disconnected`` last, over cuts and restarts;
        without a stream by polls. Whoever iterates is present. Close it (``contextlib.aclosing``)
        when you stop before its end.

        Raises:
            NotFound: there is no ticket.
        """
        return follow(
            lambda: self._calls.open(user, pool, ticket_id),
            lambda: self._calls.look(user, pool, ticket_id=ticket_id),
        )
