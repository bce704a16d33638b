"""The gateway's own connections to workers, over real sockets, with a server told what to send."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from admission.gateway.connection import (
    UNREAD_BYTES_MAX,
    Answer,
    Connections,
    Disconnected,
    Limits,
    NotConnected,
    Silence,
)
from admission.gateway.framing import Unreadable
from tests.conftest import DEADLINE_S
from tests.ports import free_port

LIMITS = Limits(connect_s=2, silence_s=5, total_s=10, idle_s=4, head_bytes=8_192)
SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Sends what a test says, for each request the next of ``answers``; ``closes`` behind it."""

    def __init__(self, *answers: bytes, closes: bool = False) -> None:
        self.answers, self.closes = list(answers), closes
        self.requests: list[bytes] = []
        self.connections = 0
        self.lost = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                length = int(request.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.requests.append(request + await reader.readexactly(length))
                writer.write(self.answers.pop(0))
                await writer.drain()
                if self.closes:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.lost.set()
            writer.close()


@asynccontextmanager
async def serving(*answers: bytes, closes: bool = False) -> AsyncIterator[Server]:
    server = Server(*answers, closes=closes)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield server
    listening.close()


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    made = Connections(LIMITS)
    yield made
    await made.close()


async def ask(connections: Connections, url: str, **headers: str) -> Answer:
    return await connections.request(
        url, "POST", "/v1/x?a=%20", headers={"A": "b", **headers}, body=b"body"
    )


async def whole(answer: Answer) -> bytes:
    async with answer:
        return b"".join([piece async for piece in answer])


async def test_a_request_goes_out_as_it_is_and_its_answer_comes_back(
    connections: Connections,
) -> None:
    async with serving(b"HTTP/1.1 100 Continue\r\n\r\n" + SHORT) as server:
        answer = await ask(connections, server.url)
        assert (answer.status, answer.headers["content-length"]) == (200, "2")
        assert await whole(answer) == b"ok"
        host = server.url.removeprefix("http://")
        assert server.requests == [
            f"POST /v1/x?a=%20 HTTP/1.1\r\nHost: {host}\r\nA: b\r\nContent-Length: 4\r\n\r\n"
            "body".encode()
        ]


async def test_a_connection_is_used_again_and_only_when_its_answer_was_whole(
    connections: Connections,
) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf"
    async with serving(SHORT, SHORT, half, SHORT) as server:
        assert await whole(await ask(connections, server.url)) == b"ok"
        assert await whole(await ask(connections, server.url)) == b"ok"
        assert server.connections == 1
        async with await ask(connections, server.url) as answer:
            assert await anext(answer) == b"half"
        async with asyncio.timeout(0.1 + DEADLINE_S / 10):
            await server.lost.wait()  # the worker learns at once that nobody reads on
        assert await whole(await ask(connections, server.url)) == b"ok"
        assert server.connections == 2


async def test_one_that_says_close_is_not_used_again(connections: Connections) -> None:
    closing = SHORT.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with serving(closing, SHORT) as server:
        for _ in range(2):
            assert await whole(await ask(connections, server.url)) == b"ok"
        assert server.connections == 2


async def test_one_that_was_idle_for_long_is_not_used_again() -> None:
    connections = Connections(LIMITS._replace(idle_s=0.05))
    async with serving(SHORT, SHORT) as server:
        assert await whole(await ask(connections, server.url)) == b"ok"
        async with asyncio.timeout(DEADLINE_S):
            await server.lost.wait()  # it is closed, though nobody asks
        assert await whole(await ask(connections, server.url)) == b"ok"
        assert server.connections == 2
    await connections.close()


async def test_pieces_come_as_they_are_sent(connections: Connections) -> None:
    begin = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
    go = asyncio.Event()

    async def two_steps(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        await go.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(two_steps, "127.0.0.1", 0)
    answer = await ask(connections, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    pieces = aiter(answer)
    assert await anext(pieces) == b"one"
    go.set()
    assert await anext(pieces) == b"two"
    assert [piece async for piece in pieces] == []
    server.close()


async def test_without_a_length_the_end_of_the_connection_is_the_bodys(
    connections: Connections,
) -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n\r\nall of it", closes=True) as server:
        assert await whole(await ask(connections, server.url)) == b"all of it"


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", Disconnected),
        (b"HTTP/1.1 200 OK\r\nConte", Disconnected),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", Unreadable),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", Unreadable),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, Unreadable),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 9_000 + b"\r\n\r\n", Unreadable),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 9_000, Unreadable),
    ],
)
async def test_what_is_no_answer_is_an_error(
    connections: Connections, sent: bytes, error: type[Exception]
) -> None:
    async with serving(sent, closes=True) as server:
        with pytest.raises(error):
            await ask(connections, server.url)


async def test_nobody_listens(connections: Connections) -> None:
    with pytest.raises(NotConnected):
        await ask(connections, f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    "half",
    [
        b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
        b"Content-Length: 9\r\n\r\none",
    ],
)
async def test_half_an_answer_is_given_and_then_an_error(
    connections: Connections, half: bytes
) -> None:
    async with (
        serving(b"HTTP/1.1 200 OK\r\n" + half, closes=True) as server,
        await ask(connections, server.url) as answer,
    ):
        assert await anext(answer) == b"one"
        with pytest.raises(Disconnected):
            await anext(answer)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_a_silent_worker_is_given_up(sent: bytes) -> None:
    connections = Connections(LIMITS._replace(silence_s=0.05))
    async with serving(sent) as server:
        with pytest.raises(Silence):
            await whole(await ask(connections, server.url))
    await connections.close()


async def test_a_reader_that_is_slow_stops_the_worker(connections: Connections) -> None:
    size = 40 * UNREAD_BYTES_MAX
    sent = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    async with serving(sent) as server:
        async with await ask(connections, server.url) as answer:
            await asyncio.sleep(0.1)
            pieces = aiter(answer)
            first = await anext(pieces)
            assert len(first) < size / 2
            rest = [len(piece) async for piece in pieces]
        assert len(first) + sum(rest) == size


async def test_a_header_cannot_smuggle_another(connections: Connections) -> None:
    for value in ("1\r\nEvil: 2", "1\nEvil: 2", "1\rEvil: 2", "1\0"):
        with pytest.raises(ValueError, match="line end"):
            await ask(connections, "http://127.0.0.1:1", Bad=value)


async def test_a_caller_who_goes_away_closes_the_connection(connections: Connections) -> None:
    async with serving(b"") as server:
        asking = asyncio.create_task(ask(connections, server.url))
        async with asyncio.timeout(DEADLINE_S):
            while not server.requests:  # noqa: ASYNC110 - it comes over a socket
                await asyncio.sleep(0.01)
            asking.cancel()
            await server.lost.wait()


async def test_one_given_up_while_it_connects_is_forgotten(connections: Connections) -> None:
    """At whatever turn of the loop: uvloop tells such a one that it begins, but of no end."""
    async with serving(*[SHORT] * 20) as server:
        for turns in range(20):
            asking = asyncio.create_task(ask(connections, server.url))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await connections.close()  # those that were connected hear it; the test's end closes again
        assert not connections._open


async def test_what_was_not_read_of_an_answer_is_not_the_next_ones(
    connections: Connections,
) -> None:
    async with serving(SHORT.replace(b"ok", b"my"), SHORT) as server:
        async with await ask(connections, server.url) as answer:
            assert answer.status == 200  # and nobody reads the rest, which has come
            await asyncio.sleep(0.05)
        assert await whole(await ask(connections, server.url)) == b"ok"


async def test_an_answer_without_a_length_that_we_gave_up_is_not_whole() -> None:
    connections = Connections(LIMITS._replace(silence_s=0.05))
    async with (
        serving(b"HTTP/1.1 200 OK\r\n\r\nhalf") as server,
        await ask(connections, server.url) as answer,
    ):
        pieces = aiter(answer)
        assert await anext(pieces) == b"half"
        await asyncio.sleep(0.2)  # its reader is busy meanwhile
        with pytest.raises(Silence):
            await anext(pieces)


async def test_a_service_that_stops_cuts_an_answer_without_a_length() -> None:
    connections = Connections(LIMITS)
    async with (
        serving(b"HTTP/1.1 200 OK\r\n\r\nhalf") as server,
        await ask(connections, server.url) as answer,
    ):
        pieces = aiter(answer)
        assert await anext(pieces) == b"half"
        await connections.close()
        with pytest.raises(Disconnected):
            await anext(pieces)


async def test_one_whose_request_is_not_out_yet_is_not_used_again(
    connections: Connections,
) -> None:
    made: list[asyncio.StreamWriter] = []

    async def early(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.append(writer)
        writer.write(SHORT)  # before the request was read, which it never is

    server = await asyncio.start_server(early, "127.0.0.1", 0, limit=1024)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for _ in range(2):
        answer = await connections.request(url, "POST", "/", headers={}, body=b"x" * 20_000_000)
        assert await whole(answer) == b"ok"
    assert len(made) == 2
    for writer in made:
        writer.close()
    server.close()


async def test_close_may_stand_in_a_second_line(connections: Connections) -> None:
    lines = b"\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"
    async with serving(SHORT.replace(b"\r\n\r\n", lines), SHORT) as server:
        for _ in range(2):
            assert await whole(await ask(connections, server.url)) == b"ok"
        assert server.connections == 2
