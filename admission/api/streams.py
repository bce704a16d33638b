"""What the streams share: who may open a ticket's, what its view says, how an answer of events is
written, and how much a client that does not read may cost.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from aiohttp import web

from admission import views, wire
from admission.api import access
from admission.errors import NotFound
from admission.keys import GATEKEEPER, NEWSROOM
from admission.listener import News

WRITE_S = 20.0  # how long a client may leave a view unread before it is let go
# What the kernel keeps for a client, some dozens of views; by itself it would grow to megabytes of
# places that are no longer true.
SEND_BUFFER_BYTES = 16_384


@asynccontextmanager
async def opened(request: web.Request) -> AsyncIterator[tuple[News, AsyncIterator[News | None]]]:
    """The ticket of the user in the path, and then its changes, None when a ping is due.

    Raises:
        Unauthorized, Forbidden: not for this caller.
        NotFound: the user has no ticket.
        StoreUnavailable: Redis is away.
    """
    user = wire.read_user(request)
    request.app[GATEKEEPER].may_act_for(access.visitor(request), user)
    pool, ticket = access.pool_for(request), request.query.get("ticket_id", "")
    newsroom = request.app[NEWSROOM]
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(newsroom.listener(pool, user, ticket))
        told = await stack.enter_async_context(aclosing(newsroom.told(listener)))
        first = await anext(told, None)
        if first is None:
            raise NotFound(f"{user} has no ticket.", code="ticket_unknown")
        yield first, told


Put = Callable[[bytes], Awaitable[None]]


async def begun(request: web.Request) -> tuple[web.StreamResponse, Put]:
    """An answer of Server-Sent Events that has begun, and what writes one block of it: it returns
    when the client has room for more, and lets go one that never has.

    Raises:
        ConnectionResetError: the client is gone, or (by what writes) was let go.
    """
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",  # nginx would hold the events back
        }
    )
    response.force_close()  # nothing else is sent over a connection that is bound like this
    transport = bound(request)
    writer = await response.prepare(request)
    assert writer is not None

    async def put(block: bytes) -> None:
        await writer.write(block)
        if not transport.get_write_buffer_size():
            return
        try:
            async with asyncio.timeout(WRITE_S):
                await writer.drain()
        except TimeoutError:
            transport.abort()
            raise ConnectionResetError("the client does not read") from None

    return response, put


def view(news: News) -> str:
    """The ticket view as JSON, and why its news is bad, if it is."""
    return json.dumps({**views.ticket_view(news.ticket), "because": news.because})


def bound(request: web.Request) -> asyncio.WriteTransport:
    """Keep little for a client that does not read: a write then waits for it.

    Raises:
        ConnectionResetError: it is gone.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    transport.set_write_buffer_limits(high=0)
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return transport
