"""The wire between Open WebUI and admission: the calls on it are read, and can be lost.

Knows paths and bodies; what the plugin makes of an answer is the tests'.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, TCPConnector, web

from tests.conftest import DEADLINE_S
from tests.scale.balancer import Balancer

AWAY = (503, "")
Json = dict[str, Any]


class Wire:
    """``asked``: each call's verb and body, in their order. ``answers``: by verb, the status and
    the text with which its calls are answered here instead of by admission."""

    def __init__(self, admission: Balancer) -> None:
        self.url = ""
        self.asked: list[tuple[str, Json]] = []
        self.answers: dict[str, tuple[int, str]] = {}
        self._admission = admission

    def bodies(self, verb: str) -> list[Json]:
        """What was sent with this verb."""
        return [body for asked, body in self.asked if asked == verb]

    async def has(self, number: int, verb: str) -> None:
        """Wait until so many more calls with this verb came by."""
        wanted = len(self.bodies(verb)) + number
        async with asyncio.timeout(DEADLINE_S):
            while len(self.bodies(verb)) < wanted:  # noqa: ASYNC110 - looks at what a server saw
                await asyncio.sleep(0.01)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Each call comes by here."""
        verb = request.path.split("/")[2]
        self.asked.append((verb, json.loads(await request.read() or "{}")))
        if answer := self.answers.get(verb):
            return web.Response(status=answer[0], text=answer[1])
        return await self._admission.handle(request)


@asynccontextmanager
async def wired(to: str) -> AsyncIterator[Wire]:
    """One that leads to the service at this URL."""
    connector = TCPConnector(limit=0, force_close=True)
    async with ClientSession(connector=connector, auto_decompress=False) as http:
        wire = Wire(Balancer(http, [to]))
        runner = web.ServerRunner(
            web.Server(wire.handle, handler_cancellation=True), shutdown_timeout=0.1
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            wire.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield wire
        finally:
            await runner.cleanup()
