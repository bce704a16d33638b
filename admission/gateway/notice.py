"""What a call that waits lets its caller see: comments of an event stream, or status events.

Every OpenAI SDK leaves comments out. Open WebUI shows a chunk's ``event`` as one of its own
(0.12.4, utils/middleware.py: ``if 'event' in data``); to other clients such a chunk would be
nonsense, so only calls that come from a chat of its page get them.
"""

import asyncio
import json
from typing import Any

from aiohttp import web

from admission import news, views
from admission.domain import Ticket
from admission.errors import AdmissionError
from admission.gateway.event_stream import EventStream
from admission.pages.words import Words, choose, words

STATUS_EVERY_S = 5.0
"""Open WebUI writes the chat's row anew at each status."""


class Notice:
    """Tells one caller; who did not ask for a stream sees nothing until the answer.

    ``pace_s``: so often it is worth telling a place.
    """

    def __init__(self, request: web.Request, *, streams: bool, on_page: bool) -> None:
        """``on_page``: the call comes from a chat of Open WebUI's page."""
        self.stream = EventStream(request)
        self.pace_s = STATUS_EVERY_S if on_page else 0.0
        self._streams, self._on_page = streams, on_page
        self._request = request
        self._began_s = self._told_s = _now_s()
        self._shown = ""

    async def tell(self, ticket: Ticket | None) -> None:
        """The place of who waits; None: it is time for a sign of life."""
        if not self._streams:
            return
        if ticket is None:
            await self.stream.ping()
        else:
            await self._wait_with(self._words().place_of(ticket))

    async def behind(self) -> None:
        """It waits for another answer of its user; to be told again and again."""
        if not self._streams:
            return
        if _now_s() >= self._told_s + news.PING_S:
            self._told_s = _now_s()
            await self.stream.ping()
        await self._wait_with(str(self._words()["waiting"]["others"]))

    async def come(self) -> None:
        """The turn has come."""
        if self.stream.begun:
            await self._say(self._words().waited(_now_s() - self._began_s), done=True)

    async def refuse(self, error: AdmissionError) -> web.StreamResponse:
        """The end of a stream that has begun: too late for a status of HTTP.

        SDKs raise it, and Open WebUI shows its message below the chat.
        """
        if self._on_page:  # no place shimmers on above the error
            await self._say(self._shown, done=True, hidden=True)
        await self._event(views.openai_error(error))
        return await self.stream.end()

    def _words(self) -> Words:
        """The caller's language; asked for only by who waits."""
        return words(choose(None, self._request.headers.get("Accept-Language", "")))

    async def _wait_with(self, text: str) -> None:
        if text != self._shown:
            await self._say(text)

    async def _say(self, text: str, **state: bool) -> None:
        self._shown = text
        if self._on_page:
            data = {"description": text, "done": False, **state}
            await self._event({"event": {"type": "status", "data": data}})
        else:
            await self.stream.write(f": {text}\n\n".encode())

    async def _event(self, data: dict[str, Any]) -> None:
        await self.stream.write(f"data: {json.dumps(data)}\n\n".encode())


def _now_s() -> float:
    return asyncio.get_running_loop().time()
