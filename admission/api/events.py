"""A ticket's changes as Server-Sent Events: the snapshot first, then each change, the end last.

The stream is presence: while it is open the place is kept (DESIGN section 4, invariant 9).
"""

import asyncio
import json
from contextlib import suppress

from aiohttp import web

from admission import wire
from admission.api import access
from admission.domain import Status, Ticket
from admission.errors import NotFound, StoreUnavailable
from admission.keys import GATEKEEPER, NEWSROOM, STORE
from admission.outcomes import Alive, Ended

PING_S = 15.0  # DESIGN section 5; below the 60 s idle limit of nginx (proxy_read_timeout)

routes = web.RouteTableDef()


@routes.get("/queue/events/{user_id}")
async def events(request: web.Request) -> web.StreamResponse:
    user = wire.read_user(request)
    gatekeeper = request.app[GATEKEEPER]
    who = gatekeeper.caller(request.headers, request.query.get("token"))
    gatekeeper.may_act_for(who, user)
    pool = access.pool_for(request)
    with request.app[NEWSROOM].attach(user) as news:
        first = await _present(request, pool, user)
        if first is None:
            raise NotFound(f"{user} has no ticket.", code="ticket_unknown")
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",  # nginx would hold the events back
            }
        )
        await response.prepare(request)
        stream = _Stream(response)
        await stream.send(first)
        while not stream.over and not request.app[NEWSROOM].closing:
            await stream.send(await _next(request, pool, user, news, stream))
    return response


class _Stream:
    """Writes each change once, with an increasing id."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response
        self._last: tuple[object, ...] = ()
        self._id = 0
        self._ping_at = _now_s() + PING_S
        self.over = False

    async def send(self, ticket: Ticket | None) -> None:
        if ticket is None:
            self.over = True
            return
        self.over = ticket.status is Status.DISCONNECTED
        facts = _news_in(ticket)
        if facts == self._last:
            return
        self._last, self._id = facts, self._id + 1
        data = json.dumps(wire.ticket_view(ticket))
        await self._response.write(f"id: {self._id}\nevent: ticket\ndata: {data}\n\n".encode())

    async def ping_is_due(self, news: asyncio.Event) -> bool:
        """Wait for news, False, or for the next ping, True: however much news there is, the pings,
        which renew presence, come in time."""
        if self._ping_at <= _now_s():
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._ping_at):
                await news.wait()
                return False
        return True

    async def ping(self) -> None:
        self._ping_at = _now_s() + PING_S
        await self._response.write(b": ping\n\n")


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _news_in(ticket: Ticket) -> tuple[object, ...]:
    """What makes a snapshot worth sending; an estimate counts down in steps of one ping."""
    wait = None if ticket.wait_ms is None else int(ticket.wait_ms / 1000 / PING_S)
    return (
        ticket.ticket_id,
        ticket.status,
        ticket.position,
        wait,
        ticket.expires_ms,
        ticket.reason,
    )


async def _next(
    request: web.Request, pool: str, user: str, news: asyncio.Event, stream: _Stream
) -> Ticket | None:
    """The next snapshot worth a look; pings, renewing presence, until there is one."""
    while True:
        try:
            if await stream.ping_is_due(news):
                await stream.ping()
                return await _present(request, pool, user)
            news.clear()
            ticket = await request.app[STORE].status(pool, user)
            return ticket if isinstance(ticket, Ticket) else None
        except StoreUnavailable:
            pass  # the place is kept; the newsroom wakes us when Redis is back


async def _present(request: web.Request, pool: str, user: str) -> Ticket | None:
    match await request.app[STORE].heartbeat(pool, user):
        case Alive(ticket) | Ended(ticket):
            return ticket
        case _:
            return None
