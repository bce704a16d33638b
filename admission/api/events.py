"""A ticket's changes as Server-Sent Events: the snapshot first, then each change, the end last.

The stream is presence: while it is open the place is kept (DESIGN section 4, invariant 9).
"""

import re

from aiohttp import hdrs, web

from admission.api import streams
from admission.domain import Status
from admission.listener import News

RETRY_MS = 2_000  # after which a client that lost the stream opens it again
# An EventSource also opens a stream again that ended well, unless its page closes it: this much
# later it mostly finds the ticket forgotten, and the 404 ends it.
RETRY_ENDED_MS = 120_000

routes = web.RouteTableDef()


@routes.get("/queue/events/{user_id}")
async def events(request: web.Request) -> web.StreamResponse:
    async with streams.opened(request) as (first, told):
        response, put = await streams.begun(request)
        stream = _Stream(put, after=_last_id(request))
        await stream.send(first, retry_ms=RETRY_MS)
        async for news in told:
            if news is None:
                await put(b": ping\n\n")
            elif news.ticket.status is Status.DISCONNECTED:
                await stream.send(news, retry_ms=RETRY_ENDED_MS)
            else:
                await stream.send(news)
    return response


def _last_id(request: web.Request) -> int:
    """The id of the last event that a client saw which now comes back; 0 for one that is new."""
    given = request.headers.get(hdrs.LAST_EVENT_ID, "")
    return int(given) if re.fullmatch("[0-9]{1,15}", given) else 0


class _Stream:
    """Writes each change once, with an increasing id."""

    def __init__(self, put: streams.Put, after: int) -> None:
        self._put, self._id = put, after

    async def send(self, news: News, *, retry_ms: int | None = None) -> None:
        self._id += 1
        retry = f"retry: {retry_ms}\n" if retry_ms else ""
        event = f"{retry}id: {self._id}\nevent: ticket\ndata: {streams.view(news)}\n\n"
        await self._put(event.encode())
