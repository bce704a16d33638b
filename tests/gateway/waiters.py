"""Calls that wait at the gateway: over the official SDK, and as bytes on a stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientResponse
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from admission.domain import DEFAULT_POOL, Status, Ticket
from tests.api.calls import caller_of, until
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import CHAT
from tests.gateway.upstream import chat

WAITS = {"X-Vestibule-Wait": "60"}
HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "hello"}]


async def sdk_says(
    service: Service, retries: int = 0, /, *, stream: bool, user: str = "ada", **headers: str
) -> str:
    """The answer as the official SDK reads it, of a trusted frontend; it tries once unless told
    otherwise, so that a test sees what came.

    Raises:
        APIError: as the SDK raises it.
    """
    async with AsyncOpenAI(
        base_url=f"{service.url}/v1",
        api_key=service.service_key,
        default_headers={"X-OpenWebUI-User-Id": user, **headers},
        max_retries=retries,
        timeout=DEADLINE_S,
    ) as client:
        if not stream:
            whole = await client.chat.completions.create(model="tiny", messages=HELLO)
            return whole.choices[0].message.content or ""
        chunks = await client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


class Stream:
    """A streamed answer, read block by block: comments and events as they come."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response

    async def next(self) -> str | None:
        """The next comment or event; None at the end."""
        lines: list[str] = []
        async with asyncio.timeout(DEADLINE_S):
            while line := (await self.response.content.readline()).decode():
                if line == "\n":
                    return "".join(lines)
                lines.append(line.rstrip("\n"))
        return None

    async def rest(self) -> list[str]:
        found = []
        while (block := await self.next()) is not None:
            found.append(block)
        return found


@asynccontextmanager
async def streaming(
    service: Service, user: str, headers: dict[str, str] | None = None
) -> AsyncIterator[Stream]:
    """A chat of ``user`` that asks for a stream and would wait."""
    given = {"X-OpenWebUI-User-Id": user, **WAITS, **(headers or {})}
    body = chat(stream=True)
    async with caller_of(service).open("POST", CHAT, data=body, headers=given) as response:
        yield Stream(response)


def data_of(block: str) -> Any:
    assert block.startswith("data: ")
    return json.loads(block[6:])


async def take_slot(service: Service, user: str = "first") -> None:
    """Somebody holds the only slot."""
    await service.store.join(DEFAULT_POOL, user, ticket=user, auto_confirm=True)


async def free_slot(service: Service, user: str = "first") -> None:
    await service.store.leave(DEFAULT_POOL, user)


async def waiting(service: Service, number: int) -> None:
    """Returns when so many wait."""

    async def so_many() -> bool:
        return (await service.store.metrics(DEFAULT_POOL)).waiting == number

    await until(so_many)


async def status_of(service: Service, user: str, ticket: str = "") -> Status | None:
    seen = await service.store.status(DEFAULT_POOL, user, ticket=ticket)
    return seen.status if isinstance(seen, Ticket) else None
