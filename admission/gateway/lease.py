"""The lease of one request in a request pool: taken or adopted, renewed while it runs, given back.

Knows the store; nothing of HTTP or workers.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from admission import logs
from admission.domain import Change
from admission.errors import Busy, StoreUnavailable
from admission.outcomes import NoSession, Passed, SessionBusy
from admission.store.redis_store import RedisStore

RENEW_S = 10.0  # a lease is 30 s by default (PoolPolicy.lease_ms)

Outcome = Passed | SessionBusy | NoSession
Refuse = Callable[[SessionBusy | NoSession], Busy]

log = logging.getLogger(__name__)


class TurnLost(Exception):
    """The right to run ended, and its grace for a running answer is over."""


class Leases:
    """All leases in which requests of this process run."""

    def __init__(self, store: RedisStore, refuse: Refuse) -> None:
        """``refuse``: the error for an outcome that does not pass."""
        self._store, self._refuse = store, refuse
        self._renewals: defaultdict[tuple[str, str], set[_Renewal]] = defaultdict(set)

    @asynccontextmanager
    async def hold(self, pool: str, user: str, message: str, ticket: str) -> AsyncIterator[None]:
        """A block in which one request runs in the lease ``ticket`` (``turn.Turns.hold``)."""
        request = some_id()

        async def take() -> Outcome:
            return await self._store.use(
                pool, user, request=request, message=message, concurrency=1, ticket=ticket
            )

        outcome = await self._take_whole(take, pool, request)
        if not isinstance(outcome, Passed):
            raise self._refuse(outcome)
        try:
            async with asyncio.timeout(None) as limit:
                renewal = _Renewal(take, limit)
                with self._registered(pool, user, renewal):
                    yield
        except TimeoutError as error:
            if limit.expired():
                raise TurnLost from error
            raise
        finally:
            # The caller may be gone and this task cancelled: it is given back all the same.
            await asyncio.shield(self._give_back(renewal, pool, outcome.ticket_id, request))

    def hear(self, change: Change) -> None:
        """Renew at once where the ticket moved: it may be over."""
        for (pool, user), renewals in self._renewals.items():
            if change.pool in (None, pool) and (change.users is None or user in change.users):
                for renewal in renewals:
                    renewal.hurry()

    @contextmanager
    def _registered(self, pool: str, user: str, renewal: "_Renewal") -> Iterator[None]:
        self._renewals[pool, user].add(renewal)
        try:
            yield
        finally:
            self._renewals[pool, user].discard(renewal)
            if not self._renewals[pool, user]:
                del self._renewals[pool, user]

    async def _take_whole(
        self, take: Callable[[], Awaitable[Outcome]], pool: str, request: str
    ) -> Outcome:
        """Take to the end, also for a caller who goes away meanwhile: then it is given back."""
        taking = asyncio.ensure_future(take())
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            with suppress(StoreUnavailable):
                outcome = await taking
                if isinstance(outcome, Passed):
                    await self._store.done(pool, ticket=outcome.ticket_id, request=request)
            raise

    async def _give_back(self, renewal: "_Renewal", pool: str, ticket: str, request: str) -> None:
        await renewal.end()  # one under way must not come after
        with suppress(StoreUnavailable):
            await self._store.done(pool, ticket=ticket, request=request)


class _Renewal:
    """Renews one lease until it ends; ends the request when that is refused."""

    def __init__(self, take: Callable[[], Awaitable[Outcome]], limit: asyncio.Timeout) -> None:
        self._take, self._limit = take, limit
        self._over, self._woken = False, asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def hurry(self) -> None:
        self._woken.set()

    async def end(self) -> None:
        self._over = True
        self._woken.set()
        await self._task

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S):
                    await self._woken.wait()
            self._woken.clear()
            if self._over:
                return
            try:
                outcome = await self._take()
            except StoreUnavailable:
                logs.event(log, "turn_not_renewed", logging.WARNING)
                continue
            if not isinstance(outcome, Passed):
                if not self._over:
                    self._limit.reschedule(asyncio.get_running_loop().time())
                return


def some_id() -> str:
    """A name that no other request has."""
    return f"{random.getrandbits(128):032x}"
