"""`/v1/*` through the agent: exact bytes, at once, and broken off when either side breaks off."""

import asyncio
import gzip
import io
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.worker.processes import Agent, agent
from tests.worker.stand_ins import (
    DEADLINE_S,
    STREAM_HEAD,
    Admission,
    Request,
    Upstream,
    chunk,
    plain,
)

KEY = {"Authorization": "Bearer upstream-key"}
CHAT = "/v1/chat/completions"


@pytest.fixture
async def worker(tmp_path: Path, admission: Admission, upstream: Upstream) -> AsyncIterator[Agent]:
    """A registered agent in front of `upstream`."""
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await admission.until_ready()
        yield running


async def _raw(port: int, request: bytes) -> bytes:
    """What comes back on one connection, until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), DEADLINE_S)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_request_reaches_the_model_server_as_it_was_sent(
    worker: Agent, upstream: Upstream
) -> None:
    body = gzip.compress('{ "model":"tiny",  "unknown_field": [1.0, "ü"] }'.encode())
    target = "/v1/x%2Fy/../chat/completions?a=%20b+c&a=d;e"
    kept = [
        ("X-Unknown", "one"),
        ("x-unknown", "two"),
        ("Content-Type", "application/json"),
        ("Content-Encoding", "gzip"),
        ("X-Request-Id", "r-1"),
        ("Cookie", "a=b"),
    ]
    dropped = [
        ("Host", "agent"),
        ("Authorization", "Bearer upstream-key"),
        ("Connection", "close, X-Only-For-This-Hop"),
        ("X-Only-For-This-Hop", "1"),
        ("TE", "trailers"),
        ("Keep-Alive", "timeout=5"),
        ("Content-Length", str(len(body))),
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in [*dropped, *kept])
    await _raw(worker.port, f"POST {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
    [seen] = upstream.requests
    assert seen.line == f"POST {target} HTTP/1.1"
    assert seen.body == body
    added = [("Host", upstream.url.removeprefix("http://")), ("Content-Length", str(len(body)))]
    assert _lower(seen.headers) == _lower(kept + added)


def _lower(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without the spelling of the names, which means nothing."""
    return sorted((name.lower(), value) for name, value in headers)


async def test_an_answer_comes_back_as_it_was_given(worker: Agent, upstream: Upstream) -> None:
    body = gzip.compress(b'{"error": "slow down"}')

    async def refuse(_: Request, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers = "Retry-After: 7\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Odd: \xc3\xa9\r\n"
        headers += "Content-Encoding: gzip\r\nKeep-Alive: timeout=5\r\nContent-Type: text/odd\r\n"
        writer.write(plain(body, status="429 Slow Down", headers=headers))

    upstream.answer = refuse
    request = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer upstream-key\r\n"
    raw = await _raw(worker.port, f"{request}Connection: close\r\n\r\n".encode())
    head, _, received = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 429 Slow Down"
    assert received == body
    for line in (b"Retry-After: 7", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"X-Odd: \xc3\xa9"):
        assert line in lines
    for line in (b"Content-Encoding: gzip", b"Content-Type: text/odd"):
        assert line in lines
    assert not [line for line in lines if line.lower().startswith((b"keep-alive", b"transfer"))]


BODILESS = [
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nEtag: x\r\n\r\n"),
    ("GET", b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /v1/y\r\nContent-Length: 0\r\n\r\n"),
]


async def test_an_answer_without_a_body_stays_without(worker: Agent, upstream: Upstream) -> None:
    for method, given in BODILESS:

        async def reply(
            _: Request,
            __: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            given: bytes = given,
        ) -> None:
            writer.write(given)

        upstream.answer = reply
        request = f"{method} /v1/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer upstream-key\r\n"
        raw = await _raw(worker.port, f"{request}Connection: close\r\n\r\n".encode())
        head, _, body = raw.partition(b"\r\n\r\n")
        assert head.split(b"\r\n")[0] == given.split(b"\r\n")[0]
        assert body == b""
        for line in given.split(b"\r\n")[1:]:
            assert line in raw


async def test_each_chunk_is_passed_on_before_the_next_one_is_made(
    worker: Agent, upstream: Upstream
) -> None:
    received = asyncio.Event()

    async def stream(_: Request, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for word in (b"one", b"two", b"three"):
            writer.write(chunk(word))
            await asyncio.wait_for(received.wait(), DEADLINE_S)
            received.clear()
        writer.write(chunk(b""))

    upstream.answer = stream
    async with worker.http.post(f"{worker.url}{CHAT}", headers=KEY, json={}) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        words = []
        while word := await asyncio.wait_for(answer.content.readany(), DEADLINE_S):
            words.append(word)
            received.set()
    assert words == [b"one", b"two", b"three"]


async def test_a_client_that_goes_away_cancels_the_model_server_at_once(
    worker: Agent, upstream: Upstream
) -> None:
    gone_at = asyncio.get_running_loop().create_future()

    async def endless(
        _: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(STREAM_HEAD + chunk(b"one"))
        await reader.read()
        gone_at.set_result(time.monotonic())

    upstream.answer = endless
    async with worker.http.post(f"{worker.url}{CHAT}", headers=KEY, json={}) as answer:
        await answer.content.readany()
        left_at = time.monotonic()
        answer.close()
        assert await asyncio.wait_for(gone_at, DEADLINE_S) - left_at < 0.5
    assert 'requests_total{status="aborted"} 1' in (await worker.get("/metrics"))[1]
    assert "worker_requests_running 0" in (await worker.get("/metrics"))[1]


async def test_a_client_that_goes_away_before_the_first_byte_cancels_too(
    worker: Agent, upstream: Upstream
) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def silent(_: Request, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        gone.set()

    upstream.answer = silent
    call = asyncio.create_task(worker.http.post(f"{worker.url}{CHAT}", headers=KEY, json={}))
    await asyncio.wait_for(asked.wait(), DEADLINE_S)
    call.cancel()
    await asyncio.wait_for(gone.wait(), DEADLINE_S)


async def test_a_stream_the_model_server_breaks_off_is_not_ended_cleanly(
    worker: Agent, upstream: Upstream
) -> None:
    async def cut(_: Request, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(b"half"))
        await writer.drain()
        writer.close()

    upstream.answer = cut
    async with worker.http.post(f"{worker.url}{CHAT}", headers=KEY, json={}) as answer:
        assert await answer.content.readany() == b"half"
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_worker_that_is_not_ready_sends_the_gateway_elsewhere(
    tmp_path: Path, admission: Admission
) -> None:
    async with agent(
        tmp_path, admission_url=admission.url, vllm_url="http://127.0.0.1:9"
    ) as running:
        await admission.until(lambda: bool(admission.heartbeats))
        async with running.http.post(f"{running.url}{CHAT}", headers=KEY, json={}) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert (await answer.json())["error"]["code"] == "not_ready"


async def test_a_model_server_that_has_just_gone_sends_the_gateway_elsewhere(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await admission.until_ready()
        upstream.close()
        async with running.http.post(f"{running.url}{CHAT}", headers=KEY, json={}) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert (await answer.json())["error"]["code"] == "model_server_away"


async def test_a_request_the_model_server_drops_is_dropped(
    worker: Agent, upstream: Upstream
) -> None:
    async def drop(_: Request, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    upstream.answer = drop
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await worker.http.post(f"{worker.url}{CHAT}", headers=KEY, json={})
    assert 'requests_total{status="aborted"} 1' in (await worker.get("/metrics"))[1]


STRANGERS: list[tuple[dict[str, str], int, str]] = [
    ({}, 401, "no_key"),
    ({"Authorization": "Basic upstream-key"}, 401, "no_key"),
    ({"Authorization": "Bearer shared"}, 403, "wrong_key"),
    ({"Authorization": "Bearer upstream-keyé"}, 403, "wrong_key"),
    ({"Authorization": "Bearer upstream-ke"}, 403, "wrong_key"),
]


async def test_only_the_upstream_key_opens_the_model_and_the_drain(
    worker: Agent, upstream: Upstream
) -> None:
    for headers, status, code in STRANGERS:
        async with worker.http.post(f"{worker.url}{CHAT}", headers=headers, json={}) as answer:
            seen = (answer.status, (await answer.json())["error"]["code"])
        assert seen == (status, code), headers
        async with worker.http.post(f"{worker.url}/drain", headers=headers) as answer:
            assert (answer.status, answer.content_type) == (status, "application/problem+json")
    assert not upstream.requests
    assert (await worker.get("/readyz"))[0] == 200


async def test_a_body_above_the_limit_is_refused_and_goes_nowhere(
    worker: Agent, upstream: Upstream
) -> None:
    body = io.BytesIO(b"x" * (32 * 2**20 + 1))
    async with worker.http.post(f"{worker.url}{CHAT}", headers=KEY, data=body) as answer:
        assert answer.status == 413
        assert (await answer.json())["error"]["code"] == "body_too_large"
    assert not upstream.requests


async def test_the_model_servers_own_key_replaces_the_callers(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    upstream.key = "model-key"
    async with agent(
        tmp_path,
        admission_url=admission.url,
        vllm_url=f"{upstream.url}/v1",
        VESTIBULE_VLLM_KEY="model-key",
    ) as running:
        await admission.until_ready()
        async with running.http.post(f"{running.url}{CHAT}", headers=KEY, data=b"{}") as answer:
            assert await answer.read() == b"{}"
    assert upstream.requests[0].header("Authorization") == ["Bearer model-key"]
