"""A closed loop of callers in a process of its own: ``python -m bench.load``.

Knows HTTP/1.1 with keep-alive, as little as it takes, on uvloop: what the callers cost must not be
what limits the server. Takes and gives JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import cast

import uvloop

WARM_S = 0.2  # not counted
_CHUNKED = -1


class Refused(Exception):
    """The server answered with something else than 200."""


class Caller(asyncio.Protocol):
    """One connection that asks again as soon as it was answered."""

    def __init__(
        self,
        request: Callable[[], bytes],
        answered: Callable[[float, float], None],
        failed: asyncio.Future[None],
        *,
        mark: bytes = b"",
    ) -> None:
        """``answered`` gets the seconds until the first bytes with ``mark`` in them, and until the
        answer's end; ``failed`` the answer that is none."""
        self._request, self._answered, self._failed = request, answered, failed
        self._mark = mark
        self._head, self._left = b"", 0  # bytes of the body yet to come, once the head is whole
        self._tail = b""
        self._start_s = self._first_s = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport and not self._transport.is_closing():
            self._fail(b"the connection was closed")

    def data_received(self, data: bytes) -> None:
        if not self._first_s and self._mark in data:
            self._first_s = time.perf_counter()
        if self._tail or self._left:
            body = data
        else:
            self._head += data
            head, gap, body = self._head.partition(b"\r\n\r\n")
            if not gap:
                return
            if not head.startswith(b"HTTP/1.1 200 "):
                self._fail(self._head)
                return
            self._left = _length(head)
        if self._left == _CHUNKED:
            self._tail = (self._tail + body)[-5:] or b" "
            whole = self._tail == b"0\r\n\r\n"
        else:
            self._left -= len(body)
            whole = not self._left
        if whole:
            assert self._transport
            now_s = time.perf_counter()
            self._answered((self._first_s or now_s) - self._start_s, now_s - self._start_s)
            self._ask(self._transport)

    def _ask(self, transport: asyncio.Transport) -> None:
        self._head, self._left, self._tail = b"", 0, b""
        self._start_s, self._first_s = time.perf_counter(), 0.0
        transport.write(self._request())

    def _fail(self, answer: bytes) -> None:
        if not self._failed.done():
            self._failed.set_exception(Refused(answer.decode(errors="replace")[:2_000]))


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length: ")
    return int(rest.partition(b"\r\n")[0]) if rest else _CHUNKED


async def load(
    port: int, method: str, path: str, users: list[str], key: str, *, callers: int, seconds: float
) -> tuple[float, float, int]:
    """Calls per second, the median latency in ms, and the number of all calls, the first included.

    ``path`` holds ``{user}``; each call takes the next of ``users``, again from the first at last.

    Raises:
        Refused: a call was not answered with 200.
    """
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        + ("Content-Length: 0\r\n" if method == "POST" else "")
        + "\r\n"
    )
    calls = 0

    def request() -> bytes:
        nonlocal calls
        calls += 1
        return head.replace("{user}", users[calls % len(users)]).encode()

    taken: list[float] = []
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()
    made = [
        await loop.create_connection(
            lambda: Caller(request, lambda _, whole_s: taken.append(whole_s), failed),
            "127.0.0.1",
            port,
        )
        for _ in range(callers)
    ]
    await until(failed, WARM_S)
    taken.clear()
    start = time.perf_counter()
    await until(failed, seconds)
    rate = len(taken) / (time.perf_counter() - start)
    for transport, _ in made:
        transport.abort()
    return rate, median(taken) * 1000, calls


async def until(failed: asyncio.Future[None], seconds: float) -> None:
    """Let the callers call for so long.

    Raises:
        Refused: one of them was.
    """
    await asyncio.wait({failed}, timeout=seconds)
    if failed.done():
        failed.result()


def main() -> None:
    """Take a line of JSON with the arguments of ``load``, print its result as one."""
    given = json.loads(sys.stdin.readline())
    print(json.dumps(uvloop.run(load(**given))))


if __name__ == "__main__":
    main()
