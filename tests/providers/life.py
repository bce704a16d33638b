"""The real service and a scheduler with a fleet, in this process, and one machine's whole life."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from redis.asyncio import Redis

from admission.clock import RedisClock
from admission.settings import Settings
from admission.store.redis_store import RedisStore
from infra import fleet_duties, service
from scheduler import clockwork
from tests.conftest import service_settings
from tests.ports import free_port

ADMIN = {"Authorization": "Bearer admin-key"}
Json = dict[str, Any]


class Fleet:
    """What an admin asks of it."""

    def __init__(self, settings: Settings, http: ClientSession) -> None:
        self._base, self._http = f"http://127.0.0.1:{settings.port}", http

    async def call(self, method: str, path: str, body: Json | None = None) -> Json:
        url = f"{self._base}{path}"
        async with self._http.request(method, url, json=body, headers=ADMIN) as answer:
            found: Json = await answer.json()
            assert answer.status < 400, found
            return found

    async def until(self, name: str, state: str, within_s: float) -> tuple[Json, list[int]]:
        """Its view when it is in that state, and the progress that was seen on the way."""
        steps: list[int] = []
        async with asyncio.timeout(within_s):
            while True:
                found = await self.call("GET", f"/admin/instances/{name}")
                if not found.get("pending"):
                    steps.append(found["progress"])
                    if found["state"] == state:
                        return found, steps
                    assert not found["state"].endswith("failed"), found
                await asyncio.sleep(0.1)


@asynccontextmanager
async def served(
    redis: Redis, folder: Path, fleet_file: str, *, keep_local: bool = True
) -> AsyncIterator[Settings]:
    """``fleet_file``: its text. All its providers have told what they offer."""
    (folder / "fleet.toml").write_text(fleet_file)
    settings = service_settings(
        VESTIBULE_STATE_DIR=str(folder),
        VESTIBULE_PORT=str(free_port()),
        VESTIBULE_FLEET=str(folder / "fleet.toml"),
    )
    file = fleet_duties.of(settings)
    assert file is not None
    store = RedisStore(redis, RedisClock(), settings.pool_policy(needs_worker=True))
    async with (
        service.serving(store, settings),
        service.books_of(store, settings) as books,
        fleet_duties.opened(file, store, settings, keep_local=keep_local) as fleet,
        clockwork.running(store, (), None, books, fleet.ticks),
        fleet.ending(),
    ):
        async with asyncio.timeout(30):
            while len(await store.fleet.offers()) < len(file.providers):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield settings
    await store.drained()


@asynccontextmanager
async def serving(redis: Redis, folder: Path, fleet_file: str) -> AsyncIterator[Fleet]:
    """As `served`, for an admin."""
    async with served(redis, folder, fleet_file) as settings, ClientSession() as http:
        yield Fleet(settings, http)


async def live(fleet: Fleet, order: Json, *, ready_s: float, gone_s: float) -> Json:
    """From an order to the archive; its last view, with the history."""
    ordered = await fleet.call("POST", "/admin/instances", order)
    [name] = [each if isinstance(each, str) else each["id"] for each in ordered["instances"]]
    _, steps = await fleet.until(name, "ready", ready_s)
    assert steps == sorted(steps)
    assert steps[-1] == 100
    await fleet.call("DELETE", f"/admin/instances/{name}?drain=1")
    over, _ = await fleet.until(name, "terminated", gone_s)
    await fleet.call("POST", f"/admin/instances/{name}/archive")
    return over
