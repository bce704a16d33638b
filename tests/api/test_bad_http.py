"""What is not even HTTP is refused as every other mistake is, and never logged."""

import asyncio
import json
import logging

import pytest

from tests.conftest import Service

SECRET = "vst-a-key-nobody-may-read"


async def raw(service: Service, request: bytes) -> tuple[int, str, dict[str, object]]:
    """Status, content type and JSON body of the answer to these very bytes."""
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers["Content-Type"], json.loads(body)


@pytest.mark.parametrize(
    ("request_bytes", "field"),
    [
        (f"{SECRET}\r\n\r\n".encode(), "request"),
        (f"GET /queue/status/ada HTTP/9.9\r\nX: {SECRET}\r\n\r\n".encode(), "request"),
        (f"GET /healthz HTTP/1.1\r\n{SECRET} no colon\r\n\r\n".encode(), "request"),
        (
            f"GET /healthz HTTP/1.1\r\nAuthorization: {SECRET}{'x' * 9000}\r\n\r\n".encode(),
            "headers",
        ),
        (f"GET /{'x' * 9000} HTTP/1.1\r\nX: {SECRET}\r\n\r\n".encode(), "headers"),
        (
            b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Encoding: br\r\n"
            b"Content-Length: 2\r\n\r\n{}",
            "Content-Encoding",
        ),
    ],
)
async def test_broken_http_is_a_problem_and_its_text_is_not_logged(
    service: Service, caplog: pytest.LogCaptureFixture, request_bytes: bytes, field: str
) -> None:
    caplog.set_level(logging.DEBUG)
    status, content_type, body = await raw(service, request_bytes)
    assert status == 400
    assert content_type.startswith("application/problem+json")
    assert body["field"] == field
    assert SECRET not in caplog.text
    assert SECRET not in json.dumps(body)
