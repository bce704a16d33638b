"""The probe of static upstreams, and the liveness of all workers (DESIGN sections 7 and 9)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import ClientSession, web

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, Worker
from admission.settings import Upstream
from admission.store.redis_store import RedisStore
from scheduler import probe
from scheduler.ticks import workers_tick

MODELS = b'{"data": [{"id": "tiny"}, {"id": "large"}]}'


@dataclass
class ModelServer:
    """Answers ``/v1/models`` as a test wants it."""

    status: int = 200
    body: bytes = MODELS
    upstream: Upstream = field(default_factory=lambda: Upstream("", 1))

    async def models(self, _: web.Request) -> web.Response:
        return web.Response(status=self.status, body=self.body)


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    server = ModelServer()
    app = web.Application()
    app.router.add_get("/v1/models", server.models)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.upstream = Upstream(f"http://127.0.0.1:{runner.addresses[0][1]}", slots=3)
    yield server
    await runner.cleanup()


async def probed(store: RedisStore, upstream: Upstream) -> Worker:
    """The registry's only worker after one probe."""
    async with ClientSession() as session:
        await probe.probe_tick(store, [upstream], session)
    (worker,) = await store.workers(DEFAULT_POOL)
    return worker


async def test_an_upstream_that_answers_is_a_ready_static_worker(
    store: RedisStore, server: ModelServer
) -> None:
    worker = await probed(store, server.upstream)
    assert (worker.ready, worker.reason, worker.kind) == (True, None, "static")
    assert (worker.url, worker.slots) == (server.upstream.url, 3)
    assert worker.models == ("tiny", "large")
    assert worker.worker_id == probe.worker_id(server.upstream)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (503, b"", "/v1/models answers 503"),
        (200, b"<html>", "/v1/models gives no list of models"),
        (200, b"[]", "/v1/models gives no list of models"),
        (200, b'{"data": null}', "/v1/models gives no list of models"),
        (200, b"\xff", "/v1/models gives no list of models"),
        (200, b"[" * 100_000, "/v1/models gives no list of models"),
    ],
    ids=["503", "html", "list", "null", "no utf-8", "deep"],
)
async def test_one_that_fails_is_unready_with_its_reason_and_keeps_its_models(
    store: RedisStore, server: ModelServer, status: int, body: bytes, reason: str
) -> None:
    await probed(store, server.upstream)
    server.status, server.body = status, body
    worker = await probed(store, server.upstream)
    assert (worker.ready, worker.reason) == (False, reason)
    assert worker.models == ("tiny", "large")
    server.status, server.body = 200, MODELS
    assert (await probed(store, server.upstream)).ready


async def test_one_that_was_never_there_is_known_and_unready(store: RedisStore) -> None:
    worker = await probed(store, Upstream("http://127.0.0.1:1", 1))
    assert (worker.ready, worker.models) == (False, ())
    assert worker.reason is not None
    assert "does not answer" in worker.reason


async def test_a_slow_upstream_does_not_hide_a_good_one(
    store: RedisStore, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "PROBE_TIMEOUT_S", 0.2)
    dead = Upstream("http://127.0.0.1:1", 1)
    async with ClientSession() as session:
        await probe.probe_tick(store, [dead, server.upstream], session)
    ready = {worker.url: worker.ready for worker in await store.workers(DEFAULT_POOL)}
    assert ready == {dead.url: False, server.upstream.url: True}


async def test_a_worker_that_fell_silent_is_no_longer_ready(
    store: RedisStore, server: ModelServer, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await probed(store, server.upstream)
    clock.advance_ms(29_999)
    await workers_tick(store)
    assert (await store.workers(DEFAULT_POOL))[0].ready
    clock.advance_ms(1)
    await workers_tick(store)
    await workers_tick(store)
    assert not (await store.workers(DEFAULT_POOL))[0].ready
    lost = [r.getMessage() for r in caplog.records if r.getMessage().startswith("worker_lost")]
    assert lost == [f"worker_lost worker_id={worker.worker_id} pool=default"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a:1", "http://a:2"),
        ("http://" + "long." * 20 + "a", "http://" + "long." * 20 + "b"),
    ],
)
def test_two_upstreams_have_two_ids(one: str, other: str) -> None:
    ids = {probe.worker_id(Upstream(url, 1)) for url in (one, other)}
    assert len(ids) == 2
    assert all(len(name) <= 64 for name in ids)
