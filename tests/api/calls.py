"""Calls the service as a stranger would: plain HTTP, and bytes on a socket.

Knows nothing of what the answers should be.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientResponse, ClientSession
from multidict import CIMultiDictProxy
from redis.asyncio import Redis
from yarl import URL

from admission.auth import hash_key
from tests.conftest import DEADLINE_S, Service

AGENT_INFO = {"version": "1.0.0", "build_date": "2026-01-01", "checksum": hash_key("the agent")}


@dataclass(frozen=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def kind(self) -> str:
        return self.headers.get("Content-Type", "").split(";")[0]

    @property
    def fields(self) -> set[str]:
        """The fields a problem names."""
        return {error["field"] for error in self.json.get("errors", [])}


class Caller:
    """Calls with one key; paths may be percent-encoded already and are sent as they are."""

    def __init__(self, http: ClientSession, url: str, key: str | None) -> None:
        self._http, self._url, self.key = http, url, key

    def with_key(self, key: str | None) -> "Caller":
        return Caller(self._http, self._url, key)

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One call; ``body`` is sent as JSON, ``data`` as it is."""
        async with self.open(method, path, body, data=data, headers=headers) as response:
            return Reply(response.status, response.headers, await response.text())

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[ClientResponse]:
        """The same, the answer not read yet."""
        sent = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        raw = json.dumps(body).encode() if body is not None else data
        async with self._http.request(
            method,
            URL(self._url + path, encoded=True),
            data=raw,
            headers={**sent, **(headers or {})},
        ) as response:
            yield response


def caller_of(service: Service, key: str | None = None) -> Caller:
    """A caller with ``key``, or with the service key."""
    return Caller(service.http, service.url, key or service.service_key)


async def raw_call(service: Service, sent: bytes) -> bytes:
    """What comes back for these bytes, until the service closes the connection."""
    address = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(sent)
    async with asyncio.timeout(DEADLINE_S):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def contents(redis: Redis) -> dict[bytes, bytes]:
    """Everything Redis holds, to compare before and after."""
    return {key: await redis.dump(key) or b"" async for key in redis.scan_iter()}


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until it holds; the deadline is everybody's."""
    async with asyncio.timeout(DEADLINE_S):
        while not await holds():  # noqa: ASYNC110 - what is asked lives in another process
            await asyncio.sleep(0.01)
