"""A model server of the tests: answers as it is told to, over real sockets, and records."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from multidict import CIMultiDictProxy

from tests.api.calls import AGENT_INFO
from tests.conftest import DEADLINE_S

CHUNKS = [b'data: {"n": 1}\n\n', b'data: {"n": 2}\n\n', b"data: [DONE]\n\n"]
ANSWER = b'{"id":"1",  "choices": [{"message": {"content": "caf\xc3\xa9"}}]}'

Act = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: CIMultiDictProxy[str]
    body: bytes


@dataclass
class Upstream:
    """What it saw, and what a test steers: ``go`` lets the rest of an answer out."""

    name: str
    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    canceled: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    act: Act | None = None
    gets: dict[str, Any] = field(default_factory=dict)  # what GET answers, as JSON

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(Seen(request.path_qs, request.headers, await request.read()))
        self.begun.set()
        act = self.act or (self.stream if b'"stream": true' in self.seen[-1].body else self.whole)
        try:
            return await act(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.canceled.set()
            raise

    async def get(self, request: web.Request) -> web.Response:
        if request.path not in self.gets:
            raise web.HTTPNotFound
        return web.json_response(self.gets[request.path])

    async def whole(self, _: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "application/json", "X-Of-The-Model": self.name}
        return web.Response(body=ANSWER, headers=headers)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The first chunk at once, the others after ``go``."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(CHUNKS[0])
        async with asyncio.timeout(DEADLINE_S):
            await self.go.wait()
        for chunk in CHUNKS[1:]:
            await response.write(chunk)
        await response.write_eof()
        return response

    async def break_off(self, request: web.Request) -> web.StreamResponse:
        """Half an answer, then the connection is cut."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(CHUNKS[0])
        async with asyncio.timeout(DEADLINE_S):
            await self.go.wait()
        assert request.transport is not None
        request.transport.abort()
        return response


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"data": [{"id": "tiny"}]})


async def _info(_: web.Request) -> web.Response:
    return web.json_response({"agent_checksum": AGENT_INFO["checksum"]})


@asynccontextmanager
async def listening(name: str) -> AsyncIterator[Upstream]:
    """A running upstream."""
    upstream = Upstream(name)
    app = web.Application()
    app.router.add_post("/{path:.*}", upstream.answer)
    app.router.add_get("/v1/models", _models)
    app.router.add_get("/info", _info)
    app.router.add_get("/{path:.*}", upstream.get)
    runner = web.AppRunner(
        app, handler_cancellation=True, shutdown_timeout=0.1, max_field_size=65_536
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield upstream
    upstream.go.set()
    await runner.cleanup()


def chat(*, stream: bool = False, model: str = "tiny") -> bytes:
    """A chat's body, with spaces and letters that a second JSON writer would not keep."""
    body = json.dumps({"model": model, "stream": stream}).encode()
    return body[:-1] + b',  "messages": [{"content": "caf\xc3\xa9 \\u00e9"}] }'
