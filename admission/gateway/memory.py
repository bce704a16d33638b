"""What this process knows of the sessions whose requests it runs.

A request of a session costs no call to Redis of its own. While the session was seen in Redis less
than TRUST_S ago, and its end is not near, a request begins at once; what runs and what ended is
told to Redis for each session together, in the background. So finishing leases, use and the limit
of requests at once stay right there. Whoever asks after a longer pause, or at the limit, asks
Redis.

The limit counts what runs here exactly and what runs elsewhere as it was at most TRUST_S ago. Of
one session, each process may therefore begin as many requests as the limit allows in the same
second; then it sees the others' and begins none until fewer run than the limit.

A leave, a removal or an end reaches every process by the store's news, in milliseconds; where news
is lost memory ends by itself after TRUST_S. A request whose session ends before Redis was told of
it (TELL_S) has no right to finish.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from admission import logs
from admission.domain import Change
from admission.errors import StoreUnavailable
from admission.gateway.line import Line
from admission.outcomes import Kept, Over, Passed
from admission.store.redis_store import RedisStore

TRUST_S = 1.0  # DESIGN section 5
TELL_S = 0.1  # a request that runs so long is told to Redis,
GATHER_S = 0.5  # and after so long what ended, or began and ended meanwhile
RENEW_S = 10.0  # the lease of a running request is 30 s (DESIGN section 4)
AGAIN_S = 1.0  # when Redis did not answer
ROUND_S = 0.05

log = logging.getLogger(__name__)


class Running:
    """One request that runs here."""

    __slots__ = ("began_s", "lost", "message", "task", "told")

    def __init__(self, message: str, task: "asyncio.Task[Any]") -> None:
        """``task`` is cancelled when the right to run ends; ``lost`` then says so."""
        self.message, self.task = message, task
        self.began_s = asyncio.get_running_loop().time()
        self.told = False  # to Redis
        self.lost = False

    def lose(self) -> None:
        if not self.lost:
            self.lost = True
            self.task.cancel()


class Session:
    """One user's session in one pool, as far as requests of it run here."""

    def __init__(self, store: RedisStore, pool: str, user: str) -> None:
        self._store, self._pool, self._user = store, pool, user
        self._loop = asyncio.get_running_loop()
        self._running: dict[str, Running] = {}  # in the order in which they began
        self._elsewhere = 0  # requests of other processes, when they were last seen
        self._trusted_until_ms = 0.0  # on the store's clock of spans
        self._over = False
        self._doubts = 0
        self._asking = 0
        # What Redis was not told yet: requests it knows that ended, messages of those it never
        # knew, and since when.
        self._ended: list[str] = []
        self._answered: set[str] = set()
        self._since_s: float | None = None
        self._renew_s = 0.0  # when what runs must be renewed
        self._telling: asyncio.Task[None] | None = None
        self._again = False
        self.line = Line()

    def admits(self, most: int) -> bool:
        """May another request begin, as far as is known here?"""
        return len(self._running) + self._asking + self._elsewhere < most and self.trusted

    @property
    def trusted(self) -> bool:
        """Is there a session, as far as is known here?"""
        return self._store.passed_ms() < self._trusted_until_ms

    @property
    def untold(self) -> bool:
        """Would Redis learn anything new?"""
        return self._since_s is not None or bool(self._running)

    @property
    def idle(self) -> bool:
        """Nothing runs, and nothing that is known is worth anything."""
        return not (self.untold or self._asking or self._telling or self.line or self.trusted)

    def begin(self, request: str, running: Running) -> None:
        self._running[request] = running

    def end(self, request: str) -> None:
        """It is over, however it ended. Idempotent."""
        running = self._running.pop(request, None)
        if running is None:
            return
        if running.told:
            self._ended.append(request)
        else:
            self._answered.add(running.message)
        self.line.advance()
        self._changed()
        if self._over or (running.told and self._elsewhere):  # somebody waits for its slot, or may
            self.tell()  # begin the next one in another process, where it counts until then

    def end_elsewhere(self, request: str) -> None:
        """Redis may know it, though it never ran."""
        self._ended.append(request)
        self._changed()

    def doubt(self) -> None:
        """The ticket moved: nothing that is known holds for certain."""
        self._doubts += 1
        self._trusted_until_ms = 0.0
        if self._running:
            self.tell()

    async def ask(self, request: str, message: str, most: int) -> object:
        """What Redis says to one more request: an outcome of ``RedisStore.use``.

        Raises:
            StoreUnavailable: it does not answer.
        """
        doubts, asked_ms = self._doubts, self._store.passed_ms()
        self._asking += 1
        try:
            outcome = await self._store.use(
                self._pool, self._user, request=request, message=message, concurrency=most
            )
        finally:
            self._asking -= 1
        if isinstance(outcome, Passed):
            known = sum(running.told for running in self._running.values()) + 1
            self._elsewhere = max(0, outcome.running - known)
            self._over = outcome.deadline_ms is None
            if outcome.deadline_ms is not None and doubts == self._doubts:
                self._trust(asked_ms, outcome.deadline_ms - outcome.now_ms)
        return outcome

    def due(self, now_s: float) -> bool:
        """Is it time to tell Redis?"""
        if self._since_s is not None and now_s >= self._since_s + GATHER_S:
            return True
        if not self._running:
            return False
        return now_s >= self._renew_s or any(
            not each.told and now_s >= each.began_s + TELL_S for each in self._running.values()
        )

    def tell(self) -> "asyncio.Task[None]":
        """Tell Redis everything, once more if that is under way; done when it has answered."""
        self._again = True
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())
        return self._telling

    async def _tell(self) -> None:
        try:
            while self._again:
                self._again = False
                await self._tell_once()
        except StoreUnavailable:
            logs.event(log, "turn_not_renewed", logging.WARNING)
        finally:
            self._telling = None

    async def _tell_once(self) -> None:
        ended, self._ended = self._ended, []
        answered, self._answered = self._answered, set()
        self._since_s, self._renew_s = None, self._loop.time() + RENEW_S
        running = dict(self._running)
        for each in running.values():
            each.told = True
        doubts, asked_ms = self._doubts, self._store.passed_ms()
        messages = {request: each.message for request, each in running.items()}
        try:
            outcome = await self._store.keep(
                self._pool, self._user, running=messages, ended=ended, answered=answered
            )
        except StoreUnavailable:
            self._ended += ended
            self._answered |= answered
            self._since_s = self._loop.time() + AGAIN_S if self._ended or self._answered else None
            self._renew_s = self._loop.time() + AGAIN_S
            raise
        match outcome:
            case Kept(deadline_ms, now_ms, everywhere):
                self._over = False
                self._elsewhere = max(0, everywhere - len(running))
                if doubts == self._doubts:
                    self._trust(asked_ms, deadline_ms - now_ms)
            case Over(lost):
                self._over, self._trusted_until_ms = True, 0.0
                for request in lost:
                    if request in self._running:
                        self._running[request].lose()

    def _changed(self) -> None:
        if self._since_s is None:
            self._since_s = self._loop.time()

    def _trust(self, asked_ms: float, left_ms: float) -> None:
        """Nothing begins so shortly before the end that Redis would not hear of it in time."""
        trusted_ms = min(TRUST_S * 1000, left_ms - 2000 * TELL_S)
        self._trusted_until_ms = asked_ms + max(0.0, trusted_ms)


class Memory:
    """All sessions that run requests in this process."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._sessions: dict[tuple[str, str], Session] = {}

    def session(self, pool: str, user: str) -> Session:
        """Valid until the caller waits for anything but the session."""
        session = self._sessions.get((pool, user))
        if session is None:
            session = self._sessions[pool, user] = Session(self._store, pool, user)
        return session

    def hear(self, change: Change) -> None:
        """Doubt whose tickets moved."""
        for session in self._of(change):
            session.doubt()

    def _of(self, change: Change) -> Iterable[Session]:
        pool = change.pool
        if pool is not None and change.users is not None:
            keys = ((pool, user) for user in change.users)
            return [self._sessions[key] for key in keys if key in self._sessions]
        return [each for key, each in self._sessions.items() if pool in (None, key[0])]

    async def keep(self) -> None:
        """Tell Redis in time, and forget what is over. Never ends by itself."""
        while True:
            await asyncio.sleep(ROUND_S)
            now_s = asyncio.get_running_loop().time()
            for key, session in list(self._sessions.items()):
                if session.due(now_s):
                    session.tell()
                elif session.idle:
                    del self._sessions[key]

    async def settled(self) -> None:
        """Returns when Redis was told everything, as before it is closed."""
        telling = [each.tell() for each in self._sessions.values() if each.untold]
        if telling:
            await asyncio.wait(telling)
