"""Keys, projects and priorities that an admin makes (DESIGN section 5, "Who may call")."""

import asyncio
import json
import time
from dataclasses import asdict
from typing import Any

import pytest
from redis.asyncio import Redis

from admission.auth import Gatekeeper, hash_key
from admission.auth.keyring import LOOKS, ApiKey, key_id
from admission.clock import ManualClock
from admission.store import connection
from tests.api.calls import Caller, caller_of, contents, until
from tests.api.conftest import Served, served_at
from tests.api.valkey import own_valkey
from tests.conftest import Service, service_settings

STOPS_WITHIN_S = 1.0
# kind -> a call that only it and an admin may make
OWN_CALL = {
    "admin": ("GET", "/admin/pools"),
    "service": ("GET", "/queue/metrics"),
    "user": ("POST", "/queue/join/ada"),
}


async def made(admin: Caller, kind: str = "service", **facts: Any) -> dict[str, Any]:
    """A new key, as its maker is told."""
    if kind == "user":
        facts = {"user": "ada", **facts}
    reply = await admin("POST", "/admin/keys", {"kind": kind, **facts})
    assert reply.status == 201, reply.text
    told: dict[str, Any] = reply.json
    return told


async def works(call: Caller, key: str) -> bool:
    return (await call.with_key(key)("GET", "/queue/metrics")).status == 200


@pytest.mark.parametrize("kind", OWN_CALL)
async def test_a_key_is_good_for_its_kind_only(call: Caller, admin: Caller, kind: str) -> None:
    key = call.with_key((await made(admin, kind))["key"])
    allowed = {other for other, route in OWN_CALL.items() if (await key(*route)).status == 200}
    expected = {"admin": {"admin", "service", "user"}, "service": {"service", "user"}}
    assert allowed == expected.get(kind, {kind})


async def test_a_user_key_acts_for_its_user_and_nobody_else(call: Caller, admin: Caller) -> None:
    ada = call.with_key((await made(admin, "user"))["key"])
    joined = (await ada("POST", "/queue/join/ada")).json
    assert joined["token"]
    assert (await ada("POST", "/queue/join/bob")).status == 403
    assert "token" not in (await ada("GET", "/queue/status/ada")).json  # a key needs no renewal
    chat = await ada("POST", "/v1/chat/completions", {"model": "tiny"})
    assert chat.json["error"]["code"] == "model_not_found"  # so the key says who the user is


async def test_a_worker_key_registers_and_does_nothing_else(call: Caller, admin: Caller) -> None:
    worker = call.with_key((await made(admin, "worker"))["key"])
    assert (await worker("POST", "/workers/register", {})).status == 422
    assert (await worker("POST", "/workers/heartbeat", {})).status == 403
    assert (await worker("POST", "/queue/join/ada")).status == 403


@pytest.mark.parametrize("kind", ["service", "admin", "user", "worker"])
async def test_the_text_is_told_once_and_kept_as_a_hash(
    admin: Caller, redis: Redis, kind: str
) -> None:
    told = await made(admin, kind, label="of a course")
    text = told.pop("key")
    assert text.startswith(f"vst_{kind}_")  # scanners for leaked secrets look for a prefix
    listed = await admin("GET", "/admin/keys")
    assert listed.json == {"keys": [told]}
    assert hash_key(text) not in listed.text
    kept = await redis.hgetall("vestibule:{_global}:keys")
    assert hash_key(text).encode() in kept[told["id"].encode()]
    assert not [1 for value in (await contents(redis)).values() if text.encode() in value]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "kind"),
        ({"kind": "root"}, "kind"),
        ({"kind": "user"}, "body"),
        ({"kind": "service", "user": "ada"}, "body"),
        ({"kind": "user", "user": "a b"}, "user"),
        ({"kind": "service", "project": "nowhere"}, "project"),
        ({"kind": "service", "project": "A B"}, "project"),
        ({"kind": "service", "priority": "V I P"}, "priority"),
        ({"kind": "service", "expires_in": 0}, "expires_in"),
        ({"kind": "service", "label": "x" * 129}, "label"),
        ({"kind": "service", "colour": "red"}, "colour"),
    ],
)
async def test_a_bad_key_names_the_field_and_changes_nothing(
    admin: Caller, redis: Redis, body: dict[str, Any], field: str
) -> None:
    before = await contents(redis)
    reply = await admin("POST", "/admin/keys", body)
    assert (reply.status, reply.json["field"]) == (422, field)
    assert await contents(redis) == before


async def test_only_admins_make_see_and_delete_keys(call: Caller, admin: Caller) -> None:
    made_key = await made(admin)
    for key in (made_key["key"], call.key, (await made(admin, "user"))["key"]):
        for method, path in [
            ("POST", "/admin/keys"),
            ("GET", "/admin/keys"),
            ("DELETE", f"/admin/keys/{made_key['id']}"),
            ("GET", "/admin/projects"),
            ("PUT", "/admin/projects/p"),
            ("DELETE", "/admin/projects/p"),
            ("GET", "/admin/priorities"),
            ("PUT", "/admin/priorities/ada"),
            ("DELETE", "/admin/priorities/ada"),
            ("GET", "/admin/signing-keys"),
            ("POST", "/admin/signing-keys"),
            ("DELETE", "/admin/signing-keys/x"),
        ]:
            assert (await call.with_key(key)(method, path, {})).status == 403, path
            assert (await call.with_key(None)(method, path, {})).status == 401, path


async def test_a_deleted_key_is_401_at_once(call: Caller, admin: Caller) -> None:
    key = await made(admin)
    assert await works(call, key["key"])
    assert (await admin("DELETE", f"/admin/keys/{key['id']}")).json["deleted"]
    assert (await call.with_key(key["key"])("GET", "/queue/metrics")).status == 401
    assert (await admin("DELETE", f"/admin/keys/{key['id']}")).status == 404


async def test_every_process_knows_a_new_key_at_once_and_forgets_it_within_a_second(
    served: Served,
) -> None:
    async with served() as one, served() as other:
        admin = caller_of(one, one.admin_key)
        key = await made(admin)
        assert await works(caller_of(other), key["key"])
        await admin("DELETE", f"/admin/keys/{key['id']}")
        deleted_at = asyncio.get_running_loop().time()

        async def stopped() -> bool:
            return not await works(caller_of(other), key["key"])

        await until(stopped)
        assert asyncio.get_running_loop().time() - deleted_at <= STOPS_WITHIN_S


async def test_keys_are_rotated_without_an_outage(served: Served) -> None:
    """The new one before the old one goes: at each moment one of them works everywhere."""
    async with served() as one, served() as other:
        admin = caller_of(one, one.admin_key)
        old = await made(admin)
        new = await made(admin)
        assert await works(caller_of(other), old["key"])
        await admin("DELETE", f"/admin/keys/{old['id']}")
        assert await works(caller_of(other), new["key"])
        assert await works(caller_of(other), other.service_key)  # of the environment


async def kept(service: Service, text: str, **facts: Any) -> None:
    """Keep a key as another process would, with facts of our own."""
    digest = hash_key(text)
    key = ApiKey(key_id(digest), digest, "service", "", 0)
    row = json.dumps({**asdict(key), **facts})
    await service.store.keys.put("keys", key.id, row)


async def test_a_key_ends_when_it_expires(call: Caller, admin: Caller, service: Service) -> None:
    lasting = await made(admin, expires_in=60)
    assert await works(call, lasting["key"])
    now_ms = int(time.time() * 1000)
    await kept(service, "vst_service_over", expires_ms=now_ms - 1)
    await kept(service, "vst_service_good", expires_ms=now_ms + 60_000)
    assert not await works(call, "vst_service_over")
    assert await works(call, "vst_service_good")


async def test_known_keys_go_on_while_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT_S", 0.2)
    async with own_valkey() as server, served_at(server.url, ManualClock()) as service:
        call = caller_of(service)
        key = call.with_key((await made(caller_of(service, service.admin_key)))["key"])
        user = call.with_key((await call("POST", "/queue/join/ada")).json["token"])
        await server.kill()
        for known in (key, user):
            assert (await known("GET", "/v1/models")).status == 200
        assert (await call.with_key("nobody")("GET", "/v1/models")).status == 401
        unknown = await call.with_key("vst_service_new")("GET", "/v1/models")
        assert (unknown.status, unknown.json["error"]["code"]) == (503, "store_unavailable")
        await server.start()


async def test_strangers_cannot_make_redis_work(call: Caller, redis: Redis) -> None:
    async def reads() -> int:
        stats = await redis.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("hgetall",))

    await redis.config_resetstat()
    for i in range(10 * LOOKS):
        reply = await call.with_key(f"vst_service_{i}")("GET", "/queue/metrics")
        assert reply.status == 401
        assert (await call.with_key(f"guess-{i}")("GET", "/queue/metrics")).status == 401
    # Two or three renewals may have come meanwhile, each of which allows as many looks again.
    assert await reads() < 5 * LOOKS


async def test_a_key_belongs_to_a_project(call: Caller, admin: Caller) -> None:
    put = await admin("PUT", "/admin/projects/biology", {"label": "Biology 101"})
    assert (put.status, put.json["label"]) == (200, "Biology 101")
    key = await made(admin, "user", project="biology")
    assert key["project"] == "biology"
    again = await admin("PUT", "/admin/projects/biology", {"label": "Biology 102"})
    assert again.json == {**put.json, "label": "Biology 102"}
    assert (await admin("GET", "/admin/projects")).json == {"projects": [again.json]}
    assert (await admin("GET", "/admin/projects/biology")).json == again.json
    assert (await admin("DELETE", "/admin/projects/biology")).status == 409
    await admin("DELETE", f"/admin/keys/{key['id']}")
    assert (await admin("DELETE", "/admin/projects/biology")).json["deleted"]
    for method in ("GET", "DELETE"):
        assert (await admin(method, "/admin/projects/biology")).status == 404
    assert (await admin("PUT", "/admin/projects/a%20b", {})).json["field"] == "id"


async def test_a_project_that_another_process_just_made_takes_keys(
    admin: Caller, service: Service
) -> None:
    other = Gatekeeper(service_settings(), service.store.keys).keyring
    await other.keep_project("chemistry", "")
    assert (await made(admin, "user", project="chemistry"))["project"] == "chemistry"


async def test_an_admin_gives_a_user_a_priority(served: Served) -> None:
    async with served(VESTIBULE_PRIORITIES="vip=600") as service:
        call, admin = caller_of(service), caller_of(service, service.admin_key)
        await call("POST", "/queue/join/first")
        put = await admin("PUT", "/admin/priorities/ada", {"priority": "vip"})
        assert put.json == {"user_id": "ada", "priority": "vip"}
        assert (await admin("GET", "/admin/priorities")).json == {"priorities": {"ada": "vip"}}
        await call("POST", "/queue/join/bob")
        assert (await call("POST", "/queue/join/ada")).json["position"] == 1
        assert (await admin("DELETE", "/admin/priorities/ada")).status == 200
        assert (await admin("DELETE", "/admin/priorities/ada")).status == 404
        assert (await admin("GET", "/admin/priorities/ada")).json["priority"] is None
        bad = await admin("PUT", "/admin/priorities/ada", {"priority": ""})
        assert (bad.status, bad.json["field"]) == (422, "priority")


async def test_a_key_gives_its_user_a_priority(served: Served) -> None:
    async with served(VESTIBULE_PRIORITIES="vip=600") as service:
        call, admin = caller_of(service), caller_of(service, service.admin_key)
        for user in ("first", "bob"):
            await call("POST", f"/queue/join/{user}")
        ada = call.with_key((await made(admin, "user", priority="vip"))["key"])
        assert (await ada("POST", "/queue/join/ada")).json["position"] == 1
