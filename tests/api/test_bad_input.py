"""Wrong bodies, paths and queries: 4xx problem+json that names the field; nothing changes."""

from typing import Any

import pytest
from redis.asyncio import Redis

from admission.wire import BODY_BYTES_MAX
from tests.api.calls import AGENT_INFO, Caller, Reply, caller_of, contents
from tests.api.fleet import HARDWARE, LOAD, registration, report
from tests.conftest import Service

JOIN, LEAVE, POOL = "/queue/join/ada", "/queue/leave/ada", "/admin/pools/default"
REGISTER, BEAT = "/workers/register", "/workers/heartbeat"


def keyed(service: Service, path: str) -> Caller:
    """A caller with the key that ``path`` needs."""
    key = {
        "/admin": service.admin_key,
        REGISTER: service.worker_token,
        BEAT: "of-a-worker",
    }
    return caller_of(service, next((key[name] for name in key if path.startswith(name)), None))


async def refused(service: Service, redis: Redis, method: str, path: str, **given: Any) -> Reply:
    """The reply to a call that must change nothing and leak nothing."""
    await caller_of(service)("POST", "/queue/join/ada")
    before = await contents(redis)
    reply = await keyed(service, path)(method, path, **given)
    assert await contents(redis) == before
    assert "Traceback" not in reply.text
    assert 400 <= reply.status < 500
    kind = "application/json" if path.startswith("/v1/") else "application/problem+json"
    assert reply.kind == kind
    if kind == "application/problem+json":
        assert {"type", "title", "status", "detail"} <= set(reply.json)
        assert reply.json["status"] == reply.status
    return reply


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (JOIN, {"unknown": 1}, "unknown"),
        (JOIN, {"auto_confirm": "yes"}, "auto_confirm"),
        (JOIN, {"will_return": 1}, "will_return"),
        (JOIN, {"model": ""}, "model"),
        (JOIN, {"model": 7}, "model"),
        (JOIN, {"model": "m" * 257}, "model"),
        (JOIN, {"client": ""}, "client"),
        (JOIN, {"client": "c" * 129}, "client"),
        (JOIN, {"client": ["c"]}, "client"),
        (JOIN, {"request_id": ""}, "request_id"),
        (JOIN, {"priority": "royal"}, "priority"),
        (JOIN, [], "body"),
        (JOIN, "text", "body"),
        (LEAVE, {"client": ""}, "client"),
        (LEAVE, {"ticket_id": 5}, "ticket_id"),
        ("/queue/confirm/ada", {"ticket_id": ""}, "ticket_id"),
        ("/queue/confirm/ada", {"ticket": "x"}, "ticket"),
        ("/queue/heartbeat/ada", {"client": None, "x": None}, "x"),
        (REGISTER, {}, "worker_id"),
        (REGISTER, registration("http://127.0.0.1:9", worker_id="a/b"), "worker_id"),
        (REGISTER, registration("http://127.0.0.1:9", worker_id="w" * 65), "worker_id"),
        (REGISTER, registration("ftp://127.0.0.1"), "url"),
        (REGISTER, registration("http://127.0.0.1/path"), "url"),
        (REGISTER, registration("http://me:secret@127.0.0.1:9"), "url"),
        (REGISTER, registration("http://[::1"), "url"),
        (REGISTER, registration("http://127.0.0.1:99999"), "url"),
        (REGISTER, registration("http://127.0.0.1:no"), "url"),
        (REGISTER, registration("http://a..b"), "url"),
        (REGISTER, registration("http://" + "a" * 300), "url"),
        (REGISTER, registration("http://a\u0000b"), "url"),
        (REGISTER, registration("http://no-such-host.invalid"), "url"),
        (REGISTER, registration("http://127.0.0.1:9", slots=0), "slots"),
        (REGISTER, registration("http://127.0.0.1:9", slots=True), "slots"),
        (REGISTER, registration("http://127.0.0.1:9", models=[""]), "models.0"),
        (REGISTER, registration("http://127.0.0.1:9", pool="A"), "pool"),
        (REGISTER, registration("http://127.0.0.1:9", pool="nowhere"), "pool"),
        (
            REGISTER,
            registration("http://127.0.0.1:9", agent_info={**AGENT_INFO, "checksum": "abc"}),
            "agent_info.checksum",
        ),
        (BEAT, report(ready="yes"), "ready"),
        (BEAT, report(in_flight=-1), "in_flight"),
        (BEAT, report(load={**LOAD, "gpu_load": 2}), "load.gpu_load"),
        (BEAT, report(load={"fans": 3}), "load.fans"),
        (BEAT, report(hardware={**HARDWARE, "disk_free_mb": "all"}), "hardware.disk_free_mb"),
        (BEAT, report(agent_info=None), "agent_info"),
    ],
)
async def test_a_wrong_field_is_named(
    service: Service, redis: Redis, path: str, body: Any, field: str
) -> None:
    reply = await refused(service, redis, "POST", path, body=body)
    assert reply.status == (
        404 if body == registration("http://127.0.0.1:9", pool="nowhere") else 422
    )
    assert field in reply.fields
    assert field in reply.json["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"capacity": -1}, "capacity"),
        ({"capacity": "many"}, "capacity"),
        ({"capacity": True}, "capacity"),
        ({"capacity": 1.5}, "capacity"),
        ({"capacity": []}, "capacity"),
        ({"capacity": 10**400}, "capacity"),
        ({"paused": "no"}, "paused"),
        ({"kind": "lottery"}, "kind"),
        ({"user_concurrency": 0}, "user_concurrency"),
        ({"priorities": {"vip": {"weight": 0}}}, "priorities.vip.weight"),
        ({"priorities": {"VIP": {}}}, "priorities.VIP.[key]"),
        ({"session_duration": 0}, "session_duration"),
        ({"draft_duration": 10**12}, "draft_duration"),
        ({"sessions_per_slot": 0}, "sessions_per_slot"),
        ({"max_active": 3}, "max_active"),
    ],
)
async def test_a_wrong_setting_of_a_pool_is_named(
    service: Service, redis: Redis, body: dict[str, Any], field: str
) -> None:
    reply = await refused(service, redis, "PUT", POOL, body=body)
    assert (reply.status, reply.fields) == (422, {field})


@pytest.mark.parametrize(
    "user",
    ["a%2Fb", "a%0Ab", "%C3%A9", "%FF", "%00", "a%20b", "%ED%A0%80", "%25", "u" * 129, "a%5Cb"],
)
@pytest.mark.parametrize(
    ("method", "call"), [("POST", "join"), ("GET", "status"), ("GET", "events")]
)
async def test_what_is_no_user_id_is_refused(
    service: Service, redis: Redis, method: str, call: str, user: str
) -> None:
    reply = await refused(service, redis, method, f"/queue/{call}/{user}")
    assert (reply.status, reply.fields) == (422, {"user_id"})


@pytest.mark.parametrize("user", ["a.b_c-d", "ada%40example.org", "x%7Cy:z+1", "a+b", "u" * 128])
async def test_every_letter_of_a_user_id_is_taken_as_it_is(call: Caller, user: str) -> None:
    view = (await call("POST", f"/queue/join/{user}")).json
    assert view["user_id"] == user.replace("%40", "@").replace("%7C", "|")
    assert (await call("GET", f"/queue/status/{user}")).status == 200


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/queue/status/ada?pool=NO", 422, "pool"),
        ("/queue/status/ada?pool=", 422, "pool"),
        ("/queue/status/ada?pool=%FF%0A", 422, "pool"),
        ("/queue/status/ada?pool=" + "p" * 65, 422, "pool"),
        ("/queue/status/ada?pool=nowhere", 404, "pool"),
        ("/queue/metrics?pool=nowhere", 404, "pool"),
        ("/queue/status?pool=a%7Db", 422, "pool"),
        ("/queue/status?offset=-1", 422, "offset"),
        ("/queue/status?limit=1001", 422, "limit"),
        ("/queue/status?limit=ten", 422, "limit"),
        ("/queue/status?limit=", 422, "limit"),
        ("/queue/status?limit=%C2%B2", 422, "limit"),
        ("/queue/status?limit=1e3", 422, "limit"),
        ("/queue/status?offset=" + "9" * 5000, 422, "offset"),
    ],
)
async def test_a_wrong_query_is_named(
    service: Service, redis: Redis, path: str, status: int, field: str
) -> None:
    reply = await refused(service, redis, "GET", path)
    assert (reply.status, reply.fields) == (status, {field})


async def test_a_pool_with_a_bad_name_is_refused(service: Service, redis: Redis) -> None:
    for name in ("A", "a_b", "a%0A", "p" * 65):
        reply = await refused(service, redis, "PUT", f"/admin/pools/{name}", body={"paused": True})
        assert (reply.status, reply.fields) == (422, {"pool"})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/queue/join/a/b", 404),
        ("POST", "/queue/join/", 404),
        ("GET", JOIN, 405),
        ("DELETE", "/queue/status", 405),
        ("GET", "/v1/embeddings", 405),
        ("GET", "/v1/chat/completions", 405),
    ],
)
async def test_no_such_path_or_method(
    service: Service, redis: Redis, method: str, path: str, status: int
) -> None:
    reply = await refused(service, redis, method, path)
    assert reply.status == status
    assert ("Allow" in reply.headers) == (status == 405)
    if path.startswith("/v1/"):
        assert set(reply.json["error"]) >= {"message", "type", "param", "code"}


async def test_a_rest_body_above_64_kib_is_413(service: Service, redis: Redis) -> None:
    large = b'{"client": "' + b"c" * BODY_BYTES_MAX + b'"}'
    reply = await refused(service, redis, "POST", JOIN, data=large)
    assert (reply.status, reply.fields) == (413, {"body"})
