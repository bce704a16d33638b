"""Chats from many connections, in a process of its own: ``python -m bench.gateway.callers``.

Takes one line of JSON, the name of a job here and its arguments, and prints its result as one.
"""

import asyncio
import json
import random
import sys
import time
from contextlib import suppress
from functools import partial
from itertools import count, cycle
from statistics import quantiles
from typing import Any, cast

import uvloop

from bench.gateway.upstream import DIGITS, MARK, MODEL
from bench.load import WARM_S, Caller, Refused, until

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 1_300}]}
PER_USER = 4  # connections of one user: as many as a session runs at once
LATE_MS = 100.0  # p99 of a chunk: then the gateway falls behind
MISSING = 0.05  # of the chunks that were due; the same
SETTLE_S, LOOK_S, OPEN_S = 0.4, 1.0, 0.7
STREAMS_FIRST, STREAMS_MAX = 300, 3_500
CLIMB_S = 18.0  # then the best so far counts
COARSE, FINE = 1.5, 1.05


def request(key: str, number: int, *, stream: bool) -> bytes:
    """The bytes of one chat of the ``number``-th connection."""
    body = json.dumps({**BODY, "stream": True} if stream else BODY).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
        f"Authorization: Bearer {key}\r\nX-OpenWebUI-User-Id: {user(number)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def user(number: int) -> str:
    """Whose the ``number``-th connection is."""
    return f"u{number // PER_USER}"


async def closed(  # noqa: PLR0913 - one load
    ports: list[int],
    key: str,
    *,
    stream: bool,
    connections: int,
    seconds: float,
    spread_s: float = 0.0,
) -> dict[str, float]:
    """Each connection asks as soon as it was answered: ``rate`` a second, ``p50_ms`` and ``p99_ms``
    until the first token (the whole answer, when not streamed), and ``answers`` in all.
    ``spread_s``: the connections begin one after the other within it, so that answers which take
    as long do not begin all at once, again and again.

    Raises:
        Refused: a call was not answered with 200.
    """
    first: list[float] = []
    answers = count()
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()
    turn = cycle(ports)

    def answered(first_s: float, _: float) -> None:
        next(answers)
        first.append(first_s * 1000)

    def caller(number: int) -> Caller:
        asked = request(key, number, stream=stream)
        return Caller(lambda: asked, answered, failed, mark=MARK if stream else b"")

    made = []
    for n in range(connections):
        made.append(await loop.create_connection(partial(caller, n), "127.0.0.1", next(turn)))
        await asyncio.sleep(spread_s / connections)
    await until(failed, WARM_S)
    first.clear()
    start_s = time.perf_counter()
    await until(failed, seconds)
    rate = len(first) / (time.perf_counter() - start_s)
    for transport, _ in made:
        transport.abort()
    p50_ms, p99_ms = percentiles(first)
    return {"rate": rate, "p50_ms": p50_ms, "p99_ms": p99_ms, "answers": next(answers)}


class Held(asyncio.Protocol):
    """One long stream: how many chunks came, and how late each piece's last one was."""

    def __init__(self, asked: bytes, late_us: list[int], opened: list["Held"]) -> None:
        self._asked, self._late_us, self._opened = asked, late_us, opened
        self.chunks = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        at = data.rfind(MARK)
        stamp = data[at + 1 : at + 1 + DIGITS]
        if at < 0 or len(stamp) < DIGITS:  # cut between two packets
            return
        if not self.chunks:
            self._opened.append(self)
        self.chunks += data.count(MARK)
        self._late_us.append(time.monotonic_ns() // 1000 - int(stamp))


class Crowd:
    """Streams that stay open."""

    def __init__(self, ports: list[int], key: str) -> None:
        self._ports, self._key = cycle(ports), key
        self._all: list[Held] = []
        self.late_us: list[int] = []
        self.opened: list[Held] = []

    async def grow(self, wanted: int) -> None:
        """Open or cut streams until there are ``wanted``."""
        while len(self._all) > wanted:
            held = self._all.pop()
            if held.transport:
                held.transport.abort()
        # Each by itself: where the machine is late already, one after the other would take minutes.
        await asyncio.gather(*(self._open(n) for n in range(len(self._all), wanted)))

    async def _open(self, number: int) -> None:
        port = next(self._ports)
        await asyncio.sleep(random.uniform(0, OPEN_S))
        asked = request(self._key, number, stream=True)
        held = Held(asked, self.late_us, self.opened)
        await asyncio.get_running_loop().create_connection(lambda: held, "127.0.0.1", port)
        self._all.append(held)

    async def keeps_up(self, streams: int, per_second: float) -> bool:
        """Does every chunk of so many streams come in time?"""
        await self.grow(streams)
        await asyncio.sleep(SETTLE_S)
        self.late_us.clear()
        before, start_s = self._chunks(), time.perf_counter()
        await asyncio.sleep(LOOK_S)
        got, taken_s = self._chunks() - before, time.perf_counter() - start_s
        due = streams * per_second * taken_s
        p99_ms = percentiles([us / 1000 for us in self.late_us])[1]
        return p99_ms <= LATE_MS and got >= (1 - MISSING) * due

    async def recover(self, streams: int) -> None:
        """Back to a number that was carried; what is late comes first."""
        await self.grow(streams)
        for _ in range(10):
            self.late_us.clear()
            await asyncio.sleep(0.3)
            if percentiles([us / 1000 for us in self.late_us])[1] < LATE_MS / 4:
                return

    def _chunks(self) -> int:
        return sum(held.chunks for held in self._all)


async def climb(ports: list[int], key: str, *, per_second: float) -> int:
    """How many streams of so many chunks a second are carried, to within 5 %."""
    crowd, good, bad, streams = Crowd(ports, key), 0, 0, STREAMS_FIRST
    ends_s = time.perf_counter() + CLIMB_S
    while 4 < streams <= STREAMS_MAX and time.perf_counter() < ends_s:
        if await crowd.keeps_up(streams, per_second):
            good = streams
        else:
            bad = streams
            await crowd.recover(good)
        if good and bad:
            if bad / good <= FINE:
                break
            streams = round((good * bad) ** 0.5)
        else:
            streams = round(streams * COARSE if good else streams / COARSE)
    return good


async def hold(ports: list[int], key: str, *, streams: int) -> None:
    """Open so many streams, say ``open`` when each has begun, stay until standard input ends."""
    crowd = Crowd(ports, key)
    await crowd.grow(streams)
    with suppress(TimeoutError):
        async with asyncio.timeout(15):
            while len(crowd.opened) < streams:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    print("open", len(crowd.opened), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def percentiles(values: list[float]) -> tuple[float, float]:
    """The median and the 99th; infinite when there is none."""
    if len(values) < 2:
        return (values[0],) * 2 if values else (float("inf"),) * 2
    hundredths = quantiles(values, n=100)
    return hundredths[49], hundredths[98]


JOBS = {"closed": closed, "climb": climb, "hold": hold}


def main() -> None:
    """Read one job, do it, print what came of it."""
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    job = JOBS[given.pop("job")]
    try:
        found = uvloop.run(job(**given))  # type: ignore[operator]
    except Refused as error:
        sys.exit(str(error))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
