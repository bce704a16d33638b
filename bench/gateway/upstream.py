"""The canned model server: ``python -m bench.gateway.upstream PORT``.

Raw HTTP/1.1 on uvloop, so that it is never what limits a gateway: prepared bytes, one write for an
answer. A streamed answer has the pace that ``GET /pace/FIRST_MS/BETWEEN_MS/CHUNKS`` set last;
without one all of it comes at once. Each chunk carries the moment it was sent, ``@`` and 15 digits
of the machine's monotonic clock in microseconds, so that its reader knows how late it is.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import cast

import uvloop

MODEL = "canned"
MARK, DIGITS = b"@", 15
CHUNKS = 50

_FINISH = '"choices":[{"index":0,"delta":{},"finish_reason":"length"}]'
_USAGE = {"prompt_tokens": 300, "completion_tokens": CHUNKS, "total_tokens": 300 + CHUNKS}
_HEAD = (
    '{"id":"chatcmpl-0f8b6d1c2a3e4f5a","object":"chat.completion.chunk","created":1767225600,'
    f'"model":"{MODEL}",'
)


def _event(rest: str) -> bytes:
    """One event of a stream, as one chunk of HTTP/1.1."""
    data = f"data: {rest}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


_STAMP = "@" + "0" * DIGITS
_DELTA = _event(
    f'{_HEAD}"choices":[{{"index":0,"delta":{{"content":"{_STAMP}"}},"logprobs":null,'
    '"finish_reason":null}]}'
)
_BEFORE, _, _AFTER = _DELTA.partition(_STAMP.encode())
_LAST = _event(_HEAD + _FINISH + "}")
_COUNTED = _event(_HEAD + f'"choices":[],"usage":{json.dumps(_USAGE)}' + "}")
_DONE = _event("[DONE]") + b"0\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def _whole(body: object) -> bytes:
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
    return head.encode() + b"\r\n\r\n" + text


_PLAIN = _whole(
    {
        "id": "chatcmpl-0f8b6d1c2a3e4f5a",
        "object": "chat.completion",
        "created": 1767225600,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "y" * 200},
                "finish_reason": "stop",
            }
        ],
        "usage": _USAGE,
    }
)
_MODELS = _whole({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0}]})


@dataclass
class Pace:
    """How streamed answers come; 0 and 0: all at once."""

    first_s: float = 0.0
    between_s: float = 0.0
    chunks: int = CHUNKS


class Answers(asyncio.Protocol):
    """One connection."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._read = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, gap, body = self._read.partition(b"\r\n\r\n")
        if not gap or len(body) < _length(head):
            return
        self._read = b""
        if head.startswith(b"GET /pace/"):
            self._set_pace(head)
        elif head.startswith(b"GET "):
            self._write(_MODELS)
        elif b'"stream": true' in body or b'"stream":true' in body:
            self._stream(counted=b'"include_usage":true' in body.replace(b" ", b""))
        else:
            self._write(_PLAIN)

    def _set_pace(self, head: bytes) -> None:
        first_ms, between_ms, chunks = head.split(b" ", 2)[1].split(b"/")[2:]
        pace = self._pace
        pace.first_s, pace.between_s = int(first_ms) / 1000, int(between_ms) / 1000
        pace.chunks = int(chunks)
        self._write(_MODELS)

    def _stream(self, *, counted: bool) -> None:
        pace, end = self._pace, _LAST + (_COUNTED if counted else b"") + _DONE
        if not pace.between_s:
            chunk = _BEFORE + _stamp() + _AFTER
            return self._write(_STREAM_HEAD + chunk * pace.chunks + end)
        self._write(_STREAM_HEAD)
        due, left = self._loop.time() + pace.first_s, pace.chunks

        def send() -> None:
            nonlocal due, left
            if self._transport is None:
                return
            left -= 1
            self._transport.write(_BEFORE + _stamp() + _AFTER)
            if left:
                due += pace.between_s
                self._loop.call_at(due, send)
            else:
                self._transport.write(end)

        self._loop.call_at(due, send)
        return None

    def _write(self, data: bytes) -> None:
        assert self._transport
        self._transport.write(data)


def _stamp() -> bytes:
    return b"@%0*d" % (DIGITS, time.monotonic_ns() // 1000)


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0] or 0)


async def _serve(port: int) -> None:
    pace = Pace()
    server = await asyncio.get_running_loop().create_server(
        lambda: Answers(pace), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
