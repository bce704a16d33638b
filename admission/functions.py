"""Every operation without streams as a function of AWS Lambda: ``admission.functions.handler``.

For API Gateway's HTTP APIs and REST APIs, and for function URLs (``invocation``). The operations
are the service's own handlers, behind the same checks (``middleware``).

There is no background task: what the service renews by the second is read at each invocation. Keys
are as new as that, the roster of pools and workers at most ``ROSTER_S`` old by the wall clock. What
an environment keeps otherwise stands in ``warm``.

Not imported here, and not needed in a function's package: the gateway, pages, SQL, the scheduler.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import Any, cast

from aiohttp import web

from admission import keys, logs, middleware
from admission.api import (
    elsewhere,
    fleet,
    health,
    instances,
    late,
    pools,
    projects,
    threads,
    tickets,
    ticks,
    workers,
)
from admission.api import keys as api_keys
from admission.auth import Gatekeeper
from admission.clock import Clock, RedisClock
from admission.errors import Unavailable
from admission.invocation import Event, Invocation, given_back
from admission.rates import Rates
from admission.roster import Roster
from admission.settings import Settings, SettingsError, read_settings
from admission.store.connection import UnfitServer
from admission.warm import Warm

ROUTES = (
    tickets.routes,
    pools.routes,
    workers.routes,
    api_keys.routes,
    projects.routes,
    threads.routes,
    ticks.routes,
    instances.routes,
    fleet.routes,
    health.routes,
    late.routes,
    elsewhere.routes,
)
ALONE = ("/healthz",)  # answered without Redis
ROSTER_S = 1.0  # as in the service (directory.REFRESH_S)
LIMIT_S = 20.0  # of one invocation; API Gateway waits for 29 s
SPARE_S = 0.5  # of what is left of an invocation, to say that there is no more

Handler = Callable[[Invocation], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


class Functions:
    """The operations over one Redis, for one invocation at a time."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Connects at the first invocation. ``clock`` is the store's, by default Redis' own.

        Raises:
            SettingsError: no Redis is named, or users are not checked.
        """
        if not settings.auth:
            raise SettingsError("VESTIBULE_AUTH: off is refused in a function: all can reach it")
        random.seed()  # an environment made from a snapshot has the numbers of all the others
        policy = settings.pool_policy(needs_worker=False)
        self._warm = Warm(settings, policy, clock or RedisClock())
        store = self._warm.store
        self._gatekeeper, self._roster = Gatekeeper(settings, store.keys), Roster(store)
        self._wall_s, self._read_s = wall_s, float("-inf")  # when the roster was
        self._is_open = False
        self._app = app = web.Application()  # holds things and finds operations; it never runs
        app[keys.SETTINGS], app[keys.STORE], app[keys.THREADS] = settings, store, store.threads
        app[keys.GATEKEEPER], app[keys.ROSTER] = self._gatekeeper, self._roster
        app[keys.RATES] = Rates(settings, store.rates)
        for routes in ROUTES:
            app.add_routes(routes)

    def __call__(self, event: Event, context: Any = None) -> dict[str, Any]:
        """One invocation: the answer in the shape of the event.

        Raises:
            NotAnHttpEvent: it is no call.
        """
        call = Invocation(event, self._app)
        limit_s = _limit_s(context)
        response = self._warm.run(lambda: self._answer(call, limit_s))
        return given_back(response, event)

    def close(self) -> None:
        """Close the connection to Redis."""
        self._warm.close()

    async def _answer(self, call: Invocation, limit_s: float) -> web.Response:
        """As aiohttp runs a handler, from the innermost middleware out."""
        answer: Handler = self._operate
        if self._app[keys.RATES].on:
            answer = partial(middleware.rates, handler=answer)
        answer = partial(self._newest, handler=answer)
        answer = partial(_in_time, limit_s, handler=answer)
        answer = partial(middleware.errors, handler=answer)
        answer = partial(middleware.cross_origin, handler=answer)
        response = await middleware.request_id(call, answer)
        await middleware.finish_headers(call, response)
        return cast(web.Response, response)  # none of these handlers streams

    async def _operate(self, call: Invocation) -> web.StreamResponse:
        found = await self._app.router.resolve(cast(web.Request, call))
        call.match_info = found
        return await cast(Handler, found.handler)(call)

    async def _newest(self, call: Invocation, handler: Handler) -> web.StreamResponse:
        """Nothing that was known in an earlier invocation is believed unasked."""
        if call.path not in ALONE:
            await self._warm.hear(self._refresh)
        return await handler(call)

    async def _refresh(self) -> None:
        keyring = self._gatekeeper.keyring
        if not self._is_open:
            await self._open()
        await keyring.refresh()
        now_s = self._wall_s()
        if not 0 <= now_s - self._read_s < ROSTER_S:  # a clock that went back tells nothing
            await self._roster.refresh()
            self._read_s = now_s

    async def _open(self) -> None:
        """Once in an environment. Scripts are sent when Redis misses one (``store.calls``)."""
        try:
            await self._warm.check()
        except UnfitServer as error:
            logs.event(log, "unfit_server", logging.ERROR, why=error)
            raise Unavailable(
                "The queue's store is not fit for use.", code="unfit_store"
            ) from error
        await self._gatekeeper.keyring.load()
        await self._warm.store.leave_settings()
        self._is_open = True


async def _in_time(limit_s: float, call: Invocation, handler: Handler) -> web.StreamResponse:
    """
    Raises:
        Unavailable: it took longer.
    """
    try:
        async with asyncio.timeout(limit_s):
            return await handler(call)
    except TimeoutError:
        raise Unavailable(
            "This took too long. Try again: repeating a call is safe.", retry_after_s=1
        ) from None


def _limit_s(context: Any) -> float:
    """Seconds for this invocation, so that the caller hears of it before the function is ended."""
    left_ms = getattr(context, "get_remaining_time_in_millis", None)
    return min(LIMIT_S, left_ms() / 1000 - SPARE_S) if left_ms else LIMIT_S


@cache
def _functions() -> Functions:
    logging.getLogger().setLevel(logging.INFO)  # Lambda has its own handler there
    return Functions(read_settings(os.environ))


def handler(event: Event, context: Any) -> dict[str, Any]:
    """What Lambda calls. The environment's variables are the service's settings.

    Raises:
        SettingsError: lists every bad value; at each invocation, until they are changed.
        NotAnHttpEvent: invoked with something else than a call.
    """
    return _functions()(event, context)
