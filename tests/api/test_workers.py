"""The registry: what agents call, and what an admin sees (DESIGN sections 5 and 9)."""

import asyncio
import socket
from contextlib import suppress

import pytest
from aiohttp import web

from tests.api.calls import AGENT_INFO, Caller, caller_of
from tests.api.conftest import Served, listening
from tests.api.fleet import HARDWARE, LOAD, beat, ready_worker, register
from tests.conftest import Service

WORKER = {
    "worker_id",
    "url",
    "kind",
    "pool",
    "models",
    "slots",
    "in_flight",
    "ready",
    "draining",
    "reason",
    "first_seen",
    "last_seen",
    "load",
    "hardware",
    "agent_info",
    "instance_id",
    "engine",
}


@pytest.fixture
def shared(service: Service) -> Caller:
    """Calls with the shared worker token."""
    return caller_of(service, service.worker_token)


@pytest.fixture
async def own(shared: Caller, agent: str) -> Caller:
    """Calls with the own token of the worker w1, which has just registered."""
    return shared.with_key((await register(shared, agent)).json["token"])


async def test_registering_yields_two_secrets_and_the_pace(shared: Caller, agent: str) -> None:
    reply = await register(shared, agent)
    assert reply.status == 200
    assert set(reply.json) == {"worker_id", "token", "upstream_key", "heartbeat_interval"}
    assert reply.json["token"] != reply.json["upstream_key"]
    assert 0 < reply.json["heartbeat_interval"] <= 10


async def test_a_heartbeat_makes_the_worker_ready(own: Caller, admin: Caller) -> None:
    (before,) = (await admin("GET", "/admin/workers")).json["workers"]
    assert (before["ready"], before["reason"]) == (False, "registered")
    reply = await beat(own)
    assert (reply.status, reply.json) == (
        200,
        {"ready": True, "reason": None, "draining": False, "rotate": False},
    )


async def test_an_admin_sees_everything_but_the_secrets(
    own: Caller, admin: Caller, agent: str
) -> None:
    await beat(own)
    reply = await admin("GET", "/admin/workers")
    (worker,) = reply.json["workers"]
    assert set(worker) == WORKER
    assert worker["first_seen"].endswith("Z")
    told = {"url": agent, "kind": "agent", "pool": "default", "models": ["tiny"], "slots": 2}
    assert {**worker, **told, "in_flight": 1, "load": LOAD, "hardware": HARDWARE} == worker
    assert worker["agent_info"] == AGENT_INFO
    assert own.key
    assert own.key not in reply.text


async def test_an_unready_worker_stays_with_its_reason(own: Caller, admin: Caller) -> None:
    reply = await beat(own, ready=False, reason="loading the model", models=[])
    assert reply.json == {
        "ready": False,
        "reason": "loading the model",
        "draining": False,
        "rotate": False,
    }
    (worker,) = (await admin("GET", "/admin/workers")).json["workers"]
    assert (worker["ready"], worker["reason"]) == (False, "loading the model")


async def test_a_worker_that_fell_silent_is_not_ready(
    own: Caller, admin: Caller, service: Service
) -> None:
    await beat(own)
    service.clock.advance_ms(30_000)
    (worker,) = (await admin("GET", "/admin/workers")).json["workers"]
    assert (worker["ready"], worker["reason"]) == (False, "no heartbeat")


@pytest.mark.parametrize("by", ["itself", "an admin"])
async def test_a_drained_worker_gets_nothing_new(own: Caller, admin: Caller, by: str) -> None:
    await beat(own)
    if by == "itself":
        reply = await own("POST", "/workers/w1/drain")
    else:
        reply = await admin("POST", "/admin/workers/w1/drain")
    assert (reply.status, reply.json) == (200, {"worker_id": "w1", "draining": True})
    assert (await beat(own)).json == {
        "ready": False,
        "reason": None,
        "draining": True,
        "rotate": False,
    }


@pytest.mark.parametrize("path", ["/admin/workers/w9/drain", "/admin/workers/w9/release"])
async def test_a_worker_nobody_knows_is_404(admin: Caller, path: str) -> None:
    reply = await admin("POST", path)
    assert (reply.status, reply.fields) == (404, {"worker_id"})


async def test_a_forgotten_worker_is_told_to_register_again(own: Caller, admin: Caller) -> None:
    assert (await admin("POST", "/admin/workers/w1/release")).status == 200
    assert (await beat(own)).status == 404
    assert (await own("POST", "/workers/w1/drain")).status == 404


async def test_a_taken_id_registers_again_only_with_its_own_token(
    shared: Caller, own: Caller, agent: str, admin: Caller
) -> None:
    taken = await register(shared, agent)
    assert (taken.status, taken.json["code"], taken.fields) == (409, "worker_taken", {"worker_id"})
    assert (await beat(own)).status == 200
    again = await register(own, agent)
    assert again.status == 200
    assert (await beat(own)).status == 200  # the reply may have been lost
    assert (await beat(own.with_key(again.json["token"]))).status == 200
    assert (await beat(own)).status == 403  # the token before that one
    await admin("POST", "/admin/workers/w1/release")
    assert (await register(shared, agent)).status == 200


async def test_a_strangers_token_is_refused_before_the_address_is_called(
    shared: Caller, own: Caller, agent: str
) -> None:
    other = shared.with_key((await register(shared, agent, worker_id="w2")).json["token"])
    for worker_id in ("w1", "nobody"):
        refused = await register(other, "http://127.0.0.1:1", worker_id=worker_id)
        assert (refused.status, refused.json["code"]) == (401, "unauthorized")
    await beat(own)
    taken = await register(shared, "http://127.0.0.1:1", worker_id="w1")
    assert (taken.status, taken.json["code"]) == (409, "worker_taken")


async def test_only_the_own_token_beats_and_drains(
    shared: Caller, own: Caller, agent: str, admin: Caller, service: Service
) -> None:
    other = shared.with_key((await register(shared, agent, worker_id="w2")).json["token"])
    refused = [shared, admin, other, shared.with_key(service.service_key)]
    assert [(await beat(caller)).status for caller in refused] == [403] * 4
    drains = [await caller("POST", "/workers/w1/drain") for caller in refused]
    assert [reply.status for reply in drains] == [403] * 4
    assert (await beat(shared.with_key(None))).status == 401


@pytest.mark.parametrize(
    ("key", "status"),
    [(None, 401), ("what?", 401), ("service-key", 403), ("admin-key", 200), ("worker-token", 200)],
)
async def test_registering_needs_the_worker_token(
    call: Caller, agent: str, key: str | None, status: int
) -> None:
    assert (await register(call.with_key(key), agent)).status == status


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:9001", "http://10.0.0.1", "http://[2001:db8::1]"]
)
async def test_a_worker_outside_the_networks_is_refused(shared: Caller, url: str) -> None:
    reply = await register(shared, url)
    assert (reply.status, reply.fields) == (422, {"url"})
    assert "VESTIBULE_WORKER_NETWORKS" in reply.json["detail"]


@pytest.mark.parametrize(
    "said",
    [b"[" * 100_000, b"\xff{", b'"text"', b"{}", b'{"agent_checksum": ["no"]}', b""],
    ids=["deep", "not utf-8", "text", "empty object", "list", "nothing"],
)
async def test_an_impostor_of_an_agent_is_refused(shared: Caller, said: bytes) -> None:
    async def info(_: web.Request) -> web.Response:
        return web.Response(body=said)

    async with listening(info) as url:
        reply = await register(shared, url)
    assert reply.status == 422


async def test_the_address_of_another_worker_is_refused(shared: Caller) -> None:
    async def info(_: web.Request) -> web.Response:
        said = {"agent_checksum": AGENT_INFO["checksum"], "worker_id": "w2"}
        return web.json_response(said)

    async with listening(info) as url:
        wrong = await register(shared, url)
        right = await register(shared, url, worker_id="w2")
    assert (wrong.status, wrong.fields) == (422, {"worker_id"})
    assert right.status == 200


async def test_the_address_must_answer_as_that_agent(shared: Caller, agent: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}"
    nobody = await register(shared, closed)
    assert (nobody.status, nobody.fields) == (422, {"url"})
    other = {**AGENT_INFO, "checksum": "0" * 64}
    mismatch = await register(shared, agent, agent_info=other)
    assert (mismatch.status, mismatch.fields) == (422, {"agent_info.checksum"})


async def test_a_wrong_agent_stays_unready_with_its_reason(served: Served, agent: str) -> None:
    async with served(WORKER_AGENT_SHA256="f" * 64) as service:
        shared = caller_of(service, service.worker_token)
        own = shared.with_key((await register(shared, agent)).json["token"])
        reply = await beat(own)
        assert reply.json["ready"] is False
        assert reply.json["reason"] == (
            f"agent checksum is {AGENT_INFO['checksum']}, not {'f' * 64}"
        )
        (worker,) = await service.store.workers("default")
        assert not worker.ready


async def test_the_right_agent_is_ready(served: Served, agent: str) -> None:
    async with served(WORKER_AGENT_SHA256=AGENT_INFO["checksum"]) as service:
        shared = caller_of(service, service.worker_token)
        own = shared.with_key((await register(shared, agent)).json["token"])
        assert (await beat(own)).json["ready"] is True


async def test_an_endless_info_is_refused_before_it_fills_the_memory(shared: Caller) -> None:
    sent = 0

    async def blanks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(ConnectionError):
            while sent < 64 * 2**20:
                writer.write(b" " * 65_536)
                sent += 65_536
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(blanks, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    refused = await register(shared, f"http://127.0.0.1:{port}")
    assert (refused.status, refused.fields) == (422, {"url"})
    assert sent < 32 * 2**20
    server.close()
    await server.wait_closed()


async def test_a_fingerprint_is_of_the_certificate_that_is_shown(
    shared: Caller, agent: str
) -> None:
    plain = await register(shared, agent, fingerprint="0" * 64)
    assert (plain.status, "https://" in plain.json["detail"]) == (422, True)
    other = await register(shared, agent.replace("http:", "https:"), fingerprint="0" * 64)
    assert (other.status, other.fields) == (422, {"url"})
    short = await register(shared, agent, fingerprint="0")
    assert (short.status, short.fields) == (422, {"fingerprint"})


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/admin/workers/w9/rotate"), ("DELETE", "/admin/workers/w9")]
)
async def test_only_an_admin_rotates_and_revokes(
    admin: Caller, shared: Caller, method: str, path: str
) -> None:
    reply = await admin(method, path)
    assert (reply.status, reply.fields) == (404, {"worker_id"})
    assert (await shared(method, path)).status == 403


async def test_a_revoked_worker_is_told_so(own: Caller, shared: Caller, admin: Caller) -> None:
    await beat(own)
    assert (await admin("POST", "/admin/workers/w1/rotate")).json["rotating"] is True
    assert (await beat(own)).json["rotate"] is True
    assert (await admin("DELETE", "/admin/workers/w1")).json == {
        "worker_id": "w1",
        "revoked": True,
    }
    told = [await beat(own), await register(shared, "http://127.0.0.1:1")]
    assert [(reply.status, reply.json["code"]) for reply in told] == [(403, "worker_revoked")] * 2


async def test_a_static_upstream_has_no_secrets(admin: Caller, service: Service) -> None:
    await ready_worker(service)
    reply = await admin("POST", "/admin/workers/w/rotate")
    assert (reply.status, reply.json["code"]) == (409, "static_worker")
