"""Keys, priorities and signing keys, for admins; the public key set, for everybody."""

from typing import Annotated, Any, Literal, Self

from aiohttp import hdrs, web
from pydantic import Field, model_validator

from admission import views, wire
from admission.api import access
from admission.asked import Asked
from admission.auth import Keyring, Kind
from admission.auth.keyring import PROJECT_ID, ApiKey
from admission.errors import BadInput, Conflict, NotFound
from admission.keys import GATEKEEPER, SETTINGS
from admission.signing import SigningKey

KEY_SET_AGE_S = 300  # how long anybody may keep a copy of the key set
SIGNS_IN_S = KEY_SET_AGE_S + 60  # every copy has the new key by then

Label = Annotated[str, Field(max_length=128)]
ProjectId = Annotated[str, Field(pattern=f"^{PROJECT_ID.pattern}$")]

routes = web.RouteTableDef()


class KeyBody(wire.Body):
    kind: Literal["service", "admin", "user", "worker"]
    label: Label = ""
    user: wire.UserId | None = None
    project: ProjectId | None = None
    priority: wire.ClassName | None = None
    expires_in: Annotated[int, Field(ge=1, le=315_360_000)] | None = None  # s; ten years at most

    @model_validator(mode="after")
    def _of_one_user(self) -> Self:
        if (self.kind == "user") != (self.user is not None):
            raise ValueError("user: a key of kind user names one, no other key does")
        return self


class UserPriorityBody(wire.Body):
    priority: wire.ClassName


class RotationBody(wire.Body):
    signs_in: Annotated[int, Field(ge=0, le=86_400)] = SIGNS_IN_S


@routes.get("/.well-known/jwks.json")
async def key_set(request: Asked) -> web.Response:
    """The public keys with which anybody can check user tokens (RFC 7517)."""
    accepted = request.app[GATEKEEPER].tokens.accepted()
    headers = {
        hdrs.CACHE_CONTROL: f"public, max-age={KEY_SET_AGE_S}",
        hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
    }
    return web.json_response({"keys": [key.public() for key in accepted]}, headers=headers)


@routes.post("/admin/keys")
async def issue(request: Asked) -> web.Response:
    keyring = _keyring(request)
    body = await wire.read_body(request, KeyBody)
    if body.project is not None:
        await keyring.refresh()  # another process may have made it a moment ago
        if body.project not in keyring.projects:
            raise BadInput(f"project: there is no project {body.project!r}", field="project")
    text, key = await keyring.issue(
        Kind(body.kind),
        label=body.label,
        user=body.user,
        project=body.project,
        priority=body.priority,
        life_s=body.expires_in,
    )
    answer = {"key": text, **_key_view(key)}
    return web.json_response(answer, status=201, headers={hdrs.CACHE_CONTROL: "no-store"})


@routes.get("/admin/keys")
async def keys(request: Asked) -> web.Response:
    keyring = _keyring(request)
    await keyring.refresh()
    kept = sorted(keyring.keys.values(), key=lambda key: (key.created_ms, key.id))
    return web.json_response({"keys": [_key_view(key) for key in kept]})


@routes.delete("/admin/keys/{id}")
async def withdraw(request: Asked) -> web.Response:
    keyring, identity = _keyring(request), request.match_info["id"]
    if not await keyring.withdraw(identity):
        raise NotFound(f"id: there is no key {identity!r}", field="id")
    return web.json_response({"id": identity, "deleted": True})


@routes.get("/admin/priorities")
async def priorities(request: Asked) -> web.Response:
    keyring = _keyring(request)
    await keyring.refresh()
    return web.json_response({"priorities": dict(sorted(keyring.priorities.items()))})


@routes.get("/admin/priorities/{user_id}")
async def priority(request: Asked) -> web.Response:
    keyring, user = _keyring(request), wire.read_user(request)
    await keyring.refresh()
    return web.json_response({"user_id": user, "priority": keyring.priorities.get(user)})


@routes.put("/admin/priorities/{user_id}")
async def prefer(request: Asked) -> web.Response:
    keyring, user = _keyring(request), wire.read_user(request)
    body = await wire.read_body(request, UserPriorityBody)
    await keyring.prefer(user, body.priority)
    return web.json_response({"user_id": user, "priority": body.priority})


@routes.delete("/admin/priorities/{user_id}")
async def prefer_no_more(request: Asked) -> web.Response:
    keyring, user = _keyring(request), wire.read_user(request)
    if not await keyring.prefer_no_more(user):
        raise NotFound(f"user_id: {user} has no class of their own", field="user_id")
    return web.json_response({"user_id": user, "priority": None})


@routes.get("/admin/signing-keys")
async def signing_keys(request: Asked) -> web.Response:
    await _keyring(request).refresh()
    return web.json_response({"signing_keys": _signing_view(request)})


@routes.post("/admin/signing-keys")
async def rotate(request: Asked) -> web.Response:
    keyring = _keyring(request)
    _not_a_setting(request)
    body = await wire.read_body(request, RotationBody)
    await keyring.rotate(body.signs_in)
    return web.json_response({"signing_keys": _signing_view(request)}, status=201)


@routes.delete("/admin/signing-keys/{kid}")
async def withdraw_signing_key(request: Asked) -> web.Response:
    keyring, kid = _keyring(request), request.match_info["kid"]
    _not_a_setting(request)
    await keyring.refresh()
    if [key.kid for key in keyring.signing_keys.values()] == [kid]:
        raise Conflict("kid: the only signing key there is; make another one first", field="kid")
    if not await keyring.withdraw_signing_key(kid):
        raise NotFound(f"kid: there is no signing key {kid!r}", field="kid")
    return web.json_response({"signing_keys": _signing_view(request)})


def _keyring(request: Asked) -> Keyring:
    """The keyring, for admins only."""
    access.must_be(request, Kind.ADMIN)
    return request.app[GATEKEEPER].keyring


def _not_a_setting(request: Asked) -> None:
    if request.app[SETTINGS].signing_key:
        raise Conflict(
            "The signing keys are those of the setting VESTIBULE_SIGNING_KEY: change it there.",
            code="set_by_environment",
        )


def _key_view(key: ApiKey) -> dict[str, Any]:
    """What a key is; never its text or its hash."""
    return {
        "id": key.id,
        "kind": key.kind,
        "label": key.label,
        "user": key.user,
        "project": key.project,
        "priority": key.priority,
        "created_at": views.iso(key.created_ms),
        "expires_at": views.iso(key.expires_ms),
    }


def _signing_view(request: Asked) -> list[dict[str, Any]]:
    tokens = request.app[GATEKEEPER].tokens
    signer = tokens.signer()
    return [_signing_key_view(key, signs=key is signer) for key in tokens.accepted()]


def _signing_key_view(key: SigningKey, *, signs: bool) -> dict[str, Any]:
    """One key that is accepted; never its private half."""
    return {
        "kid": key.kid,
        "signs": signs,
        "signs_from": views.iso(key.signs_from_ms or None),
        "made_at": views.iso(key.made_ms or None),
    }
