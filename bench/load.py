"""A closed loop of callers in a process of its own: ``python -m bench.load``.

Knows HTTP/1.1 with keep-alive, as little as it takes: what the callers cost must not be what limits
the server. Takes and gives JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from statistics import median

WARM_S = 0.2  # not counted


class Caller(asyncio.Protocol):
    """One connection that asks again as soon as it was answered."""

    def __init__(self, request: Callable[[], bytes], taken: list[float]) -> None:
        self._request = request
        self._taken = taken
        self._answer = b""
        self._transport: asyncio.Transport | None = None
        self._start = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask(transport)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, gap, body = self._answer.partition(b"\r\n\r\n")
        if not gap or len(body) < _length(head):
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(self._answer.decode())
        self._taken.append(time.perf_counter() - self._start)
        assert self._transport
        self._ask(self._transport)

    def _ask(self, transport: asyncio.Transport) -> None:
        self._answer, self._start = b"", time.perf_counter()
        transport.write(self._request())


def _length(head: bytes) -> int:
    _, _, rest = head.partition(b"Content-Length: ")
    return int(rest.partition(b"\r\n")[0])


async def load(
    port: int, method: str, path: str, users: list[str], key: str, *, callers: int, seconds: float
) -> tuple[float, float, int]:
    """Calls per second, the median latency in ms, and the number of all calls, the first included.

    ``path`` holds ``{user}``; each call takes the next of ``users``, again from the first at last.
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
    made = [
        await loop.create_connection(lambda: Caller(request, taken), "127.0.0.1", port)
        for _ in range(callers)
    ]
    await asyncio.sleep(WARM_S)
    taken.clear()
    start = time.perf_counter()
    await asyncio.sleep(seconds)
    rate = len(taken) / (time.perf_counter() - start)
    for transport, _ in made:
        transport.abort()
    return rate, median(taken) * 1000, calls


def main() -> None:
    """Take a line of JSON with the arguments of ``load``, print its result as one."""
    given = json.loads(sys.stdin.readline())
    print(json.dumps(asyncio.run(load(**given))))


if __name__ == "__main__":
    main()
