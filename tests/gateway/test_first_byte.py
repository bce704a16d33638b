"""When bytes pass, through real sockets: each at once, and nothing after the caller has gone."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from admission.gateway.connection import Connection
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import Chatter
from tests.gateway.upstream import Upstream, chat

AT_ONCE_S = 0.03  # Nagle's algorithm beside a delayed acknowledgement costs 40 ms
STREAMS = 20


@asynccontextmanager
async def connected(service: Service) -> AsyncIterator[tuple[asyncio.StreamReader, socket.socket]]:
    """A caller's bare connection, which asked for a stream."""
    address, body = urlsplit(service.url), chat(stream=True)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer service-key\r\n"
        b"X-OpenWebUI-User-Id: ada\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    try:
        yield reader, writer.get_extra_info("socket")
    finally:
        writer.transport.abort()


async def test_each_piece_comes_when_the_model_says_it(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    """The head before the first piece, and small pieces one by one, none held back for the next."""
    sent: dict[bytes, float] = {}

    async def say(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(STREAMS):
            await asyncio.sleep(0.01)
            piece = b'data: {"n": %d}\n\n' % number
            sent[piece] = time.monotonic()
            await response.write(piece)
        return response

    upstream.act = say
    late = []
    async with asyncio.timeout(DEADLINE_S), connected(service) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        assert len(sent) <= 1
        for number in range(STREAMS):
            piece = b'data: {"n": %d}\n\n' % number
            await reader.readuntil(piece)
            late.append(time.monotonic() - sent[piece])
    assert sorted(late)[STREAMS // 2] < AT_ONCE_S


async def test_no_connection_waits_to_fill_a_packet(
    service: Service, upstream: Upstream, ada: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the caller's nor the worker's."""
    options = []
    for kind in (RequestHandler, Connection):
        made = kind.connection_made

        def seen(self: object, transport: object, made: object = made) -> None:
            made(self, transport)  # type: ignore[operator]
            raw = transport.get_extra_info("socket")  # type: ignore[attr-defined]
            options.append(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        monkeypatch.setattr(kind, "connection_made", seen)
    async with asyncio.timeout(DEADLINE_S), connected(service) as (reader, _):
        await reader.readuntil(b"data: ")
    assert len(options) >= 3  # the caller's, and both ends of the worker's
    assert all(options)


@pytest.mark.parametrize("when", ["before the answer", "in the answer"])
async def test_a_caller_who_goes_away_ends_the_workers_answer_at_once(
    service: Service, upstream: Upstream, ada: Chatter, when: str
) -> None:
    if when == "before the answer":

        async def think(_: web.Request) -> web.StreamResponse:
            await upstream.go.wait()
            return web.Response()

        upstream.act = think
    async with connected(service) as (reader, _):
        if when == "in the answer":
            await reader.readuntil(b"data: ")
        else:
            await upstream.begun.wait()
        gone = time.monotonic()
    async with asyncio.timeout(DEADLINE_S):
        await upstream.canceled.wait()
    assert time.monotonic() - gone < 0.1
