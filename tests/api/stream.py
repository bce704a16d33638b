"""Reads Server-Sent Events off an answer, as an EventSource would."""

import asyncio
import json
from typing import Any

from aiohttp import ClientResponse

from tests.conftest import DEADLINE_S


class Events:
    """The events of one stream; ``ids``, ``retry_ms`` and ``pings`` seen so far."""

    def __init__(self, response: ClientResponse) -> None:
        self._response = response
        self.ids: list[int] = []
        self.retry_ms: list[int] = []
        self.pings = 0

    async def next(self) -> dict[str, Any] | None:
        """The next ticket, or None at the end of the stream."""
        async with asyncio.timeout(DEADLINE_S):
            while block := await self._block():
                if block == {"": " ping"}:
                    self.pings += 1
                    continue
                assert block["event"] == " ticket"
                self.ids.append(int(block["id"]))
                self.retry_ms += [int(block["retry"])] if "retry" in block else []
                ticket: dict[str, Any] = json.loads(block["data"])
                return ticket
        return None

    async def ping(self) -> None:
        """Wait for one more ping; no event may come before it."""
        async with asyncio.timeout(DEADLINE_S):
            assert await self._block() == {"": " ping"}
        self.pings += 1

    async def _block(self) -> dict[str, str]:
        """The lines up to an empty one, by their names; empty at the end."""
        block = {}
        while line := (await self._response.content.readline()).decode().rstrip("\n"):
            name, _, value = line.partition(":")
            block[name] = value
        return block
