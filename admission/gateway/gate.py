"""The gate: a call passes in its user's turn, on to a worker; or it waits, or hears why not."""

import asyncio
import logging
from contextlib import AsyncExitStack

from aiohttp import web

from admission import logs
from admission.accounting.allowances import Grant
from admission.accounting.meter import COUNTS
from admission.errors import AdmissionError, Busy, NoWorker, StoreUnavailable
from admission.gateway import pick, tasks, turn
from admission.gateway.call import Call, read_call
from admission.gateway.notice import Notice
from admission.gateway.place import OF_USER_MAX, Place, closing, over
from admission.gateway.relay import Exchange, abort
from admission.gateway.tally import one_more
from admission.gateway.upstream import SATURATED_RETRY_S, Full
from admission.keys import (
    ALLOWANCES,
    ANSWER_BEGUN,
    AWAY,
    DIRECTORY,
    NEWSROOM,
    TASKS,
    TURNS,
    WAITERS,
)

log = logging.getLogger(__name__)


async def pass_gate(request: web.Request) -> web.StreamResponse:
    """One call, from its body to the end of its answer."""
    began_s = asyncio.get_running_loop().time()
    call = await read_call(request)
    app = request.app
    if not app[DIRECTORY].fleet(call.model).workers:
        raise NoWorker
    with await app[ALLOWANCES].take(call.who, call.user) as grant:
        return await _Passage(request, call, grant, began_s).run()


class _Passage:
    """One call that is allowed and can be answered, on its way through its turn."""

    def __init__(self, request: web.Request, call: Call, grant: Grant, began_s: float) -> None:
        self._request, self._call, self._grant, self._began_s = request, call, grant, began_s
        self._app = request.app
        self._notice: Notice | None = None  # only who waits gets one

    async def run(self) -> web.StreamResponse:
        try:
            if self._request.path in COUNTS:
                return await self._count()
            return await (self._beside() if self._call.task else self._in_turn())
        except pick.Saturated as full:
            if not self._has_told():
                return _said_full(full)
            error: AdmissionError = Full()
        except AdmissionError as caught:
            if ANSWER_BEGUN in self._request:  # half of it has gone out
                abort(self._request)
                return web.Response()
            if not self._has_told():
                raise
            error = caught
        assert self._notice is not None
        return await self._notice.refuse(error)

    def _telling(self) -> Notice:
        call = self._call
        if self._notice is None:
            self._notice = Notice(self._request, streams=call.streams, on_page=call.on_page)
        return self._notice

    def _has_told(self) -> bool:
        """Has an answer begun with words of ours?"""
        return self._notice is not None and self._notice.stream.begun

    async def _beside(self) -> web.StreamResponse:
        async with tasks.beside(self._request, self._call):
            return await self._answer()
        raise AssertionError  # the block returns or raises

    async def _count(self) -> web.StreamResponse:
        """Needs no turn, for no token is computed. Open WebUI asks it before its filters, of each
        call of its Anthropic API, also of those that must wait then (0.12.4, routers/openai.py)."""
        with one_more(self._app[TASKS], self._call.user) as number:
            if number > tasks.OF_USER_MAX:
                raise Busy("Too many of your calls count tokens already.", code="too_many_counts")
            return await self._answer()

    async def _in_turn(self) -> web.StreamResponse:
        call, turns = self._call, self._app[TURNS]
        try:
            place = turns.at_once(call.pool, call.user, message=call.message)
            if place:  # which most calls find
                with place:
                    return await self._answer()
            async with AsyncExitStack() as stack:
                away = self._app[AWAY]
                try:
                    away.look()
                    await self._take_turn(stack)
                except StoreUnavailable:
                    stack.enter_context(away.passing())
                if self._notice:
                    await self._notice.come()
                return await self._answer()
        except turn.TurnLost:
            raise turn_over(self._request, self._call.pool, self._call.user) from None
        raise AssertionError  # the block returns or raises

    async def _take_turn(self, stack: AsyncExitStack) -> None:
        """Until ``stack`` closes the call runs in its user's session, or in a lease of its own."""
        call = self._call
        if self._app[DIRECTORY].is_request_pool(call.pool):
            place = await self._wait_in_queue(stack, call.wait_s, adopted=call.ticket)
            try:
                return await self._begin(stack, place.ticket)
            except Busy:
                place.refused()
                raise
        while True:
            # Tried first: an answer may finish in a session that is over, and needs no place then.
            try:
                return await self._begin_in_session(stack)
            except turn.NoTurn:
                if self._left_s() <= 0:
                    raise
            await self._wait_in_queue(stack, self._left_s())

    async def _wait_in_queue(
        self, stack: AsyncExitStack, limit_s: float, *, adopted: str = ""
    ) -> Place:
        call, notice = self._call, self._telling()
        place = Place(
            self._request, call.who, call.pool, call.user, client=call.message, ticket=adopted
        )
        await stack.enter_async_context(place)
        await place.take(notice.tell, limit_s, pace_s=notice.pace_s)
        return place

    async def _begin_in_session(self, stack: AsyncExitStack) -> None:
        """At once, or where the session runs all it may, when one of its requests has ended."""
        try:
            return await self._begin(stack)
        except turn.Crowded:
            if self._left_s() <= 0:
                raise
        with one_more(self._app[WAITERS], self._call.user) as number:
            if number > OF_USER_MAX:
                raise turn.Crowded
            return await self._begin_after_another(stack)

    async def _begin_after_another(self, stack: AsyncExitStack) -> None:
        call = self._call
        with self._app[TURNS].line(call.pool, call.user) as news:
            while self._left_s() > 0:
                if self._app[NEWSROOM].closing:
                    raise closing()
                await self._telling().behind()
                if not await news():
                    continue
                try:
                    return await self._begin(stack)
                except (turn.Crowded, StoreUnavailable):
                    continue
                except turn.NoTurn as none:
                    if none.given_up:
                        raise over() from None
                    raise
        raise turn.Crowded(waited=True)

    def _left_s(self) -> float:
        """Of the time that the call would wait."""
        return self._began_s + self._call.wait_s - asyncio.get_running_loop().time()

    async def _begin(self, stack: AsyncExitStack, lease: str = "") -> None:
        call, turns = self._call, self._app[TURNS]
        await stack.enter_async_context(
            turns.hold(call.pool, call.user, message=call.message, ticket=lease)
        )

    async def _answer(self) -> web.StreamResponse:
        call, told = self._call, self._notice.stream if self._notice else None
        exchange = Exchange(self._request, call, self._grant, self._began_s, told)
        with exchange:
            for attempt in pick.attempts(self._app[DIRECTORY], call.model, call.conversation):
                with attempt as worker:
                    return await exchange.relay(worker)
            raise exchange.failure or NoWorker
        raise AssertionError  # the block returns or raises


def turn_over(request: web.Request, pool: str, user: str) -> Busy:
    """What to tell whose right to run ended before the model answered."""
    logs.event(log, "answer_outlived_turn", user_id=user, pool=pool)
    if request.app[DIRECTORY].is_request_pool(pool):
        return Busy("Your turn ended before the answer did.", code="turn_over")
    return Busy("Your session ended before the answer did.", code="session_over")


def _said_full(full: pick.Saturated) -> web.Response:
    """The model server's own words, and when to ask again."""
    headers = {k: v for k, v in full.headers.items() if k.lower() != "content-length"}
    response = web.Response(status=full.status, body=full.body, headers=headers)
    response.headers.setdefault("Retry-After", str(SATURATED_RETRY_S))
    return response
