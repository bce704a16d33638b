"""A request's right to run: taken from the user's session, renewed while it runs, given back.

In a session pool mostly from memory (``memory``), in a request pool by its own lease. Knows the
store; nothing of HTTP or workers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    suppress,
)
from types import TracebackType

from admission.directory import Directory
from admission.domain import Change, Ticket
from admission.errors import Busy, StoreUnavailable
from admission.gateway.lease import Leases, TurnLost, some_id
from admission.gateway.line import News
from admission.gateway.memory import Memory, Running, Session
from admission.outcomes import NoSession, Passed, SessionBusy
from admission.store.redis_store import RedisStore

RETRY_S = 15  # told to who has no session and no estimate
GIVEN_UP = ("left", "removed")


__all__ = ["Crowded", "NoTurn", "TurnLost", "Turns", "refusal"]


class NoTurn(Busy):
    """No slot: nobody waits for one in this call's name.

    Attributes:
        given_up: the last ticket did not run out, it was left or removed.
    """

    given_up = False


class WaitOver(NoTurn):
    """The turn has not come in the time the call would wait. Who tries again is last in line."""

    code, final = "wait_over", True


class Crowded(Busy):
    """As many requests of the session as may run at once already do, or one of the lease."""

    code = "session_busy"

    def __init__(self, *, waited: bool = False) -> None:
        """``waited``: as long as it would; trying again at once is to wait as long again."""
        super().__init__(
            "As many requests as a turn may run at once already do; wait for one to end.",
            retry_after_s=1,
        )
        self.final = waited


class Turns:
    """Who may run a request in this process."""

    def __init__(self, store: RedisStore, directory: Directory, concurrency: int) -> None:
        """``concurrency``: requests of one session at once."""
        self._store, self._directory, self._concurrency = store, directory, concurrency
        self._memory, self._leases = Memory(store), Leases(store, _refused)

    def hold(
        self, pool: str, user: str, *, message: str, ticket: str = ""
    ) -> AbstractAsyncContextManager[None]:
        """A block in which one request runs in ``user``'s session; in a request pool in the lease
        ``ticket``.

        Raises:
            NoTurn: no session, or the lease has ended.
            Crowded: no more of its requests may run now.
            TurnLost: inside the block, when the right ended while the request ran.
            StoreUnavailable: Redis is away at the begin; later it is waited for.
        """
        if self._directory.is_request_pool(pool):
            return self._leases.hold(pool, user, message, ticket)
        return self._in_session(pool, user, message)

    @asynccontextmanager
    async def _in_session(self, pool: str, user: str, message: str) -> AsyncIterator[None]:
        """Redis decides where this process may not; it is told first what it does not know, which
        may be the answer."""
        session, most = self._memory.session(pool, user), self._concurrency
        if session.untold and not session.admits(most):
            await asyncio.shield(session.tell())
        place = InSession(session, message)
        if not session.admits(most):
            await self._ask(pool, user, place)
        place.session = self._memory.session(pool, user)  # it may have been forgotten meanwhile
        with place:
            yield

    async def _ask(self, pool: str, user: str, place: "InSession") -> None:
        session, request = place.session, place.request
        asking = asyncio.ensure_future(session.ask(request, place.message, self._concurrency))
        try:
            outcome = await asyncio.shield(asking)
        except asyncio.CancelledError:  # its caller is gone, the question is not
            with suppress(StoreUnavailable):
                await asking
            self._memory.session(pool, user).end_elsewhere(request)
            raise
        except StoreUnavailable:
            self._memory.session(pool, user).end_elsewhere(request)
            raise
        if not isinstance(outcome, Passed):
            assert isinstance(outcome, SessionBusy | NoSession)
            raise _refused(outcome)
        place.running.told = True

    def at_once(self, pool: str, user: str, *, message: str) -> "InSession | None":
        """The block of ``hold`` where this process knows already that it may begin; to be entered
        before anything is waited for."""
        if self._directory.is_request_pool(pool):
            return None
        session = self._memory.session(pool, user)
        return InSession(session, message) if session.admits(self._concurrency) else None

    def line(self, pool: str, user: str) -> AbstractContextManager[News]:
        """A place among those who wait for one of ``user``'s requests to end."""
        return self._memory.session(pool, user).line.place()

    def hear(self, change: Change) -> None:
        """Whose tickets moved may have lost the right to run."""
        self._memory.hear(change)
        self._leases.hear(change)

    async def keep(self) -> None:
        """Tell Redis what runs and what ended. Never ends by itself."""
        await self._memory.keep()

    async def settled(self) -> None:
        """Returns when Redis was told everything, as before it is closed."""
        await self._memory.settled()


class InSession:
    """One request's place in a session."""

    __slots__ = ("_cancelling", "message", "request", "running", "session")

    def __init__(self, session: Session, message: str) -> None:
        self.session, self.message = session, message
        task = asyncio.current_task()
        assert task is not None
        self._cancelling = task.cancelling()
        self.request, self.running = some_id(), Running(message, task)

    def __enter__(self) -> None:
        self.session.begin(self.request, self.running)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.session.end(self.request)
        running = self.running
        # As asyncio.timeout does it, which costs a request more than all the rest here.
        ours = running.lost and running.task.uncancel() <= self._cancelling
        if ours and isinstance(error, asyncio.CancelledError):
            raise TurnLost from error


def _refused(outcome: SessionBusy | NoSession) -> Busy:
    if isinstance(outcome, SessionBusy):
        return Crowded()
    none = refusal(outcome.ticket)
    none.given_up = outcome.ticket is not None and outcome.ticket.reason in GIVEN_UP
    return none


_SAID = {
    "no_session": "You have no session now.",
    "wait_over": "Your turn has not come in time.",
    "too_many_wait": "Too many of your calls wait already.",
}
_SAID_UNSEEN = {"no_session": "You have no turn yet: join the queue first."}


def refusal(ticket: Ticket | None, *, code: str = "no_session") -> NoTurn:
    """What to tell who has no turn; ``ticket`` has the place, if there is one."""
    kind = WaitOver if code == WaitOver.code else NoTurn
    if ticket is None:
        return kind(_SAID_UNSEEN.get(code, _SAID[code]), code=code, retry_after_s=RETRY_S)
    wait_s = None if ticket.wait_ms is None else max(1, round(ticket.wait_ms / 1000))
    place = f" You are number {ticket.position}." if ticket.position else ""
    return kind(
        _SAID[code] + place,
        code=code,
        retry_after_s=wait_s or RETRY_S,
        extra={"position": ticket.position, "estimated_wait": wait_s},
    )
