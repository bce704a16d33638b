"""What these tests share: a model server, a user's own token, and chats read event by event."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientResponse, web

from tests.api.calls import Caller, caller_of
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import make_ready
from tests.gateway.upstream import Upstream, listening

WORDS = ["Hé", "llo", " there"]


def delta(content: str | None = None, finish: str | None = None) -> bytes:
    """One chunk as an OpenAI-compatible server sends it."""
    choice = {"index": 0, "delta": {"content": content} if content else {}, "finish_reason": finish}
    return f"data: {json.dumps({'id': 'x', 'choices': [choice]})}\r\n\r\n".encode()


class Model:
    """Steers the upstream: it sends ``chunks``; ``hold_at`` of them at once, the rest after go."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.chunks = [delta(word) for word in WORDS] + [delta(finish="stop"), b"data: [DONE]\n\n"]
        self.hold_at: int | None = None
        upstream.act = self.answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for n, chunk in enumerate(self.chunks):
            if n == self.hold_at:
                async with asyncio.timeout(DEADLINE_S):
                    await self.upstream.go.wait()
            await response.write(chunk)
        await response.write_eof()
        return response

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(seen.body) for seen in self.upstream.seen]


@pytest.fixture
async def model(service: Service) -> AsyncIterator[Model]:
    """The only worker, which serves the model tiny."""
    async with listening("w1") as upstream:
        await make_ready(service, "w1", upstream.url)
        yield Model(upstream)


class Chat:
    """One running chat's events."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, Any] | None:
        """The next event, or None at the end."""
        async with asyncio.timeout(DEADLINE_S):
            while line := await self.response.content.readline():
                if line.startswith(b"data: "):
                    event: dict[str, Any] = json.loads(line[6:])
                    return event
        return None

    async def rest(self) -> list[dict[str, Any]]:
        found = []
        while event := await self.next():
            found.append(event)
        return found


class Person:
    """A user with their own token."""

    def __init__(self, call: Caller, name: str) -> None:
        self.call, self.name = call, name

    @asynccontextmanager
    async def chats(
        self, message: str, headers: dict[str, str] | None = None, **fields: Any
    ) -> AsyncIterator[Chat]:
        body = {"message": message, **fields}
        async with self.call.open("POST", "/chat/stream", body, headers=headers) as response:
            assert response.status == 200, await response.text()
            yield Chat(response)

    async def says(self, message: str, **fields: Any) -> list[dict[str, Any]]:
        """A whole chat's events."""
        async with self.chats(message, **fields) as chat:
            return await chat.rest()


async def person(service: Service, name: str) -> Person:
    """Somebody with a token, who has no turn."""
    trusted = caller_of(service)
    token = (await trusted("POST", f"/queue/join/{name}")).json["token"]
    await trusted("POST", f"/queue/leave/{name}")
    return Person(caller_of(service, token), name)


def answer_in(events: list[dict[str, Any]]) -> str:
    return "".join(event["content"] for event in events if event["type"] == "token")
