"""A model server of the tests that keeps responses, by their ids; it records who asked for what."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from multidict import CIMultiDictProxy

from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import make_ready
from tests.gateway.upstream import CHUNKS, Act

MISSING = b'{"error":  {"message": "Response with id not found", "code": 404}}'


@dataclass
class Shelf:
    """What it keeps and saw, and what a test steers: ``go`` lets the rest of a stream out."""

    name: str
    kept: set[str] = field(default_factory=set)
    seen: list[tuple[str, str]] = field(default_factory=list)  # method, path with query
    headers: CIMultiDictProxy[str] | None = None  # of the last call
    go: asyncio.Event = field(default_factory=asyncio.Event)
    canceled: asyncio.Event = field(default_factory=asyncio.Event)
    act: Act | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs))
        self.headers = request.headers
        try:
            return await (self.act or self.look)(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.canceled.set()
            raise

    async def look(self, request: web.Request) -> web.StreamResponse:
        """As vLLM does, and OpenAI where vLLM has no such call."""
        identity = request.match_info["id"]
        if identity not in self.kept:
            return _json(MISSING, 404)
        if request.query.get("stream") == "true":
            return await self.stream(request)
        if request.method == "DELETE":
            self.kept.discard(identity)
        return _json(response(identity, request), 200, self.name)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The first event at once, the others after ``go``."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(CHUNKS[0])
        async with asyncio.timeout(DEADLINE_S):
            await self.go.wait()
        for chunk in CHUNKS[1:]:
            await answer.write(chunk)
        await answer.write_eof()
        return answer


def response(identity: str, request: web.Request) -> bytes:
    """What it says of one, with spaces that a second JSON writer would not keep."""
    said: dict[str, Any] = {"id": identity, "object": "response", "model": "tiny", "output": []}
    said["status"] = "cancelled" if request.path.endswith("/cancel") else "completed"
    if request.path.endswith("/input_items"):
        item = {"id": "m1", "type": "message", "role": "user", "content": []}
        said = {"object": "list", "data": [item], "has_more": False}
    return json.dumps(said, indent=3).encode()


def _json(body: bytes, status: int, name: str = "") -> web.Response:
    headers = {"Content-Type": "application/json", "X-Of-The-Model": name}
    return web.Response(body=body, status=status, headers=headers)


@asynccontextmanager
async def shelf(service: Service, name: str, *kept: str) -> AsyncIterator[Shelf]:
    """A ready worker that keeps these responses."""
    one = Shelf(name, set(kept))
    app = web.Application()
    app.router.add_route("*", "/v1/responses/{id}", one.answer)
    app.router.add_route("*", "/v1/responses/{id}/{part}", one.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await make_ready(service, name, f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield one
    finally:
        one.go.set()
        await runner.cleanup()
