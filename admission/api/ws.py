"""A ticket's changes over a WebSocket: the views of the event stream as text messages.

The connection is presence, like the event stream. What the client says is not listened to: browsers
answer the pings by themselves, and a `{"type":"heartbeat"}` of a client that cannot is as good.
"""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import WSCloseCode, web

from admission.api import streams
from admission.keys import NEWSROOM
from admission.listener import News
from admission.news import PING_S

MESSAGE_BYTES_MAX = 1_024  # of the client; a longer one closes with 1009

routes = web.RouteTableDef()


@routes.get("/queue/ws/{user_id}")
async def ws(request: web.Request) -> web.StreamResponse:
    async with streams.opened(request) as (first, told):
        socket = web.WebSocketResponse(
            heartbeat=PING_S, max_msg_size=MESSAGE_BYTES_MAX, compress=False, writer_limit=0
        )
        transport = streams.bound(request)
        await socket.prepare(request)
        telling = asyncio.create_task(_tell(request, socket, transport, first, told))
        try:
            async for _ in socket:
                pass  # until either side closes
        finally:
            telling.cancel()
            await asyncio.wait({telling})
    return socket


async def _tell(
    request: web.Request,
    socket: web.WebSocketResponse,
    transport: asyncio.WriteTransport,
    first: News,
    told: AsyncIterator[News | None],
) -> None:
    """Send each view, then close: 1000 after the end, 1001 when the service stops."""
    try:
        await _send(socket, first)
        async for news in told:
            if news:
                await _send(socket, news)
    except (TimeoutError, ConnectionResetError):
        transport.abort()  # the client does not read, or is gone
        return
    stopping = request.app[NEWSROOM].closing
    await socket.close(code=WSCloseCode.GOING_AWAY if stopping else WSCloseCode.OK)


async def _send(socket: web.WebSocketResponse, news: News) -> None:
    async with asyncio.timeout(streams.WRITE_S):
        await socket.send_str(streams.view(news))
