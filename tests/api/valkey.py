"""A Valkey of one test's own, on its own folder, to be killed, frozen and started again."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from infra import embedded
from infra.state import StateFolder
from tests.api.calls import until


class OwnValkey:
    """One server process at a time; what it acknowledged is on disk."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder
        self.url = embedded.url(folder)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        command = embedded.command(self._folder)
        self._process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.DEVNULL
        )
        client = Redis.from_url(self.url)
        await until(lambda: _answers(client))
        await client.aclose()

    async def kill(self) -> None:
        """As ``kill -9`` does it."""
        self.send(signal.SIGKILL)
        assert self._process is not None
        await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


async def _answers(client: Redis) -> bool:
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False


@asynccontextmanager
async def own_valkey() -> AsyncIterator[OwnValkey]:
    """A running server that ends with the block."""
    folder = StateFolder(Path(tempfile.mkdtemp(prefix="vst-")))
    server = OwnValkey(folder)
    await server.start()
    try:
        yield server
    finally:
        server.send(signal.SIGCONT)
        await server.kill()
        shutil.rmtree(folder.path)
