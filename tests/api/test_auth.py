"""Who may call (DESIGN section 5): keys, user tokens, Open WebUI's identity."""

import base64
import time
from typing import Any

import jwt
import pytest

from admission.auth import TOKEN_LIFE_S
from admission.signing import SigningKey
from tests.api.calls import Caller, caller_of, raw_call
from tests.api.conftest import Served
from tests.conftest import Service

OPEN_TO_USERS = [
    ("POST", "/queue/join/ada"),
    ("POST", "/queue/confirm/ada"),
    ("POST", "/queue/heartbeat/ada"),
    ("GET", "/queue/status/ada"),
    ("GET", "/queue/events/ada"),
    ("POST", "/queue/leave/ada"),
]
FOR_SERVICES = [("GET", "/queue/metrics"), ("GET", "/queue/status")]
FOR_ADMINS = [
    ("GET", "/admin/pools"),
    ("PUT", "/admin/pools/default"),
    ("GET", "/admin/workers"),
    ("POST", "/admin/workers/w1/drain"),
    ("POST", "/admin/workers/w1/release"),
]
FOR_WORKERS = [
    ("POST", "/workers/register"),
    ("POST", "/workers/heartbeat"),
    ("POST", "/workers/w1/drain"),
]
GATEWAY = [("GET", "/v1/models"), ("POST", "/v1/chat/completions")]


@pytest.fixture
async def token(call: Caller) -> str:
    """A user token of ada, who has joined."""
    joined = (await call("POST", "/queue/join/ada")).json
    value: str = joined["token"]
    return value


async def signed(service: Service, **changes: Any) -> str:
    """A user token as the service would sign it, but for ``changes``."""
    now_s = int(time.time())
    claims = {"iss": "vestibule", "sub": "ada", "iat": now_s, "exp": now_s + TOKEN_LIFE_S}
    (text,) = (await service.store.keys.rows("signing_keys")).values()
    key = SigningKey.read(text)
    return jwt.encode({**claims, **changes}, key.private, "EdDSA", headers={"kid": key.kid})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer nobody-knows-this"},
        {"Authorization": "Basic c2VydmljZS1rZXk="},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer caf\u00e9"},
        {"X-OpenWebUI-User-Id": "ada"},
    ],
    ids=["none", "unknown", "basic", "empty", "not ASCII", "identity alone"],
)
async def test_no_key_or_an_unknown_one_is_401(call: Caller, headers: dict[str, str]) -> None:
    for method, path in [*OPEN_TO_USERS, *FOR_SERVICES, *FOR_ADMINS, *GATEWAY]:
        reply = await call.with_key(None)(method, path, headers=headers)
        assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer"), path


@pytest.mark.parametrize(("method", "path"), FOR_WORKERS)
async def test_a_worker_without_a_key_is_401(call: Caller, method: str, path: str) -> None:
    assert (await call.with_key(None)(method, path, {})).status == 401


@pytest.mark.parametrize(
    ("key", "calls"),
    [
        ("worker-token", [*OPEN_TO_USERS, *FOR_SERVICES, *FOR_ADMINS, *GATEWAY]),
        ("service-key", [*FOR_ADMINS, *FOR_WORKERS]),
        ("of ada", [*FOR_SERVICES, *FOR_ADMINS, *FOR_WORKERS]),
        ("of bob", OPEN_TO_USERS),
    ],
)
async def test_the_wrong_kind_of_key_is_403(
    call: Caller, service: Service, key: str, calls: list[tuple[str, str]]
) -> None:
    if key.startswith("of "):
        key = await signed(service, sub=key.removeprefix("of "))
    for method, path in calls:
        assert (await call.with_key(key)(method, path, {})).status == 403, path


async def test_a_user_token_acts_for_its_user(call: Caller, token: str) -> None:
    user = call.with_key(token)
    for method, path in OPEN_TO_USERS:
        if "events" not in path:
            assert (await user(method, path)).status == 200, path


async def test_an_admin_key_may_do_everything(call: Caller, admin: Caller) -> None:
    for method, path in [*OPEN_TO_USERS, *FOR_SERVICES, ("GET", "/v1/models")]:
        if "events" not in path:
            assert (await admin(method, path)).status == 200, path


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": 1}, "expired"),
        ({"iss": "somebody"}, "Nobody knows"),
        ({"sub": None}, "Nobody knows"),
        ({"exp": None}, "Nobody knows"),
    ],
)
async def test_a_token_that_is_not_good_is_401(
    call: Caller, service: Service, token: str, changes: dict[str, Any], why: str
) -> None:
    bad = await signed(service, **changes)
    reply = await call.with_key(bad)("GET", "/queue/status/ada")
    assert reply.status == 401
    assert why in reply.json["detail"]


async def test_a_token_of_another_signer_is_401(call: Caller, token: str) -> None:
    claims = jwt.decode(token, options={"verify_signature": False})
    forged = [jwt.encode(claims, "x" * 32, "HS256"), jwt.encode(claims, "", "none")]
    for bad in (*forged, token[:-4] + "AAAA"):
        assert (await call.with_key(bad)("GET", "/queue/status/ada")).status == 401


@pytest.mark.parametrize("header", [b"[" * 5000, b"\xff", b'{"alg": 7}', b"{}"])
async def test_a_token_with_a_header_of_nonsense_is_401(call: Caller, header: bytes) -> None:
    bad = base64.urlsafe_b64encode(header).decode().rstrip("=") + ".e30.AAAA"
    assert (await call.with_key(bad)("GET", "/queue/status/ada")).status == 401


async def test_a_token_lives_an_hour_and_is_renewed_past_half_of_it(
    call: Caller, service: Service, token: str
) -> None:
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == TOKEN_LIFE_S <= 3600
    assert "token" not in (await call.with_key(token)("GET", "/queue/status/ada")).json
    old = await signed(service, exp=int(time.time()) + TOKEN_LIFE_S // 2 - 5)
    renewed = (await call.with_key(old)("POST", "/queue/heartbeat/ada")).json["token"]
    assert jwt.decode(renewed, options={"verify_signature": False})["exp"] >= claims["exp"]
    assert "token" not in (await call("GET", "/queue/status/ada")).json


async def test_the_clock_of_another_replica_may_be_ahead(call: Caller, service: Service) -> None:
    early = await signed(service, iat=int(time.time()) + 20)
    assert (await call.with_key(early)("GET", "/queue/status/ada")).status == 404


async def test_all_replicas_accept_each_others_tokens(served: Served) -> None:
    async with served() as one, served() as other:
        joined = (await caller_of(one)("POST", "/queue/join/ada")).json
        user = caller_of(other, joined["token"])
        assert (await user("GET", "/queue/status/ada")).json["ticket_id"] == joined["ticket_id"]


async def test_auth_off_drops_the_checks_of_users_only(served: Served) -> None:
    async with served(VESTIBULE_AUTH="off") as service:
        nobody = caller_of(service).with_key(None)
        for method, path in [*OPEN_TO_USERS, *FOR_SERVICES, ("GET", "/v1/models")]:
            if "events" not in path:
                assert (await nobody(method, path)).status == 200, path
        for method, path in [*FOR_ADMINS, *FOR_WORKERS]:
            assert (await nobody(method, path)).status == 401, path


async def chat_as(call: Caller, **headers: str) -> tuple[int, str]:
    """Status and code of a chat; with a user who is believed it goes on to look for the model."""
    reply = await call("POST", "/v1/chat/completions", {"model": "tiny"}, headers=headers)
    return reply.status, reply.json["error"]["code"]


async def test_the_plain_header_names_the_user_beside_a_service_key(call: Caller) -> None:
    ada = {"X-OpenWebUI-User-Id": "ada"}
    assert await chat_as(call, **ada) == (404, "model_not_found")
    assert await chat_as(call.with_key(None), **ada) == (401, "unauthorized")
    assert await chat_as(call.with_key("worker-token"), **ada) == (403, "forbidden")
    assert await chat_as(call, **{"X-OpenWebUI-User-Id": "a/b"}) == (422, "bad_input")


async def test_a_chat_of_nobody_names_the_setting_of_open_webui(call: Caller) -> None:
    reply = await call("POST", "/v1/chat/completions", {"model": "tiny"})
    assert reply.status == 400
    assert reply.json["error"]["param"] == "X-OpenWebUI-User-Id"
    assert "ENABLE_FORWARD_USER_INFO_HEADERS" in reply.json["error"]["message"]


async def test_a_jwt_header_that_is_no_text_is_401(served: Served) -> None:
    async with served(VESTIBULE_OWUI_JWT_SECRET=SECRET) as service:
        answer = await raw_call(
            service,
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Authorization: Bearer service-key\r\nContent-Length: 0\r\n"
            b"X-OpenWebUI-User-Jwt: \xff\xfe\r\n\r\n",
        )
    assert answer.startswith(b"HTTP/1.1 401")


SECRET = "a secret of Open WebUI, 32 bytes or more"


def identity(secret: str = SECRET, **changes: Any) -> str:
    """The JWT that Open WebUI 0.12.4 sends, but for ``changes``."""
    now_s = int(time.time())
    claims = {"iss": "open-webui", "sub": "ada", "iat": now_s, "exp": now_s + 300, "role": "user"}
    return jwt.encode({**claims, **changes}, secret, "HS256")


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({"X-OpenWebUI-User-Jwt": identity()}, (404, "model_not_found")),
        ({"X-OpenWebUI-User-Jwt": identity("y" * 40)}, (401, "unauthorized")),
        ({"X-OpenWebUI-User-Jwt": identity(exp=1)}, (401, "unauthorized")),
        ({"X-OpenWebUI-User-Jwt": identity(iss="vestibule")}, (401, "unauthorized")),
        ({"X-OpenWebUI-User-Jwt": "caf\u00e9"}, (401, "unauthorized")),
        ({"X-OpenWebUI-User-Jwt": identity(sub="a b")}, (422, "bad_input")),
        ({"X-OpenWebUI-User-Id": "ada"}, (400, "user_missing")),
        (
            {"X-OpenWebUI-User-Id": "ada", "X-OpenWebUI-User-Jwt": identity("y" * 40)},
            (401, "unauthorized"),
        ),
    ],
    ids=["valid", "forged", "expired", "issuer", "no JWT", "no user id", "plain", "both"],
)
async def test_with_the_secret_only_the_jwt_names_the_user(
    served: Served, headers: dict[str, str], answer: tuple[int, str]
) -> None:
    async with served(VESTIBULE_OWUI_JWT_SECRET=SECRET) as service:
        assert await chat_as(caller_of(service), **headers) == answer
        assert await chat_as(caller_of(service).with_key(None), **headers) == (401, "unauthorized")
