"""A ticket's changes, for a frontend: as a stream tells them, and where none passes as polls do.

Knows how long to believe a silent stream, and how often to look without one. What is wrong, if
anything is, the next look says: a stream that fails only ends.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress

import aiohttp
import msgspec

from admission.client_calls import Ticket
from admission.domain import Status

SNAPSHOT_S = 5.0  # a stream that tells nothing for so long at its start is held back by a proxy
SILENCE_S = 40.0  # the service pings its streams every 15 s
STREAM_S = 600.0  # then one look in between: it renews a user token, which lives for an hour
STREAM_AGAIN_S = (60.0, 90.0)  # so long there are polls only, after a stream that told nothing
REOPEN_S = (0.5, 2.5)  # after one that was cut: chosen between, so that not all come at once

POLL_S = 5.0  # where the service does not say when: well inside a draft of 300 s, a grace of 60 s
POLL_JITTER = (1.0, 1.2)

Open = Callable[[], Awaitable[aiohttp.ClientResponse]]
Look = Callable[[], Awaitable[Ticket]]


async def follow(open_: Open, look: Look) -> AsyncGenerator[Ticket, None]:
    """The ticket at once and at each change, its end last.

    Args:
        open_: begins a stream; whatever it raises or answers, polls are the next thing tried.
        look: one poll; what it raises ends this.
    """
    seen: Ticket | None = None
    polls_until_s = 0.0
    while True:
        told = False
        if _now_s() >= polls_until_s:
            async with aclosing(_stream(open_)) as stream:
                async for ticket in stream:
                    told = True
                    if ticket != seen:
                        seen = ticket
                        yield ticket
                    if ticket.status is Status.DISCONNECTED:
                        return
            if told:
                await asyncio.sleep(random.uniform(*REOPEN_S))
            else:
                polls_until_s = _now_s() + random.uniform(*STREAM_AGAIN_S)
        ticket = await look()
        if ticket != seen:
            seen = ticket
            yield ticket
        if ticket.status is Status.DISCONNECTED:
            return
        if not told:
            await asyncio.sleep(pause_s(ticket))


def pause_s(ticket: Ticket) -> float:
    """How long to wait before the next poll: as the service says, which knows how near the front
    this is (``polling``), and a little longer by chance, as it says whole seconds."""
    return (ticket.again_in or POLL_S) * random.uniform(*POLL_JITTER)


async def _stream(open_: Open) -> AsyncGenerator[Ticket, None]:
    """What one stream tells until it ends, for whatever reason."""
    end_s, silent_s = _now_s() + STREAM_S, _now_s() + SNAPSHOT_S
    with suppress(aiohttp.ClientError, TimeoutError, ValueError, msgspec.DecodeError):
        async with asyncio.timeout_at(silent_s):
            answer = await open_()
        try:
            if answer.status != 200 or answer.content_type != "text/event-stream":
                return
            event, data, told = b"", b"", False
            while True:
                async with asyncio.timeout_at(min(silent_s, end_s)):
                    line = await answer.content.readline()
                name, _, value = line.strip().partition(b":")
                if not line:
                    return
                if name == b"event":
                    event = value.strip()
                elif name == b"data":
                    data = value.strip()
                elif not line.strip() and event == b"ticket":  # the event is whole
                    yield msgspec.json.decode(data, type=Ticket)
                    event, told = b"", True
                if told:
                    silent_s = _now_s() + SILENCE_S
        finally:
            answer.close()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
