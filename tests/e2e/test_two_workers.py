"""Knows two real vLLM workers behind one gateway, asked by OpenAI's own SDK while one is killed.

Does not know browsers, nor Open WebUI.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.e2e.server import POLL_S, free_port
from tests.e2e.stack import MODEL, Vestibule, VllmServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from openai import AsyncOpenAI
    from redis.asyncio import Redis

    from tests.e2e.build import Components

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

USERS = 6
STREAM_TOKENS, PAUSE_MS = 100, 20  # some seconds of talk
FORGOTTEN_WITHIN_S = 10.0  # what a killed connection leaves; workers are told of each second


@pytest.fixture
def workers(components: Components, tmp_path: Path) -> Iterator[tuple[VllmServer, VllmServer]]:
    """Both up."""
    with (
        VllmServer(tmp_path, components, "vllm-a") as one,
        VllmServer(tmp_path, components, "vllm-b") as other,
    ):
        yield one, other


@pytest.fixture
def vestibule(workers: tuple[VllmServer, VllmServer], tmp_path: Path) -> Iterator[Vestibule]:
    """One gateway, and a session for everybody; of a worker with 4 slots the bound is 4 streams."""
    upstreams = ",".join(f"{worker.url};slots=4" for worker in workers)
    with Vestibule(tmp_path, free_port(), upstreams, MAX_ACTIVE_USERS=USERS) as server:
        for name in _names():
            body = {"auto_confirm": True}
            server.call("POST", f"/queue/join/{name}", key=server.service_key(), body=body)
        yield server


@pytest.fixture
async def redis(vestibule: Vestibule) -> AsyncIterator[Redis]:
    """What the gateway keeps in."""
    from redis.asyncio import Redis

    from infra import embedded
    from infra.state import StateFolder

    url = embedded.url(StateFolder(vestibule.folder / "state"))
    async with Redis.from_url(url) as client:
        yield client


@pytest.fixture
async def sdk(vestibule: Vestibule) -> AsyncIterator[AsyncOpenAI]:
    """The SDK as it comes, but that it does not ask again by itself."""
    from openai import AsyncOpenAI

    key, base = vestibule.service_key(), f"{vestibule.url}/v1"
    async with AsyncOpenAI(api_key=key, base_url=base, max_retries=0, timeout=120) as client:
        yield client


def _names() -> list[str]:
    return [f"user{number}" for number in range(USERS)]


class Stream:
    """One streamed answer, in its own conversation."""

    def __init__(self, sdk: AsyncOpenAI, user: str) -> None:
        self._sdk, self._user = sdk, user
        self.begun = asyncio.Event()
        self.pieces = 0

    async def run(self) -> str | None:
        """Why it ended: the model's reason, or the error's name."""
        from httpx2 import HTTPError
        from openai import APIError

        reason: str | None = None
        try:
            answer = await self._sdk.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": f"I am {self._user}, tell me much."}],
                stream=True,
                max_tokens=STREAM_TOKENS,
                extra_headers={"X-OpenWebUI-User-Id": self._user},
                extra_body={"min_tokens": STREAM_TOKENS, "vllm_xargs": {"pause_ms": PAUSE_MS}},
            )
            async for chunk in answer:
                self.pieces += 1
                self.begun.set()
                reason = chunk.choices[0].finish_reason or reason
        except (APIError, HTTPError) as error:  # the second where the connection is cut
            reason = type(error).__name__
        self.begun.set()
        return reason


class ShortCalls:
    """Whole answers, one after the other, of one user."""

    def __init__(self, sdk: AsyncOpenAI, user: str) -> None:
        self._sdk, self._user = sdk, user
        self.answered = 0
        self.over = asyncio.Event()

    async def run(self) -> None:
        while not self.over.is_set():
            answer = await self._sdk.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": f"{self._user}, {self.answered}"}],
                max_tokens=4,
                extra_headers={"X-OpenWebUI-User-Id": self._user},
            )
            assert answer.choices[0].message.content
            self.answered += 1


async def test_killing_a_worker_loses_only_the_streams_it_had_begun(
    workers: tuple[VllmServer, VllmServer], vestibule: Vestibule, sdk: AsyncOpenAI, redis: Redis
) -> None:
    victim, survivor = workers
    streams = [Stream(sdk, name) for name in _names()]
    ended = [asyncio.create_task(stream.run()) for stream in streams]
    for stream in streams:
        await asyncio.wait_for(stream.begun.wait(), 60)
    begun = {worker.name: worker.running() for worker in workers}
    assert sum(begun.values()) == USERS
    assert min(begun.values()) > 0, begun

    calls = [ShortCalls(sdk, name) for name in _names()]
    calling = [asyncio.create_task(call.run()) for call in calls]
    await _until(lambda: all(call.answered for call in calls))
    before = [call.answered for call in calls]
    victim.kill()
    reasons = await asyncio.gather(*ended)
    await _until(lambda: all(c.answered > b + 3 for c, b in zip(calls, before, strict=True)))
    for call in calls:
        call.over.set()
    await asyncio.gather(*calling)  # none of them failed

    assert reasons.count("length") == begun[survivor.name], reasons
    cut = [s for s, why in zip(streams, reasons, strict=True) if why != "length"]
    assert len(cut) == begun[victim.name]
    assert all(0 < stream.pieces < STREAM_TOKENS for stream in cut)
    await survivor.is_idle(FORGOTTEN_WITHIN_S)
    await _nothing_is_left(redis)

    victim.start()
    await _until(lambda: vestibule.call("GET", "/readyz")["workers"]["ready"] == 2)
    again = [Stream(sdk, name) for name in _names()]
    running = [asyncio.create_task(stream.run()) for stream in again]
    for stream in again:
        await asyncio.wait_for(stream.begun.wait(), 60)
    assert victim.running() > 0
    assert set(await asyncio.gather(*running)) == {"length"}
    await _nothing_is_left(redis)


async def _nothing_is_left(redis: Redis) -> None:
    """No request counts anywhere: neither for a worker nor in a session."""
    deadline = time.monotonic() + FORGOTTEN_WITHIN_S
    while found := [*await redis.keys("*:outstanding*"), *await _uses(redis)]:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(POLL_S)


async def _uses(redis: Redis) -> list[Any]:
    tickets: list[Any] = await redis.hvals("vestibule:{default}:tickets")
    facts = [msgspec.msgpack.decode(ticket) for ticket in tickets]
    assert len(facts) == USERS
    return [ticket["uses"] for ticket in facts if ticket.get("uses")]


async def _until(holds: Any, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(POLL_S)
