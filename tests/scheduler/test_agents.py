"""The scheduler's own look at agents: which file runs where requests would go."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from aiohttp import ClientSession, web

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, Worker, WorkerReport
from admission.store.redis_store import RedisStore
from admission.store.registry import SILENT_MS, VOUCHED_MS, WORKER_LEASE_MS
from scheduler.probe import agents_tick
from scheduler.ticks import workers_tick

GOOD, OTHER = "a" * 64, "b" * 64
REPORT = WorkerReport(ready=True, reason=None, models=("tiny",), slots=1)


@dataclass
class Info:
    """Answers ``/info`` and ``/readyz`` as a test wants it."""

    url: str = ""
    status: int = 200
    body: Any = None
    ready: int = 200

    async def answer(self, _: web.Request) -> web.Response:
        return web.json_response(self.body, status=self.status)

    async def readyz(self, _: web.Request) -> web.Response:
        return web.Response(status=self.ready)


@pytest.fixture
async def info() -> AsyncIterator[Info]:
    served = Info(body={"agent_checksum": GOOD, "worker_id": "w"})
    app = web.Application()
    app.router.add_get("/info", served.answer)
    app.router.add_get("/readyz", served.readyz)
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


async def test_a_checksum_that_is_no_text_is_another_one(registry: RedisStore, info: Info) -> None:
    """Half of a surrogate pair cannot be said to Redis, and must not end the tick for all."""
    info.body = {"agent_checksum": "\ud800", "worker_id": "w"}
    assert (await _tick(registry)).reason == f"agent checksum at /info is ?, not {GOOD}"


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


@pytest.mark.parametrize("wanted", [GOOD, None])
async def test_a_silent_agent_that_answers_stays_in_use_without_a_gap(
    registry: RedisStore, clock: ManualClock, wanted: str | None
) -> None:
    await workers_tick(registry)
    for _ in range(60):
        clock.advance_ms(10_000)
        await workers_tick(registry)
        assert (await _tick(registry, wanted)).ready
    worker = await _seen(registry)
    assert worker.reason == "no heartbeat, but /readyz answers"
    for _ in range(6):  # it is not forgotten an hour after its last report
        clock.advance_ms(600_000)
        await _tick(registry)
        await workers_tick(registry)
    await _beat(registry)
    worker = await _seen(registry)
    assert (worker.ready, worker.reason) == (True, None)


@pytest.mark.parametrize(
    ("readyz", "status", "reason"),
    [
        (503, 200, "no heartbeat, and /readyz answers 503"),
        (200, 500, "no heartbeat, and /info does not answer"),
    ],
)
async def test_a_report_outranks_a_bad_probe_while_it_is_good_and_not_after(
    registry: RedisStore, info: Info, clock: ManualClock, readyz: int, status: int, reason: str
) -> None:
    info.ready, info.status = readyz, status
    clock.advance_ms(WORKER_LEASE_MS - 1)
    assert (await _tick(registry)).ready
    clock.advance_ms(1)
    worker = await _tick(registry)
    assert (worker.ready, worker.reason) == (False, reason)
    info.ready, info.status = 200, 200
    assert (await _tick(registry)).ready, "the same file at the same address"
    info.ready, info.status = readyz, status
    worker = await _tick(registry)
    assert (worker.ready, worker.reason) == (False, reason)


async def test_one_that_said_it_was_not_ready_is_not_made_so_by_a_probe_while_that_is_good(
    registry: RedisStore, clock: ManualClock
) -> None:
    unready = replace(REPORT, ready=False, reason="loading")
    await registry.report_worker(DEFAULT_POOL, "w", unready, token_hash="own")
    clock.advance_ms(WORKER_LEASE_MS - 1)
    worker = await _tick(registry)
    assert (worker.ready, worker.reason) == (False, "loading")
    clock.advance_ms(1)
    assert (await _tick(registry)).ready


async def test_one_that_reports_is_not_asked(
    registry: RedisStore, info: Info, clock: ManualClock
) -> None:
    info.ready = 503
    clock.advance_ms(SILENT_MS - 1)
    assert (await _tick(registry, None)).ready
    assert (await registry.vouch_worker(DEFAULT_POOL, "w", "bad")) is None
    assert (await registry.vouch_worker(DEFAULT_POOL, "w", "")) is None
    clock.advance_ms(WORKER_LEASE_MS - SILENT_MS + 1)
    assert not (await _seen(registry)).ready, "nobody vouched for it"


async def test_a_good_answer_is_good_for_a_while_only(
    registry: RedisStore, clock: ManualClock
) -> None:
    clock.advance_ms(WORKER_LEASE_MS)
    assert (await _tick(registry)).ready
    clock.advance_ms(VOUCHED_MS - 1)
    assert (await _seen(registry)).ready
    clock.advance_ms(1)
    assert not (await _seen(registry)).ready


@pytest.mark.parametrize("wanted", [GOOD, None])
async def test_a_silent_one_is_not_used_with_another_file_or_as_another_worker(
    registry: RedisStore, info: Info, clock: ManualClock, wanted: str | None
) -> None:
    clock.advance_ms(WORKER_LEASE_MS)
    info.body = {"agent_checksum": OTHER if wanted else GOOD, "worker_id": "w" if wanted else "w2"}
    worker = await _tick(registry, wanted)
    assert not worker.ready
    assert worker.verdict
    assert not (await _tick(registry, wanted)).ready


async def test_a_silent_one_that_drains_or_was_revoked_is_left(
    registry: RedisStore, clock: ManualClock
) -> None:
    await registry.drain_worker(DEFAULT_POOL, "w")
    clock.advance_ms(WORKER_LEASE_MS)
    assert not (await _tick(registry)).ready
    await registry.revoke_worker(DEFAULT_POOL, "w")
    assert not (await _tick(registry)).ready


async def test_one_that_never_reported_is_not_made_ready(
    store: RedisStore, info: Info, clock: ManualClock
) -> None:
    await store.register_worker(
        DEFAULT_POOL,
        "w",
        identity={"url": info.url, "kind": "agent"},
        slots=1,
        token_hash="own",
        presented_hash="",
    )
    clock.advance_ms(WORKER_LEASE_MS)
    assert not (await _tick(store)).ready
    assert (await store.vouch_worker(DEFAULT_POOL, "w", "")) is None


async def test_one_that_is_found_moves_the_queue(registry: RedisStore, clock: ManualClock) -> None:
    await registry.configure(DEFAULT_POOL, {"needs_worker": True})
    clock.advance_ms(WORKER_LEASE_MS)
    await registry.join(DEFAULT_POOL, "ada", ticket="t", will_return=True)
    assert (await registry.metrics(DEFAULT_POOL)).draft == 0
    await _tick(registry)
    assert (await registry.metrics(DEFAULT_POOL)).draft == 1
