"""A background task of a frontend: a title, tags, follow-up questions. It never takes a turn.

It runs beside its user's session, where the workers have room, holds nothing and counts as no use
of the session. Before the session it waits for it, without keeping the user's place: Open WebUI
asks for the title of a new chat before that chat has its turn, and only then. In a request pool,
where nobody has a session, it runs while a slot is free and nobody waits.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto

from aiohttp import web

from admission import logs
from admission.domain import Status, Ticket
from admission.errors import Busy, StoreUnavailable, Unavailable
from admission.gateway import pick
from admission.gateway.call import Call
from admission.gateway.tally import one_more
from admission.keys import DIRECTORY, NEWSROOM, STORE, TASKS

BEFORE_ITS_CHAT = "title_generation"
"""Open WebUI 0.12.4 (main.py) begins it before the new chat's own task; others follow an answer."""
FIRST_S = 1.0  # that chat comes a fraction of a second later, and goes first; also between looks
GRACE_S = 10.0  # in which an owner without a ticket may still join
OWNER_S = 3600.0  # how long a task waits for its owner's turn
ROOM_S = 60.0  # how long a task waits for room: about two long answers
RUN_S = 120.0  # how long a task may run
LOOK_S = 4.0  # between two looks; also the time in which an ended session cuts a task
OF_USER_MAX = 8  # tasks of one user that wait or run in this process

log = logging.getLogger(__name__)


class TaskDropped(Busy):
    """Not now, and not later: a task is worth less than anybody's turn."""

    code = "task_dropped"

    def __init__(self, why: str) -> None:
        super().__init__(f"This background task was dropped: {why}.")


class _Seen(Enum):
    """What a look finds."""

    CLEAR = auto()
    FULL = auto()
    OWNER_WAITS = auto()
    NOBODY = auto()  # the owner has no ticket, or it ended


@asynccontextmanager
async def beside(request: web.Request, call: Call) -> AsyncIterator[None]:
    """Wait until the task may run, and run it in the block.

    Raises:
        TaskDropped: before the block or in it.
        Unavailable: the service stops.
    """
    shadow = _Shadow(request, call)
    with one_more(request.app[TASKS], call.user) as number:
        if number > OF_USER_MAX:
            raise shadow.dropped("too many of this user wait or run")
        await shadow.wait()
        async with shadow.bounds():
            yield


class _Shadow:
    """One task, beside its user's session."""

    def __init__(self, request: web.Request, call: Call) -> None:
        self._app, self._call = request.app, call
        self._requests = request.app[DIRECTORY].is_request_pool(call.pool)

    def dropped(self, why: str) -> TaskDropped:
        """Logs it: nobody else will hear of it, as frontends hide that a task failed."""
        call = self._call
        logs.event(log, "task_dropped", user_id=call.user, pool=call.pool, task=call.task, why=why)
        return TaskDropped(why)

    async def wait(self) -> None:
        """Return when the task may run: at this moment, without having given way since."""
        last_s = _now_s() + OWNER_S
        limits = {_Seen.NOBODY: GRACE_S, _Seen.OWNER_WAITS: OWNER_S, _Seen.FULL: ROOM_S}
        whys = {
            _Seen.NOBODY: "its user has no turn",
            _Seen.OWNER_WAITS: "its user waits too long",
            _Seen.FULL: "all slots are taken",
        }
        before, since_s = _Seen.NOBODY, _now_s()
        if self._call.task == BEFORE_ITS_CHAT:
            await _pause(FIRST_S)
        while (seen := await self._look(before)) is not _Seen.CLEAR:
            if seen is not before:
                if seen is _Seen.NOBODY:
                    raise self.dropped("its user's turn ended")
                before, since_s = seen, _now_s()
            if _now_s() >= min(since_s + limits[seen], last_s):
                raise self.dropped(whys[seen])
            if self._app[NEWSROOM].closing:
                raise Unavailable("The service restarts.", code="closing", retry_after_s=1)
            await _pause(LOOK_S if seen is _Seen.OWNER_WAITS else FIRST_S)

    @asynccontextmanager
    async def bounds(self) -> AsyncIterator[None]:
        """Ends the block when the task may not go on."""
        try:
            async with asyncio.timeout(RUN_S) as limit:
                watching = asyncio.create_task(self._watch(limit))
                try:
                    yield
                finally:
                    watching.cancel()
                    await asyncio.wait({watching})
        except TimeoutError:
            if not limit.expired():
                raise
            raise self.dropped("it ran too long, or its session ended") from None

    async def _watch(self, limit: asyncio.Timeout) -> None:
        while await self._goes_on():
            await _pause(LOOK_S)
        limit.reschedule(_now_s())

    async def _goes_on(self) -> bool:
        try:
            if self._requests:
                return await self._is_slot_free()
            return await self._status() is Status.ACTIVE
        except StoreUnavailable:
            return True  # bounded by RUN_S

    async def _look(self, before: _Seen) -> _Seen:
        try:
            seen = await (self._look_at_slots() if self._requests else self._look_at_owner())
        except StoreUnavailable:
            return before
        room = pick.has_room(self._app[DIRECTORY], self._call.model)
        return _Seen.FULL if seen is _Seen.CLEAR and not room else seen

    async def _look_at_slots(self) -> _Seen:
        return _Seen.CLEAR if await self._is_slot_free() else _Seen.FULL

    async def _is_slot_free(self) -> bool:
        pool = await self._app[STORE].metrics(self._call.pool)
        return pool.waiting == 0 and pool.free > 0

    async def _look_at_owner(self) -> _Seen:
        match await self._status():
            case Status.ACTIVE:
                return _Seen.CLEAR
            case Status.WAITING | Status.DRAFT:
                return _Seen.OWNER_WAITS
        return _Seen.NOBODY

    async def _status(self) -> Status | None:
        ticket = await self._app[STORE].status(self._call.pool, self._call.user)
        return ticket.status if isinstance(ticket, Ticket) else None


async def _pause(about_s: float) -> None:
    """With jitter: tasks of many who wait do not all look in one moment."""
    await asyncio.sleep(about_s * random.uniform(0.8, 1.2))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
