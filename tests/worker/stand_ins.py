"""The two parties an agent talks to, as recording servers: what is not ours to test here.

`Admission` keeps the worker's contract and can be told to misbehave; `Upstream` is a model server
at the level of raw bytes, so that a test sees exactly what was relayed.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientError, ClientSession, Fingerprint, web

DEADLINE_S = 10.0

Json = dict[str, Any]


@dataclass
class Call:
    """One request that admission got."""

    key: str
    body: Json


class Admission:
    """The contract's three calls; every change of `calls` wakes `until`."""

    def __init__(self) -> None:
        self.url = ""
        self.registrations: list[Call] = []
        self.heartbeats: list[Call] = []
        self.drains: list[str] = []
        self.known: dict[str, str] = {}  # worker_id: own token
        self.shared_token = "shared"
        self.upstream_key = "upstream-key"
        self.draining = False
        self.rotate = False
        self.heartbeat_interval = 10.0
        self._news = asyncio.Condition()

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["Admission"]:
        app = web.Application()
        app.router.add_post("/workers/register", self._register)
        app.router.add_post("/workers/heartbeat", self._heartbeat)
        app.router.add_post("/workers/{worker_id}/drain", self._drain)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something holds. Raises `TimeoutError`."""
        async with asyncio.timeout(DEADLINE_S), self._news:
            await self._news.wait_for(true)

    async def until_ready(self) -> None:
        await self.until(lambda: bool(self.heartbeats) and self.heartbeats[-1].body["ready"])

    async def _register(self, request: web.Request) -> web.Response:
        call = await self._note(request, self.registrations)
        worker_id = call.body["worker_id"]
        if call.key not in {self.shared_token, self.known.get(worker_id)}:
            return _problem(401, "nobody knows this key")
        if worker_id in self.known and call.key == self.shared_token:
            return _problem(409, "this worker_id is taken")
        try:
            pin = call.body["fingerprint"]
            known = Fingerprint(bytes.fromhex(pin)) if pin else True
            url = f"{call.body['url']}/info"
            async with ClientSession() as session, session.get(url, ssl=known) as info:
                assert (await info.json())["worker_id"] == worker_id
        except ClientError:
            return _problem(422, "the worker does not answer /info")
        self.rotate = False
        self.known[worker_id] = f"own-{len(self.registrations)}"
        token = {"token": self.known[worker_id], "upstream_key": self.upstream_key}
        interval = {"heartbeat_interval": self.heartbeat_interval}
        return web.json_response({"worker_id": worker_id, **token, **interval})

    async def _heartbeat(self, request: web.Request) -> web.Response:
        call = await self._note(request, self.heartbeats)
        own = self.known.get(call.body["worker_id"])
        if own is None:
            return _problem(404, "unknown worker")
        if call.key != own:
            return _problem(403, "not its own token")
        seen = {"ready": call.body["ready"] and not self.draining, "reason": None}
        return web.json_response({**seen, "draining": self.draining, "rotate": self.rotate})

    async def _drain(self, request: web.Request) -> web.Response:
        async with self._news:
            self.drains.append(request.path_qs)
            self._news.notify_all()
        return web.json_response({})

    async def _note(self, request: web.Request, calls: list[Call]) -> Call:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        async with self._news:
            calls.append(Call(key, await request.json()))
            self._news.notify_all()
        return calls[-1]


def _problem(status: int, detail: str) -> web.Response:
    body = {"type": "about:blank", "title": "no", "status": status, "detail": detail}
    return web.json_response(body, status=status, content_type="application/problem+json")


@dataclass
class Request:
    """One request as it came over the wire."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


Answer = Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Upstream:
    """A model server: what an agent asks by itself, the rest by `answer`."""

    answer: Answer
    token: bytes = b"{}"  # what it says when the agent asks for one token
    token_status: str = "200 OK"
    tokens: int = 0  # how often it was asked for one
    models: list[str] = field(default_factory=lambda: ["tiny"])
    metrics: str = ""
    key: str | None = None
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    _open: list[asyncio.StreamWriter] = field(default_factory=list)
    _server: asyncio.Server | None = None

    def close(self) -> None:
        """Listen no more, and hang up."""
        assert self._server
        self._server.close()
        for writer in self._open:
            writer.close()

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["Upstream"]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.append(writer)
        try:
            while request := await _read(reader):
                target = request.line.split()[1]
                if self.key and request.header("Authorization") != [f"Bearer {self.key}"]:
                    writer.write(plain(b"{}", status="401 Unauthorized"))
                elif target == "/v1/models":
                    card = {"data": [{"id": model} for model in self.models]}
                    writer.write(plain(json.dumps(card).encode()))
                elif target == "/metrics":
                    writer.write(plain(self.metrics.encode()))
                elif target == "/version":
                    writer.write(plain(b'{"version": "0.33.0"}'))
                elif request.header("User-Agent")[:1] and "vestibule-agent" in str(request.headers):
                    self.tokens += 1
                    writer.write(plain(self.token, status=self.token_status))
                else:
                    self.requests.append(request)
                    await self.answer(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (item.partition(":") for item in rest)]
    request = Request(line, headers, b"")
    if length := request.header("Content-Length"):
        request.body = await reader.readexactly(int(length[0]))
    return request


def plain(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole response with a length."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def chunk(data: bytes) -> bytes:
    """One chunk of a streamed response; the empty one ends it."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
