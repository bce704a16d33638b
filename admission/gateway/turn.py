"""A request's right to run: taken from the user's session, renewed while it runs, given back.

Knows the store; nothing of HTTP or workers.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from admission import logs
from admission.domain import Ticket
from admission.errors import Busy, StoreUnavailable
from admission.outcomes import NoSession, Passed, SessionBusy
from admission.store.redis_store import RedisStore

RENEW_S = 10.0  # the lease of a running request is 30 s (DESIGN section 4)
RETRY_S = 15  # told to who has no session and no estimate

log = logging.getLogger(__name__)


Outcome = Passed | SessionBusy | NoSession


class NoTurn(Busy):
    """No slot: nobody waits for one in this call's name."""


class TurnLost(Exception):
    """The session ended and its grace for a running answer is over."""


@asynccontextmanager
async def hold(
    store: RedisStore,
    pool: str,
    user: str,
    *,
    message: str,
    concurrency: int,
    ticket: str = "",
) -> AsyncIterator[None]:
    """Hold a place in ``user``'s session for one request; in a request pool the lease ``ticket``.

    Raises:
        NoTurn: no session, or the lease has ended.
        Busy: ``concurrency`` requests of the session already run, or one of the lease.
        TurnLost: inside the block, when the right ended while the request ran.
        StoreUnavailable: Redis is away at the begin; later it is waited for.
    """
    request = uuid.uuid4().hex

    async def take() -> Outcome:
        return await store.use(
            pool, user, request=request, message=message, concurrency=concurrency, ticket=ticket
        )

    outcome = await _take_whole(take, store, pool, request)
    if not isinstance(outcome, Passed):
        raise _refused(outcome)
    over = asyncio.Event()
    try:
        async with asyncio.timeout(None) as limit:
            renewing = asyncio.create_task(_renew(take, limit, over))
            yield
    except TimeoutError as error:
        if limit.expired():
            raise TurnLost from error
        raise
    finally:
        over.set()
        # The caller may be gone and this task cancelled: the place is given back all the same.
        await asyncio.shield(_give_back(renewing, store, pool, outcome.ticket_id, request))


async def _take_whole(
    take: Callable[[], Awaitable[Outcome]], store: RedisStore, pool: str, request: str
) -> Outcome:
    """Take to the end, also for a caller who goes away meanwhile: then it is given back."""
    taking = asyncio.ensure_future(take())
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        with suppress(StoreUnavailable):
            outcome = await taking
            if isinstance(outcome, Passed):
                await store.done(pool, ticket=outcome.ticket_id, request=request)
        raise


async def _give_back(
    renewing: asyncio.Task[None], store: RedisStore, pool: str, ticket: str, request: str
) -> None:
    await renewing  # a renewal under way must not come after
    with suppress(StoreUnavailable):
        await store.done(pool, ticket=ticket, request=request)


async def _renew(
    take: Callable[[], Awaitable[Outcome]], limit: asyncio.Timeout, over: asyncio.Event
) -> None:
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(RENEW_S):
                await over.wait()
                return
        try:
            if not isinstance(await take(), Passed):
                if not over.is_set():
                    limit.reschedule(asyncio.get_running_loop().time())
                return
        except StoreUnavailable:
            logs.event(log, "turn_not_renewed", logging.WARNING)


def _refused(outcome: SessionBusy | NoSession) -> Busy:
    if isinstance(outcome, NoSession):
        return refusal(outcome.ticket)
    return Busy(
        "As many requests as a turn may run at once already do; wait for one to end.",
        code="session_busy",
        retry_after_s=1,
    )


_SAID = {
    "no_session": "You have no session now.",
    "wait_over": "Your turn has not come in time.",
    "too_many_wait": "Too many of your calls wait already.",
}


def refusal(ticket: Ticket | None, *, code: str = "no_session") -> NoTurn:
    """What to tell who has no turn; ``ticket`` has the place, if there is one."""
    if ticket is None:
        return NoTurn(
            "You have no turn yet: join the queue first.", code=code, retry_after_s=RETRY_S
        )
    wait_s = None if ticket.wait_ms is None else max(1, round(ticket.wait_ms / 1000))
    place = f" You are number {ticket.position}." if ticket.position else ""
    return NoTurn(
        _SAID[code] + place,
        code=code,
        retry_after_s=wait_s or RETRY_S,
        extra={"position": ticket.position, "estimated_wait": wait_s},
    )
