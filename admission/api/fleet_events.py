"""What happens to the fleet as Server-Sent Events, for admins: transitions and actions, live.

``event: fleet``, data = the line of history with the instance after it, id = its entry in the
stream, which ``Last-Event-ID`` brings back. ``event: gap`` says that entries in between are gone.
``event: budget`` says that a budget is used up to some share of it, ``event: pool`` what the
autoscaler did or cannot do. Other kinds of events may come to stand beside these: a client leaves
alone what it does not know.
"""

import json
import re

from aiohttp import hdrs, web

from admission.api import access, streams
from admission.auth import Kind
from admission.bulletin import Begin
from admission.keys import BULLETIN

RETRY_MS = 2_000
_ENTRY = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")

routes = web.RouteTableDef()


@routes.get("/admin/events")
async def events(request: web.Request) -> web.StreamResponse:
    access.must_be(request, Kind.ADMIN)
    followed = request.app[BULLETIN].follow(_last_seen(request))
    try:
        begin = await anext(followed)  # before the answer begins: Redis may be away
        assert isinstance(begin, Begin)
        response, put = await streams.begun(request)
        gap = f"event: gap\ndata: {json.dumps({'after': begin.entry})}\n" if begin.gap else ""
        await put(f"retry: {RETRY_MS}\nid: {begin.entry}\n{gap}\n".encode())
        async for told in followed:
            assert not isinstance(told, Begin)
            if told is None:
                await put(b": ping\n\n")
            else:
                event = f"id: {told.entry}\nevent: {told.kind}\ndata: {told.text}\n\n"
                await put(event.encode())
    finally:
        await followed.aclose()
    return response


def _last_seen(request: web.Request) -> str | None:
    given = request.headers.get(hdrs.LAST_EVENT_ID, "")
    return given if _ENTRY.fullmatch(given) else None
