"""What else may stand at admission's address, or be wrong with it: the user reads one plain
sentence in a known time, nothing grows, and a chat that may go on does."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress

import pytest

from tests.owui.conftest import WebUI

AWAY = "The waiting line cannot be reached right now. Please try again in a minute."
CALL_S, STOP_S = 0.3, 0.2  # instead of CALL_TIMEOUT_S, STOP_WITHIN_S
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
READ_BYTES = 50_000_000  # what sockets hold back and a reader in a hurry takes; it could take GBs

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


class Stranger:
    """A server that gets the verb of each call and writes whatever it likes."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._calls: set[asyncio.Task[None] | None] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Its address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            calls = [call for call in self._calls if call]
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._calls.add(asyncio.current_task())
        ends = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with suppress(*ends), closing(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
                await reader.readexactly(int(length or 0))
                await self._answer(head.decode().split("/")[2], writer)
                await writer.drain()


def whole(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def ticket(**facts: object) -> bytes:
    told = {"ticket_id": "t", "pool": "default", "status": "waiting", "position": 3, **facts}
    return json.dumps(told).encode()


def says(answer: bytes) -> Answer:
    async def answers(verb: str, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return answers


async def hangs(verb: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hangs_up(verb: str, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b'Content-Length: 500\r\n\r\n{"tick')
    writer.close()
    await writer.wait_closed()


async def trickles(verb: str, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: 500\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


def floods(head: bytes, more: bytes) -> Answer:
    async def answers(verb: str, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(0)

    return answers


STRANGERS = {
    "a page": says(whole(b"<html>It works!</html>")),
    "nothing": says(whole(b"", "204 No Content")),
    "other facts": says(whole(b'{"ok": true}')),
    "a list": says(whole(b"[]")),
    "no number": says(whole(ticket(estimated_wait=float("nan")))),
    "too deep": says(whole(b"[" * 60_000)),
    "half a letter": says(whole(b'{"ticket_id": "\\udc80"}')),
    "an error's page": says(whole(b"<html>Bad</html>", "401 Unauthorized")),
    "an outage": says(whole(b"{}", "500 Oops")),
    "not found": says(whole(b'{"detail": "Not Found"}', "404 Not Found")),
    "no class": says(whole(b'{"field": "priority"}', "422 Unprocessable Entity")),
    "in circles": says(whole(b"", "302 Found", "Location: /queue/join/ann\r\n")),
    "silence": hangs,
    "half an answer": hangs_up,
    "drop by drop": trickles,
    "headers without end": floods(HEAD, b"X: y\r\n" * 100),
    "a header without end": floods(HEAD + b"X: ", b"y" * 1000),
}


@pytest.fixture
def hurried(webui: WebUI, monkeypatch: pytest.MonkeyPatch) -> WebUI:
    """With shorter limits for each call, and no grace."""
    monkeypatch.setattr(webui.plugin, "CALL_TIMEOUT_S", CALL_S)
    monkeypatch.setattr(webui.plugin, "STOP_WITHIN_S", STOP_S)
    return webui


@pytest.mark.parametrize("who", STRANGERS)
async def test_a_stranger_at_the_address_counts_as_an_outage(hurried: WebUI, who: str) -> None:
    async with Stranger(STRANGERS[who]).listening() as url:
        hurried.set(admission_url=url)
        assert await hurried.chat("ann").refusal() == AWAY
        hurried.set(when_admission_is_away="pass")
        await hurried.chat("ann").is_answered()


@pytest.mark.parametrize("address", ["http://{host}", "http://nobody.invalid", "https://"])
async def test_an_address_of_nobody_counts_as_an_outage(webui: WebUI, address: str) -> None:
    valves = webui.gate.valves
    valve = "https" + webui.service.url.removeprefix("http") if address == "https://" else address
    webui.gate.valves = valves.model_copy(update={"admission_url": valve})
    assert await webui.chat("ann").refusal() == AWAY


async def test_an_answer_without_end_is_not_read_to_its_end(hurried: WebUI) -> None:
    written = 0

    async def answers(verb: str, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(HEAD + b"\r\n")
        while True:
            writer.write(b" " * 65_536)
            written += 65_536
            await writer.drain()

    async with Stranger(answers).listening() as url:
        hurried.set(admission_url=url)
        assert await hurried.chat("ann").refusal() == AWAY
    assert written < READ_BYTES


async def test_a_refusal_with_a_time_that_is_none_is_told_without_it(webui: WebUI) -> None:
    full = whole(b'{"code": "queue_full"}', "503 Full", "Retry-After: \u00b2\r\n")
    async with Stranger(says(full)).listening() as url:
        webui.set(admission_url=url)
        told = "The line is full. Please try again in a minute."
        assert await webui.chat("ann").refusal() == told


async def _pings(verb: str, writer: asyncio.StreamWriter) -> None:
    await floods(STREAM, b": ping\n\n")(verb, writer)


@pytest.mark.parametrize(
    "events",
    [
        hangs,
        _pings,
        says(whole(b"{}", "404 Not Found")),
        says(whole(b"<html>It works!</html>")),
        says(STREAM + b"event: ticket\ndata: {}\n\n"),
        floods(STREAM, b"x" * 65_536),
    ],
    ids=["silence", "pings alone", "not found", "a page", "no ticket", "one line"],
)
async def test_where_the_stream_tells_nothing_the_place_is_asked_for(
    webui: WebUI, monkeypatch: pytest.MonkeyPatch, events: Answer
) -> None:
    async def answers(verb: str, writer: asyncio.StreamWriter) -> None:
        if verb == "events":
            await events(verb, writer)
        else:
            writer.write(whole(ticket(position=3 if verb == "join" else 2)))

    monkeypatch.setattr(webui.plugin, "SNAPSHOT_WITHIN_S", 0.2)
    async with Stranger(answers).listening() as url:
        webui.set(admission_url=url)
        ann = webui.chat("ann")
        await ann.sees("You are 2nd in line")
        await ann.stop()
        assert ann.statuses == ["You are 3rd in line", "You are 2nd in line", "You left the line."]


async def test_an_admission_that_falls_silent_is_noticed(
    hurried: WebUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its machine lost power: no connection ends, and nothing comes any more."""
    fell = False

    async def answers(verb: str, writer: asyncio.StreamWriter) -> None:
        nonlocal fell
        if fell:
            await hangs(verb, writer)
        elif verb == "events":
            writer.write(STREAM + b"event: ticket\ndata: " + ticket() + b"\n\n")
            fell = True
        else:
            writer.write(whole(ticket()))

    monkeypatch.setattr(hurried.plugin, "SILENCE_S", 0.5)
    async with Stranger(answers).listening() as url:
        hurried.set(admission_url=url)
        assert await hurried.chat("ann").refusal() == AWAY


async def test_stop_waits_only_so_long_for_an_admission_that_hangs(
    webui: WebUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webui.plugin, "STOP_WITHIN_S", STOP_S)
    async with Stranger(hangs).listening() as url:
        webui.set(admission_url=url)
        ann = webui.chat("ann")
        await asyncio.sleep(0.1)
        async with asyncio.timeout(webui.plugin.CALL_TIMEOUT_S - 1):
            await ann.stop()
        assert ann.task.cancelled()


async def test_an_outage_is_told_while_the_grace_for_it_lasts(hurried: WebUI) -> None:
    async with Stranger(hangs).listening() as url:
        hurried.set(admission_url=url, away_grace_s=1)
        ann = hurried.chat("ann")
        assert await ann.refusal() == AWAY
        assert ann.statuses == ["The waiting line is not responding. Trying again.", ""]
        assert (ann.last["done"], ann.last["hidden"]) == (True, True)
