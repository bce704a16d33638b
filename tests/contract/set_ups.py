"""Where the contract is asked for: each transport over each kind of Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import ClientSession

from tests.aws.built import alone
from tests.contract import environment
from tests.contract.aws import ENVIRONMENTS, functions
from tests.contract.events import FORMS
from tests.scale import servers
from tests.scale.processes import admission

ADMIN_KEY, SERVICE_KEY = "an-admin-key", "a-service-key"
ORIGIN = "https://chat.example.org"
SETTINGS = {
    "VESTIBULE_ADMIN_KEY": ADMIN_KEY,
    "VESTIBULE_SERVICE_KEY": SERVICE_KEY,
    "VESTIBULE_WORKER_TOKEN": "a-worker-token",
    "VESTIBULE_ALLOWED_ORIGINS": ORIGIN,
    "VESTIBULE_STATE_DIR": "no-such-folder",
}


async def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Redis:
    """The settings that lead to it; ``shake``: what happens to it while it is used."""

    settings: Mapping[str, str]
    shake: Callable[[], Awaitable[None]] = _nothing


@asynccontextmanager
async def single(binary: str) -> AsyncIterator[Redis]:
    async with servers.one(binary) as server:
        yield Redis({"REDIS_URL": server.url})


@asynccontextmanager
async def cluster(binary: str) -> AsyncIterator[Redis]:
    """Three masters."""
    async with servers.cluster(binary) as made:
        yield Redis({"REDIS_URL": made.url, "VESTIBULE_REDIS_MODE": "cluster"})


@asynccontextmanager
async def sentinel(binary: str) -> AsyncIterator[Redis]:
    """A master that dies, and its replica that takes over."""
    async with servers.watched(binary, sentinels=1) as made:

        async def shake() -> None:
            await made.master.kill()
            await servers.until(made.replica.is_master, "the replica was not made master")

        settings = {
            "REDIS_URL": made.url,
            "VESTIBULE_REDIS_MODE": "sentinel",
            "VESTIBULE_REDIS_SENTINEL_MASTER": servers.MASTER,
        }
        yield Redis(settings, shake)


@asynccontextmanager
async def processes(count: int, settings: Mapping[str, str]) -> AsyncIterator[str]:
    """``vestibule admission``."""
    changes = {"VESTIBULE_PROCESSES": str(count), **SETTINGS, **settings}
    url = changes.pop("REDIS_URL")
    async with admission(url, **changes) as running:
        yield running.url


@asynccontextmanager
async def packaged(settings: Mapping[str, str]) -> AsyncIterator[str]:
    """What `vestibule aws package` wrote, unpacked, with no library but those in it."""
    words = await asyncio.to_thread(alone, Path(environment.__file__))
    async with functions("http-api-2.0", {**SETTINGS, **settings}, words) as url:
        yield url


Transport = Callable[[Mapping[str, str]], AbstractAsyncContextManager[str]]
TRANSPORTS: Mapping[str, Transport] = {
    "one-process": partial(processes, 1),
    "three-processes": partial(processes, 3),
    "package": packaged,
    **{form: lambda given, form=form: functions(form, {**SETTINGS, **given}) for form in FORMS},  # type: ignore[misc]
}
REDIS: Mapping[str, Callable[[str], AbstractAsyncContextManager[Redis]]] = {
    "single": single,
    "cluster": cluster,
    "sentinel": sentinel,
}


@asynccontextmanager
async def set_up(transport: str, redis: str, binary: str) -> AsyncIterator[str]:
    """The URL of a deployment that has answered, and answers again after what befell its Redis."""
    async with (
        REDIS[redis](binary) as made,
        TRANSPORTS[transport](made.settings) as url,
        ClientSession() as http,
    ):

        async def answers() -> bool:
            async with http.get(f"{url}/readyz") as answer:
                return answer.status == 200

        async def all_answer() -> bool:
            return all(await asyncio.gather(*(answers() for _ in range(2 * ENVIRONMENTS))))

        await servers.until(all_answer, "it is not ready")
        await made.shake()
        await servers.until(all_answer, "it is not ready again")
        yield url
