"""Bytes no honest client sends: they never cost more than a 4xx, and never the process."""

import gzip
import json

import pytest

from tests.api.calls import Caller, caller_of, raw_call
from tests.api.conftest import Served
from tests.api.fleet import ready_worker
from tests.conftest import Service

NASTY = {
    "not JSON": b"{",
    "not UTF-8": b'{"client": "\xff\xfe"}',
    "half a surrogate": b'{"client": "\\ud800"}',
    "half a surrogate as a name": b'{"\\udfff": 1}',
    "NaN": b'{"client": NaN}',
    "infinity": b'{"auto_confirm": -Infinity}',
    "a huge number": b'{"client": ' + b"9" * 6000 + b"}",
    "a huge exponent": b'{"client": 1e999999}',
    "deep lists": b"[" * 60_000,
    "deep objects": b'{"client":' * 5000 + b"1" + b"}" * 5000,
    "null": b"null",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "two values": b"{} {}",
    "zeros": b"\0" * 100,
}


@pytest.mark.parametrize("data", NASTY.values(), ids=NASTY.keys())
@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("POST", "/queue/join/ada", "service-key"),
        ("PUT", "/admin/pools/default", "admin-key"),
        ("POST", "/workers/register", "worker-token"),
        ("POST", "/workers/heartbeat", "of-a-worker"),
    ],
)
async def test_a_nasty_body_is_422(
    call: Caller, method: str, path: str, key: str, data: bytes
) -> None:
    reply = await call.with_key(key)(method, path, data=data)
    assert (reply.status, reply.kind) == (422, "application/problem+json")
    assert reply.fields


@pytest.mark.parametrize(
    "data",
    [*NASTY.values(), b'{"model": "\\ud800"}', b'{"model": 1}', b'{"model": ""}', b"[]", b""],
    ids=[*NASTY, "a model of half a surrogate", "a number", "empty", "list", "nothing"],
)
async def test_a_nasty_chat_is_refused_in_the_envelope(call: Caller, data: bytes) -> None:
    reply = await call(
        "POST", "/v1/chat/completions", data=data, headers={"X-OpenWebUI-User-Id": "ada"}
    )
    assert reply.status == 400
    assert reply.json["error"]["param"] in {"body", "model"}


@pytest.mark.parametrize("value", [b"\xff\xfe", b"caf\xc3\xa9", b"m" * 129])
async def test_a_nasty_message_id_is_400_and_named(service: Service, value: bytes) -> None:
    await ready_worker(service)
    body = b'{"model": "tiny"}'
    answer = await raw_call(
        service,
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Authorization: Bearer service-key\r\nX-OpenWebUI-User-Id: ada\r\n"
        b"X-Vestibule-Message: %b\r\nContent-Length: %d\r\n\r\n%b" % (value, len(body), body),
    )
    assert answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["param"] == "X-Vestibule-Message"


HEADERS = {
    "Authorization": b"Bearer \xff\xfe",
    "X-Request-Id": b"\xff\xfe",
    "Origin": b"\xff\xfe",
    "X-Custom": b"\xff\xfe",
    "Content-Type": b"\xff",
    "Cookie": b"a=\xff; \xfe",
    "Accept": b"\xff",
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("path", ["/queue/status/ada", "/v1/models", "/nowhere"])
async def test_a_header_that_is_no_utf_8_is_no_error_of_ours(
    service: Service, path: str, name: str
) -> None:
    given = {"Authorization": b"Bearer service-key", name: HEADERS[name]}
    lines = b"".join(k.encode() + b": " + v + b"\r\n" for k, v in given.items())
    answer = await raw_call(
        service,
        f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode() + lines + b"\r\n",
    )
    status = int(answer.split()[1])
    assert status < 500
    assert (status == 401) == (name == "Authorization" and path != "/nowhere")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET /queue/status/ada HTTP/9.9\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /queue/join/ada HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (
            b"GET /queue/status/ada?token=%FF%ED HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"401",
        ),
        (
            b"GET /queue/events/ada?token=%FF%ED HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"401",
        ),
        (
            b"GET http://evil/queue/status/ada HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"401",
        ),
    ],
)
async def test_a_broken_request_is_a_4xx(service: Service, sent: bytes, expected: bytes) -> None:
    answer = await raw_call(service, sent)
    assert answer.split()[1] == expected
    assert b"Traceback" not in answer


@pytest.mark.parametrize("path", ["/queue/join/ada", "/v1/chat/completions"])
async def test_a_broken_chunk_or_encoding_is_a_4xx(service: Service, path: str) -> None:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer service-key\r\n"
        "X-OpenWebUI-User-Id: ada\r\nConnection: close\r\n"
    ).encode()
    for sent in (
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        head + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    ):
        answer = await raw_call(service, sent)
        assert 400 <= int(answer.split()[1]) < 500, sent


async def test_a_bomb_of_zeros_is_413(call: Caller) -> None:
    reply = await call(
        "POST",
        "/queue/join/ada",
        data=gzip.compress(b" " * 10_000_000),
        headers={"Content-Encoding": "gzip"},
    )
    assert reply.status == 413


async def test_an_oversized_chat_is_413_in_the_envelope(served: Served) -> None:
    async with served(VESTIBULE_BODY_BYTES_MAX="4096") as service:
        reply = await caller_of(service)(
            "POST",
            "/v1/chat/completions",
            data=b" " * 4097,
            headers={"X-OpenWebUI-User-Id": "ada"},
        )
    assert (reply.status, reply.json["error"]["param"]) == (413, "body")
