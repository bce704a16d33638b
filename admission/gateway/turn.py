"""A request's right to run: taken from the user's session, renewed while it runs, given back.

Knows the store; nothing of HTTP or workers.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from admission import logs
from admission.errors import Busy, StoreUnavailable
from admission.outcomes import NoSession, Passed, SessionBusy
from admission.store.redis_store import RedisStore

RENEW_S = 10.0  # the lease of a running request is 30 s (DESIGN section 4)
RETRY_S = 15  # told to who has no session and no estimate

log = logging.getLogger(__name__)


Outcome = Passed | SessionBusy | NoSession


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
    request: str = "",
) -> AsyncIterator[None]:
    """Hold a place in ``user``'s session for one request.

    Args:
        request: the id under which it waited for its slot, in a request pool.

    Raises:
        Busy: no session, or ``concurrency`` requests of it already run.
        TurnLost: inside the block, when the right ended while the request ran.
        StoreUnavailable: Redis is away at the begin; later it is waited for.
    """
    request = request or uuid.uuid4().hex

    async def take() -> Outcome:
        return await store.use(
            pool, user, request=request, message=message, concurrency=concurrency
        )

    outcome = await _take_whole(take, store, pool, request)
    if not isinstance(outcome, Passed):
        raise _refusal(outcome, concurrency)
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


def _refusal(outcome: SessionBusy | NoSession, concurrency: int) -> Busy:
    match outcome:
        case SessionBusy():
            return Busy(
                f"{concurrency} requests of this session already run; wait for one to end.",
                code="session_busy",
                retry_after_s=1,
            )
        case NoSession(None):
            return Busy("You have no turn yet: join the queue first.", retry_after_s=RETRY_S)
        case NoSession(ticket):
            assert ticket is not None
            wait_s = None if ticket.wait_ms is None else max(1, round(ticket.wait_ms / 1000))
            place = f" You are number {ticket.position}." if ticket.position else ""
            return Busy(
                f"You have no session now.{place}",
                retry_after_s=wait_s or RETRY_S,
                extra={"position": ticket.position, "estimated_wait": wait_s},
            )
