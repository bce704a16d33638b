"""``vestibule admission`` as real processes, and callers that know nothing of them but the port."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
from aiohttp import ClientConnectionError, ClientSession, ClientTimeout

from tests.infra.conftest import ROOT, clean_environment
from tests.ports import free_port
from tests.scale.servers import DEADLINE_S, until

KEY = {"Authorization": "Bearer service-key"}


class Admission:
    """The command's process, and the port it serves."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, http: ClientSession) -> None:
        self.process, self.url, self._http = process, url, http

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of one call; 0 when nobody answered, as after a process was killed."""
        try:
            async with self._http.request(
                method, self.url + path, data=json.dumps(body) if body else None
            ) as answer:
                return answer.status, await answer.json(content_type=None)
        except (ClientConnectionError, TimeoutError):
            return 0, None

    async def join(self, user: str, **body: Any) -> tuple[int, Any]:
        return await self.call("POST", f"/queue/join/{user}", body or {"will_return": True})

    async def status(self, user: str) -> tuple[int, Any]:
        return await self.call("GET", f"/queue/status/{user}")

    async def settled(self, path: str, method: str = "GET") -> tuple[int, Any]:
        """The first answer that is not "try again": neither 503 nor nobody."""
        answers: list[tuple[int, Any]] = []

        async def answered() -> bool:
            answers.append(await self.call(method, path))
            return answers[-1][0] not in (0, 503)

        await until(answered, f"nobody answers {path}")
        return answers[-1]

    async def metrics(self) -> Any:
        """Of the default pool."""
        status, seen = await self.settled("/queue/metrics")
        assert status == 200
        return seen

    async def event(self, user: str) -> AsyncIterator[Any]:
        """The tickets of the user's event stream."""
        async with self._http.get(f"{self.url}/queue/events/{user}") as answer:
            assert answer.status == 200
            async for line in answer.content:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def workers(self) -> list[psutil.Process]:
        """The processes that serve: the command's children, or itself when it is alone."""
        own = psutil.Process(self.process.pid)
        return own.children() or [own]


@asynccontextmanager
async def admission(redis_url: str, **changes: str) -> AsyncIterator[Admission]:
    """``vestibule admission`` over this Redis, with capacity 3, until the block ends."""
    port = free_port()
    process = await _started(redis_url, "--port", str(port), changes=changes)
    assert process.stdout
    try:
        async with asyncio.timeout(DEADLINE_S):
            said = await process.stdout.readline()
        assert b"listens on" in said, "vestibule admission did not start"
        timeout = ClientTimeout(total=DEADLINE_S)
        async with ClientSession(headers=KEY, timeout=timeout) as http:
            yield Admission(process, f"http://127.0.0.1:{port}", http)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def refused(redis_url: str, *words: str, **changes: str) -> tuple[int, str]:
    """How ``vestibule admission`` ends by itself: its exit code and what it says."""
    process = await _started(redis_url, *words, changes=changes, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(DEADLINE_S):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def _started(
    redis_url: str, *words: str, changes: dict[str, str], stderr: int | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "infra.cli", "admission", *words),
        cwd=ROOT,
        env={
            **clean_environment(),
            "REDIS_URL": redis_url,
            "VESTIBULE_SERVICE_KEY": "service-key",
            "VESTIBULE_STATE_DIR": "no-such-folder",
            "MAX_ACTIVE_USERS": "3",
            **changes,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )
