"""The scheduler's own look at agents: which file runs where requests would go."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientSession, web

from admission.domain import DEFAULT_POOL, Worker, WorkerReport
from admission.store.redis_store import RedisStore
from scheduler.probe import agents_tick

GOOD, OTHER = "a" * 64, "b" * 64
REPORT = WorkerReport(ready=True, reason=None, models=("tiny",), slots=1)


@dataclass
class Info:
    """Answers ``/info`` as a test wants it."""

    url: str = ""
    status: int = 200
    body: Any = None

    async def answer(self, _: web.Request) -> web.Response:
        return web.json_response(self.body, status=self.status)


@pytest.fixture
async def info() -> AsyncIterator[Info]:
    served = Info(body={"agent_checksum": GOOD, "worker_id": "w"})
    app = web.Application()
    app.router.add_get("/info", served.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


async def _beat(store: RedisStore) -> None:
    await store.report_worker(DEFAULT_POOL, "w", REPORT, token_hash="own")


async def _seen(store: RedisStore) -> Worker:
    [worker] = await store.workers(DEFAULT_POOL)
    return worker


async def _tick(store: RedisStore, wanted: str | None = GOOD) -> Worker:
    async with ClientSession() as session:
        await agents_tick(store, wanted, session)
    return await _seen(store)


@pytest.fixture
async def registry(store: RedisStore, info: Info) -> RedisStore:
    """One ready agent at ``info``."""
    identity = {"url": info.url, "kind": "agent", "upstream_key": "k"}
    await store.register_worker(
        DEFAULT_POOL, "w", identity=identity, slots=1, token_hash="own", presented_hash=""
    )
    await _beat(store)
    return store


async def test_the_right_file_is_left_alone(registry: RedisStore) -> None:
    assert (await _tick(registry)).ready


async def test_another_file_is_kept_out_whatever_it_reports(
    registry: RedisStore, info: Info
) -> None:
    info.body = {"agent_checksum": OTHER, "worker_id": "w"}
    told = f"agent checksum at /info is {OTHER}, not {GOOD}"
    worker = await _tick(registry)
    assert (worker.ready, worker.reason) == (False, told)
    await _beat(registry)
    worker = await _seen(registry)
    assert (worker.ready, worker.reason) == (False, told)
    info.body = {"agent_checksum": GOOD, "worker_id": "w"}
    assert (await _tick(registry)).verdict == ""
    await _beat(registry)
    assert (await _seen(registry)).ready


async def test_another_worker_at_its_address_is_kept_out(registry: RedisStore, info: Info) -> None:
    info.body = {"agent_checksum": GOOD, "worker_id": "w2"}
    assert (await _tick(registry)).reason == "/info answers as another worker"


@pytest.mark.parametrize(
    ("status", "body"), [(503, {}), (200, {}), (200, []), (200, None), (200, "text")]
)
async def test_one_that_does_not_tell_is_left_as_it_is(
    registry: RedisStore, info: Info, status: int, body: Any
) -> None:
    info.status, info.body = status, body
    assert (await _tick(registry)).ready


async def test_without_a_wanted_file_nothing_is_held_against_it(
    registry: RedisStore, info: Info
) -> None:
    info.body = {"agent_checksum": OTHER}
    assert not (await _tick(registry)).ready
    assert (await _tick(registry, None)).verdict == ""
    await _beat(registry)
    assert (await _seen(registry)).ready


async def test_a_static_upstream_has_no_agent_to_ask(store: RedisStore) -> None:
    identity = {"url": "http://127.0.0.1:1", "kind": "static"}
    await store.report_worker(DEFAULT_POOL, "up", REPORT, identity=identity)
    assert (await _tick(store)).ready
