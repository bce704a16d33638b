"""Redis away: 503 with Retry-After, back by itself; nothing is lost or granted twice."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from admission.clock import ManualClock
from admission.store import connection
from tests.api.calls import Caller, caller_of, until
from tests.api.conftest import served_at
from tests.api.fleet import ready_worker
from tests.api.stream import Events
from tests.api.valkey import OwnValkey, own_valkey
from tests.conftest import Service

ADA = {"X-OpenWebUI-User-Id": "ada"}
NEED_REDIS = [
    ("POST", "/queue/join/eve"),
    ("POST", "/queue/confirm/ada"),
    ("POST", "/queue/heartbeat/ada"),
    ("POST", "/queue/leave/ada"),
    ("GET", "/queue/status/ada"),
    ("GET", "/queue/events/ada"),
    ("GET", "/queue/metrics"),
    ("GET", "/queue/status"),
    ("GET", "/readyz"),
]


@pytest.fixture
async def valkey_of_its_own(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OwnValkey]:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT_S", 0.2)
    async with own_valkey() as server:
        yield server


@pytest.fixture
async def alone(valkey_of_its_own: OwnValkey) -> AsyncIterator[Service]:
    """The service over a Valkey of its own, with a ready worker for the model tiny."""
    async with served_at(valkey_of_its_own.url, ManualClock()) as service:
        await ready_worker(service)
        yield service


async def chat(call: Caller) -> tuple[int, str]:
    reply = await call("POST", "/v1/chat/completions", {"model": "tiny"}, headers=ADA)
    assert "Retry-After" in reply.headers
    return reply.status, reply.json["error"]["code"]


async def is_back(call: Caller) -> None:
    async def answers() -> bool:
        return (await call("GET", "/readyz")).status == 200

    await until(answers)


async def test_every_call_is_503_with_retry_after(
    alone: Service, valkey_of_its_own: OwnValkey
) -> None:
    call = caller_of(alone)
    await call("POST", "/queue/join/ada")
    await valkey_of_its_own.kill()
    for method, path in NEED_REDIS:
        reply = await call(method, path)
        assert (reply.status, reply.json["code"]) == (503, "store_unavailable"), path
        assert reply.kind == "application/problem+json"
        assert int(reply.headers["Retry-After"]) >= 1
    assert await chat(call) == (503, "store_unavailable")
    assert (await call("GET", "/healthz")).status == 200
    assert [m["id"] for m in (await call("GET", "/v1/models")).json["data"]] == ["tiny"]
    await valkey_of_its_own.start()
    await is_back(call)


async def test_a_redis_that_hangs_is_503_in_time_and_comes_back(
    alone: Service, valkey_of_its_own: OwnValkey
) -> None:
    call = caller_of(alone)
    await call("POST", "/queue/join/ada")
    valkey_of_its_own.send(signal.SIGSTOP)
    async with asyncio.timeout(2):
        reply = await call("POST", "/queue/join/bob")
    assert reply.status == 503
    valkey_of_its_own.send(signal.SIGCONT)
    await is_back(call)
    assert (await call("GET", "/queue/status/ada")).json["status"] == "draft"


async def test_what_was_acknowledged_survives_kill_9_and_nothing_is_granted_twice(
    alone: Service, valkey_of_its_own: OwnValkey
) -> None:
    call = caller_of(alone)
    before = [(await call("POST", f"/queue/join/{user}")).json for user in ("ada", "bob", "cy")]
    lost = asyncio.gather(*(call("POST", f"/queue/join/late{i}") for i in range(20)))
    await valkey_of_its_own.kill()
    late = await lost
    assert {reply.status for reply in late} <= {200, 503}
    await valkey_of_its_own.start()
    await is_back(call)
    for view in before:
        del view["token"]
        now = (await call("GET", f"/queue/status/{view['user_id']}")).json
        assert {**now, "queue_length": view["queue_length"]} == view
    again = [await call("POST", f"/queue/join/late{i}") for i in range(20)]
    for one, other in zip(late, again, strict=True):
        if one.status == 200:
            assert other.json["ticket_id"] == one.json["ticket_id"]
    metrics = (await call("GET", "/queue/metrics")).json
    assert (metrics["draft"], metrics["active"], metrics["waiting"]) == (1, 0, 22)


async def test_a_stream_lives_through_a_restart_of_redis(
    alone: Service, valkey_of_its_own: OwnValkey
) -> None:
    call = caller_of(alone)
    await call("POST", "/queue/join/ada")
    async with call.open("GET", "/queue/events/ada") as response:
        stream = Events(response)
        await stream.next()
        await valkey_of_its_own.kill()
        await valkey_of_its_own.start()
        await is_back(call)
        await call("POST", "/queue/confirm/ada")
        ticket = await stream.next()
    assert ticket is not None
    assert ticket["status"] == "active"
