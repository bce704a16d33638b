"""What a worker or a caller may not do for ever: each limit has a name, a default and an end."""

import asyncio
import ctypes
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientPayloadError, web

from admission.clock import ManualClock
from tests.api.calls import Reply, caller_of, raw_call
from tests.api.conftest import served_at
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import Chatter, Start, make_ready
from tests.gateway.upstream import ANSWER, CHUNKS, Upstream, chat, listening
from tests.gateway.waiters import waiting

SO_ATTACH_FILTER, BPF_RET = 26, 0x06  # asm-generic/socket.h, linux/bpf_common.h
SOON_S = 0.4  # a limit that is reached, and that an answer on a slow machine still keeps
Limited = Callable[..., AbstractAsyncContextManager[tuple[Service, Chatter]]]


@pytest.fixture
def limited(valkey: str, redis: object, clock: ManualClock) -> Limited:
    """A service with changed limits, and a user with a session there."""

    @asynccontextmanager
    async def started(
        upstream: Upstream, **limits: float
    ) -> AsyncIterator[tuple[Service, Chatter]]:
        async with served_at(valkey, clock, limits) as service:
            await make_ready(service, "w1", upstream.url)
            user = Chatter(caller_of(service), "ada")
            await user.join()
            yield service, user

    return started


@pytest.fixture
async def model() -> AsyncIterator[Upstream]:
    async with listening("w1") as upstream:
        yield upstream


async def _think(upstream: Upstream) -> web.StreamResponse:
    await upstream.go.wait()
    return web.Response()


@pytest.mark.parametrize("limit", ["silence_timeout", "request_timeout"])
async def test_a_worker_that_does_not_answer_in_time_is_504(
    limited: Limited, model: Upstream, limit: str
) -> None:
    model.act = lambda _: _think(model)
    async with limited(model, **{limit: SOON_S}) as (_, ada):
        reply = await ada.says(chat())
    assert (reply.status, reply.json["error"]["code"]) == (504, "upstream_timeout")
    assert model.canceled.is_set()


@pytest.mark.parametrize("limit", ["silence_timeout", "request_timeout"])
async def test_an_answer_that_stops_or_never_ends_is_cut(
    limited: Limited, model: Upstream, limit: str
) -> None:
    async with limited(model, **{limit: SOON_S}) as (_, ada), ada.streams() as response:
        assert await response.content.readany() == CHUNKS[0]
        with pytest.raises(ClientPayloadError):
            await response.content.read()


async def test_an_answer_may_take_longer_than_its_worker_may_be_silent(
    limited: Limited, model: Upstream
) -> None:
    async def slowly(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(4):
            await asyncio.sleep(SOON_S / 3)
            await response.write(b"x")
        return response

    model.act = slowly
    async with limited(model, silence_timeout=SOON_S) as (_, ada):
        assert (await ada.says(chat())).text == "xxxx"


async def _said(service: Service, sent: bytes, last: bytes = b"never said") -> bytes:
    """What comes for bytes that end nowhere, up to ``last`` or until the service closes."""
    address = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(sent)
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await reader.readuntil(last)
    except asyncio.IncompleteReadError as end:
        return end.partial
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_body_that_does_not_come_is_408(limited: Limited, model: Upstream) -> None:
    async with limited(model, body_timeout=SOON_S) as (service, _):
        answer = await _said(
            service,
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Authorization: Bearer service-key\r\nX-OpenWebUI-User-Id: ada\r\n"
            b"Content-Length: 1000\r\n\r\n{",
            b"body_too_slow",
        )
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"body_too_slow" in answer
    assert not model.seen


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nX-Slow: "])
async def test_a_head_that_does_not_come_ends_the_connection(
    limited: Limited, model: Upstream, sent: bytes
) -> None:
    async with limited(model, keepalive_timeout=SOON_S) as (service, _):
        began = time.monotonic()
        assert await _said(service, sent) == b""
        assert time.monotonic() - began < 3


async def test_a_head_may_be_as_long_as_the_setting_says(limited: Limited, model: Upstream) -> None:
    long = {"X-Long": "x" * 20_000}
    async with limited(model, head_bytes_max=32_768) as (_, ada):
        assert (await ada.says(chat(), **long)).status == 200
        assert model.seen[0].headers["X-Long"] == long["X-Long"]
    async with limited(model) as (_, ada):
        assert (await ada.says(chat(), **long)).status == 400


async def test_a_caller_who_reads_nothing_is_cut_off(
    limited: Limited, model: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    model.act = flood
    body = chat()
    async with limited(model, reader_timeout=SOON_S) as (service, _):
        address = urlsplit(service.url)
        with socket.create_connection((address.hostname, address.port)) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                b"Authorization: Bearer service-key\r\nX-OpenWebUI-User-Id: ada\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            async with asyncio.timeout(DEADLINE_S):
                await model.canceled.wait()
    assert "caller_reads_nothing" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: socket filters")
@pytest.mark.usefixtures("pings_often")
async def test_a_caller_whose_machine_is_gone_leaves_the_queue(
    limited: Limited, model: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """What its machine would have acknowledged is only a ping here, far less than any buffer."""
    body = chat(stream=True)
    async with limited(model, reader_timeout=SOON_S) as (service, _):
        address = urlsplit(service.url)
        with socket.create_connection((address.hostname, address.port)) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                b"Authorization: Bearer service-key\r\nX-OpenWebUI-User-Id: bob\r\n"
                b"X-Vestibule-Wait: 60\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            await waiting(service, 1)
            _hear_nothing_more(client)
            await waiting(service, 0)
    assert "caller_reads_nothing" in caplog.text


async def test_a_limit_of_a_year_is_one_the_kernel_takes(limited: Limited, model: Upstream) -> None:
    async with limited(model, reader_timeout=31_536_000.0) as (_, ada):
        assert (await ada.says(chat())).status == 200


def _hear_nothing_more(client: socket.socket) -> None:
    """The kernel drops what comes, also what would be acknowledged, as if the cable were cut."""
    drop = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RET, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(drop))
    client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


# --- a worker that is full ----------------------------------------------------------------------


async def _full(_: web.Request) -> web.Response:
    return web.Response(status=503, body=b'{"error":  "full"}', headers={"X-Of": "vllm"})


async def test_a_full_worker_is_passed_over(service: Service, start: Start, ada: Chatter) -> None:
    full, free = await start("w1"), await start("w2")
    full.act = _full
    for _ in range(8):
        assert (await ada.says(chat(), "/v1/score")).headers["X-Of-The-Model"] == "w2"
    assert free.seen


@pytest.mark.parametrize("retry_after", [None, "7"])
async def test_when_all_are_full_their_answer_is_passed_on(
    service: Service, start: Start, ada: Chatter, retry_after: str | None
) -> None:
    async def full(request: web.Request) -> web.Response:
        response = await _full(request)
        if retry_after:
            response.headers["Retry-After"] = retry_after
        return response

    for name in ("w1", "w2"):
        (await start(name)).act = full
    reply: Reply = await ada.says(chat())
    assert (reply.status, reply.text, reply.headers["X-Of"]) == (503, '{"error":  "full"}', "vllm")
    assert reply.headers["Retry-After"] == (retry_after or "2")


async def test_a_worker_that_dies_before_its_answer_is_passed_over_once(
    service: Service, start: Start, ada: Chatter
) -> None:
    async def die(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    workers = [await start(name) for name in ("w1", "w2", "w3")]
    for worker in workers:
        worker.act = die
    reply = await ada.says(chat())
    assert (reply.status, reply.json["error"]["code"]) == (502, "bad_gateway")
    assert sum(len(worker.seen) for worker in workers) == 2
    workers[0].act = workers[1].act = workers[2].act = None
    assert (await ada.says(chat())).text.encode() == ANSWER


async def test_bytes_after_the_head_are_never_sent_twice(
    service: Service, start: Start, ada: Chatter
) -> None:
    for name in ("w1", "w2"):
        worker = await start(name)
        worker.act = worker.break_off
        worker.go.set()
    answer = await raw_call(
        service,
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Authorization: Bearer service-key\r\nX-OpenWebUI-User-Id: ada\r\n"
        b'Content-Length: 17\r\n\r\n{"model": "tiny"}',
    )
    assert answer.count(CHUNKS[0]) == 1
