"""User tokens: checked with the key set alone, signed by keys that change without an outage."""

import asyncio
import json
import subprocess
import sys
import time
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from redis.asyncio import Redis

from admission.auth import Gatekeeper, tokens
from admission.settings import SettingsError, read_settings
from admission.signing import SigningKey
from admission.store.key_store import KeyStore
from tests.api.calls import Caller, caller_of, until
from tests.api.conftest import Served
from tests.conftest import Service, service_settings

KEY_SET = "/.well-known/jwks.json"
AT_ONCE = {"signs_in": 0}
# What another frontend runs: it has the key set and the token, and nothing of ours.
VERIFIER = """
import json, sys, jwt
keys, token = json.loads(sys.stdin.read())
key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
print(json.dumps(jwt.decode(token, key, issuer="vestibule")))
"""


async def token_of(call: Caller, user: str = "ada") -> str:
    token: str = (await call("POST", f"/queue/join/{user}")).json["token"]
    return token


async def key_set(call: Caller) -> dict[str, Any]:
    reply = await call.with_key(None)("GET", KEY_SET)
    assert reply.status == 200
    keys: dict[str, Any] = reply.json
    return keys


async def kids(call: Caller) -> list[str]:
    return [key["kid"] for key in (await key_set(call))["keys"]]


def kid_of(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


def checked(keys: dict[str, Any], token: str) -> dict[str, Any]:
    """The claims, as a library without our code reads them."""
    key = jwt.PyJWKSet.from_dict(keys)[kid_of(token)]
    claims: dict[str, Any] = jwt.decode(token, key, issuer="vestibule")
    return claims


async def status_with(call: Caller, token: str) -> int:
    """404 is the answer to a good token of somebody who has not joined."""
    return (await call.with_key(token)("GET", "/queue/status/ada")).status


async def test_another_process_checks_a_token_with_the_key_set_alone(call: Caller) -> None:
    token, keys = await token_of(call), await key_set(call)
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-I", "-c", VERIFIER],
        input=json.dumps([keys, token]),
        capture_output=True,
        text=True,
        check=True,
    )
    claims = json.loads(done.stdout)
    assert (claims["iss"], claims["sub"]) == ("vestibule", "ada")
    assert claims["exp"] - claims["iat"] <= 3600


async def test_the_key_set_is_public_cacheable_and_holds_no_secret(call: Caller) -> None:
    reply = await call.with_key(None)("GET", KEY_SET)
    assert reply.headers["Cache-Control"].startswith("public, max-age=")
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    (key,) = reply.json["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
    assert (key["kty"], key["alg"], key["use"]) == ("OKP", "EdDSA", "sig")


async def test_a_token_says_its_project(call: Caller, admin: Caller) -> None:
    await admin("PUT", "/admin/projects/biology", {})
    made = await admin("POST", "/admin/keys", {"kind": "user", "user": "ada", "project": "biology"})
    token = await token_of(call.with_key(made.json["key"]))
    assert checked(await key_set(call), token)["project"] == "biology"


async def test_a_token_is_checked_with_our_algorithm_only(call: Caller, service: Service) -> None:
    """Whatever its header says: the public key is no secret of HS256, and "none" is none."""
    token = await token_of(call)
    (text,) = (await service.store.keys.rows("signing_keys")).values()
    private = SigningKey.read(text).private
    public = private.public_key()
    claims, header = jwt.decode(token, options={"verify_signature": False}), {"kid": kid_of(token)}
    secrets = [
        public.public_bytes(Encoding.Raw, PublicFormat.Raw),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip(b"-"),
        (await key_set(call))["keys"][0]["x"].encode(),
    ]
    forged = [
        *(jwt.encode(claims, secret, "HS256", headers=header) for secret in secrets),
        jwt.encode(claims, "", "none", headers=header),
        jwt.encode(claims, Ed25519PrivateKey.generate(), "EdDSA", headers=header),
        jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256", headers=header),
        jwt.encode(claims, private, "EdDSA"),  # of nobody: it names no key
    ]
    for bad in forged:
        assert await status_with(call, bad) == 401
    assert await status_with(call, jwt.encode(claims, private, "EdDSA", headers=header)) == 200


async def test_a_rotation_is_no_outage(call: Caller, admin: Caller) -> None:
    old = await token_of(call)
    rotated = await admin("POST", "/admin/signing-keys", AT_ONCE)
    assert [key["signs"] for key in rotated.json["signing_keys"]] == [False, True]
    new = await token_of(call)
    assert kid_of(new) != kid_of(old)
    assert await kids(call) == [kid_of(old), kid_of(new)]
    for token in (old, new):
        assert await status_with(call, token) == 200
        assert checked(await key_set(call), token)["sub"] == "ada"


async def test_a_new_key_is_published_before_it_signs(call: Caller, admin: Caller) -> None:
    """Whoever may keep the key set for a while has the new key before the first token of it."""
    old = await token_of(call)
    age_s = int((await call("GET", KEY_SET)).headers["Cache-Control"].split("=")[1])
    (_, new) = (await admin("POST", "/admin/signing-keys", {})).json["signing_keys"]
    assert new["kid"] in await kids(call)
    assert kid_of(await token_of(call)) == kid_of(old)
    starts_s = _seconds(new["signs_from"]) - time.time()
    assert age_s < starts_s < age_s + 120


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


async def test_another_process_takes_the_new_key_at_its_first_token(served: Served) -> None:
    async with served() as one, served() as other:
        call, there = caller_of(one), caller_of(other)
        old = await token_of(call)
        admin = caller_of(one, one.admin_key)
        await admin("POST", "/admin/signing-keys", AT_ONCE)
        new = await token_of(call)
        assert await status_with(there, new) == 200
        assert await status_with(there, old) == 200
        assert await kids(there) == await kids(call)


async def test_every_process_signs_with_the_new_key_within_a_second(served: Served) -> None:
    async with served() as one, served() as other:
        await caller_of(one, one.admin_key)("POST", "/admin/signing-keys", AT_ONCE)
        rotated_at = asyncio.get_running_loop().time()
        new = (await kids(caller_of(one)))[-1]

        async def signs() -> bool:
            return kid_of(await token_of(caller_of(other))) == new

        await until(signs)
        assert asyncio.get_running_loop().time() - rotated_at <= 1


async def test_processes_that_start_together_sign_with_one_key(redis: Redis) -> None:
    async def starts(late: int) -> str:
        for _ in range(late):  # each at another moment of the others' start
            await asyncio.sleep(0)
        gatekeeper = Gatekeeper(service_settings(), KeyStore(redis))
        await gatekeeper.keyring.load()
        return kid_of(gatekeeper.token_for("ada"))

    assert len(set(await asyncio.gather(*map(starts, range(30))))) == 1


async def test_rotations_at_the_same_moment_lose_no_key(redis: Redis) -> None:
    keyrings = [Gatekeeper(service_settings(), KeyStore(redis)).keyring for _ in range(10)]
    for keyring in keyrings:
        await keyring.load()
    made = await asyncio.gather(*(keyring.rotate(0) for keyring in keyrings))
    await keyrings[0].refresh()
    kept = {key.kid for key in keyrings[0].signing_keys.values()}
    assert {key.kid for key in made} < kept


async def test_a_token_that_was_good_before_ends_with_its_hour(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await token_of(call)
    assert await status_with(call, token) == 200
    later = SimpleNamespace(time=lambda: time.time() + 3600)
    monkeypatch.setattr(tokens, "time", later)
    assert await status_with(call, token) == 401


@pytest.mark.parametrize(
    ("replaced_s", "status"), [(3600 - 5, 404), (3600 + 60 + 5, 401)], ids=["in its hour", "after"]
)
async def test_an_old_key_is_accepted_until_its_last_token_has_ended(
    served: Served, redis: Redis, replaced_s: int, status: int
) -> None:
    now_ms = int(time.time() * 1000)
    old = SigningKey.fresh(0, signs_from_ms=0)
    new = SigningKey.fresh(0, signs_from_ms=now_ms - replaced_s * 1000)
    for number, key in (("1", old), ("2", new)):
        await redis.hset("vestibule:{_global}:signing_keys", number, key.written())
    claims = {"iss": "vestibule", "sub": "ada", "exp": int(time.time()) + 60}
    token = jwt.encode(claims, old.private, "EdDSA", headers={"kid": old.kid})
    async with served() as service:
        call, admin = caller_of(service), caller_of(service, service.admin_key)
        assert await status_with(call, token) == status
        assert (old.kid in await kids(call)) is (status == 404)
        await admin("POST", "/admin/signing-keys", {})
        kept = await redis.hgetall("vestibule:{_global}:signing_keys")
        assert (b"1" in kept) is (status == 404)


async def test_a_stolen_signing_key_is_withdrawn_at_once(call: Caller, admin: Caller) -> None:
    old = await token_of(call)
    assert await status_with(call, old) == 200
    path = f"/admin/signing-keys/{kid_of(old)}"
    assert (await admin("DELETE", path)).status == 409  # then nobody could sign
    await admin("POST", "/admin/signing-keys", {})
    assert (await admin("DELETE", path)).status == 200
    assert (await admin("DELETE", path)).status == 404
    assert await status_with(call, old) == 401
    assert await status_with(call, await token_of(call)) == 200


async def test_what_an_admin_sees_of_signing_keys_is_not_private(admin: Caller) -> None:
    reply = await admin("GET", "/admin/signing-keys")
    (key,) = reply.json["signing_keys"]
    assert set(key) == {"kid", "signs", "signs_from", "made_at"}
    bad = await admin("POST", "/admin/signing-keys", {"signs_in": -1})
    assert (bad.status, bad.json["field"]) == (422, "signs_in")


def pem(key: Any, secret: bytes | None = None) -> str:
    lock = BestAvailableEncryption(secret) if secret else NoEncryption()
    text: str = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock).decode()
    return text


async def test_the_setting_names_the_signer_first_and_then_what_is_accepted(
    served: Served, redis: Redis
) -> None:
    old, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    async with (
        served(VESTIBULE_SIGNING_KEY=pem(old)) as before,
        served(VESTIBULE_SIGNING_KEY=pem(new).replace("\n", "\\n") + pem(old)) as after,
    ):
        token = await token_of(caller_of(before))
        there = caller_of(after)
        assert await status_with(there, token) == 200
        assert kid_of(await token_of(there)) == SigningKey(new).kid
        assert set(await kids(there)) == {SigningKey(old).kid, SigningKey(new).kid}
        admin = caller_of(after, after.admin_key)
        assert (await admin("POST", "/admin/signing-keys", {})).json["code"] == "set_by_environment"
    assert not await redis.exists("vestibule:{_global}:signing_keys")


@pytest.mark.parametrize(
    "text",
    [
        "secret-text",
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(Ed25519PrivateKey.generate(), b"secret-text"),
        pem(Ed25519PrivateKey.generate()).replace("M", "N"),
    ],
    ids=["no PEM", "another kind", "with a password", "damaged"],
)
def test_a_bad_signing_key_is_an_error_at_start_that_does_not_show_it(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({"VESTIBULE_SIGNING_KEY": text})
    problem = str(caught.value)
    assert problem.startswith("VESTIBULE_SIGNING_KEY: is ")
    assert not [line for line in text.splitlines() if line in problem]
