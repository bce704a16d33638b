"""An answer of Server-Sent Events that begins with its first word.

Until then nothing has gone out, and the call can still be answered otherwise. Knows bytes; not what
they say.
"""

from aiohttp import web


class EventStream:
    """The events of one answer."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None

    @property
    def begun(self) -> bool:
        return self._response is not None

    async def write(self, data: bytes) -> None:
        """Send ``data``: whole events or comments, or what an upstream sent of some."""
        if self._response is None:
            self._response = web.StreamResponse(
                headers={
                    "Content-Type": "text/event-stream",
                    "Cache-Control": "no-store",
                    "X-Accel-Buffering": "no",  # nginx would hold the events back
                }
            )
            await self._response.prepare(self._request)
        await self._response.write(data)

    async def ping(self) -> None:
        """Keep proxies from thinking that nobody is there."""
        if self.begun:
            await self.write(b": ping\n\n")

    async def end(self) -> web.StreamResponse:
        assert self._response is not None
        await self._response.write_eof()
        return self._response
