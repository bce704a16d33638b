"""Who may call: 401 without a good key, 403 for the wrong kind of key."""

import asyncio
import time
from collections.abc import Iterable

from infra.doctor.deployment import Caller, Reply
from infra.doctor.room import Room
from infra.doctor.rule import SHUT, Broken, Rules, expect

rules = Rules()
Call = tuple[str, str]
FOR_SERVICES: tuple[Call, ...] = (("GET", "/queue/metrics"), ("GET", "/queue/status"))
# None of these would do anything, should the key be taken after all.
FOR_ADMINS: tuple[Call, ...] = (
    ("GET", "/admin/pools"),
    ("PUT", "/admin/pools/A"),
    ("DELETE", "/admin/pools/A"),
    ("POST", "/admin/queue/cancel/a%20b"),
    ("GET", "/admin/workers"),
    ("GET", "/admin/keys"),
    ("POST", "/admin/keys"),
    ("DELETE", "/admin/keys/none"),
    ("GET", "/admin/priorities"),
    ("GET", "/admin/signing-keys"),
    ("GET", "/admin/projects"),
    ("PUT", "/admin/projects/A"),
    ("GET", "/admin/limits"),
)
FOR_WORKERS: tuple[Call, ...] = (
    ("POST", "/workers/register"),
    ("POST", "/workers/heartbeat"),
    ("POST", "/workers/none/drain"),
)
STOPS_WITHIN_S = 3.0  # a deleted key stops everywhere within a second; two more for the way


def _own(room: Room, user: str) -> tuple[Call, ...]:
    """What a user's own key is good for."""
    return (
        ("GET", room.path("status", user)),
        ("POST", room.path("join", user)),
        ("POST", room.path("heartbeat", user)),
        ("POST", room.path("confirm", user)),
        ("POST", room.path("leave", user)),
    )


async def _all(caller: Caller, calls: Iterable[Call], status: int) -> list[Reply]:
    """Each call is refused with this status."""
    found = []
    for method, path in calls:
        reply = await caller(method, path, {} if method in ("POST", "PUT") else None)
        reply.refused(status)
        found.append(reply)
    return found


def _asks_for_a_key(reply: Reply) -> None:
    """RFC 9110, 11.6.1. API Gateway's REST APIs and function URLs give the header another name."""
    named = {name.lower(): value for name, value in reply.headers.items()}
    told = named.get("www-authenticate") or named.get("x-amzn-remapped-www-authenticate", "")
    if not told.startswith("Bearer"):
        raise Broken(reply.call, "WWW-Authenticate: Bearer", told)


@rules("No key 401.", SHUT)
async def without_a_key_nothing_is_told(room: Room) -> None:
    room.checks_users()
    user = room.user()
    await room.join(user)
    calls = (*_own(room, user), *FOR_SERVICES, *FOR_ADMINS, *FOR_WORKERS)
    for reply in await _all(room.nobody, calls, 401):
        _asks_for_a_key(reply)
    expect("the state after it", (await room.status(user))["status"], "waiting")


@rules("Keys travel as Authorization: Bearer; a key nobody knows is 401.", SHUT)
async def a_key_nobody_knows_is_refused(room: Room) -> None:
    room.checks_users()
    user = room.user()
    strange = ("Bearer nobody-knows-this", "Basic c2VydmljZTprZXk=", "Bearer", "Bearer a b", "x")
    for text in strange:
        for method, path in (*_own(room, user)[:2], *FOR_SERVICES, FOR_ADMINS[0]):
            reply = await room.nobody(method, path, headers={"Authorization": text})
            reply.refused(401)
            _asks_for_a_key(reply)


@rules("A service key acts for any user, and may read /queue/metrics and /queue/status; wrong kind"
       " 403.", SHUT)  # fmt: skip
async def a_service_key_is_no_admins(room: Room) -> None:
    await _all(room.service, (*FOR_ADMINS, *FOR_WORKERS), 403)
    for method, path in FOR_SERVICES:
        (await room.service(method, room.in_pool(path))).good()


@rules("An admin key may do everything.")
async def an_admin_key_may_do_everything(room: Room) -> None:
    user = room.user()
    for verb in ("join", "confirm", "heartbeat", "leave"):
        (await room.admin("POST", room.path(verb, user))).good()
    for method, path in FOR_SERVICES:
        (await room.admin(method, room.in_pool(path))).good()


@rules("A user token acts for that ticket's user only.")
async def a_user_token_acts_for_its_user_only(room: Room) -> None:
    room.checks_users()
    user, other = room.user("ada"), room.user("bob")
    token = (await room.join(user))["token"]
    await room.join(other)
    mine = room.nobody.with_key(token)
    for method, path in _own(room, user):
        (await mine(method, path)).good()
    await _all(mine, (*_own(room, other), *FOR_SERVICES, *FOR_ADMINS, *FOR_WORKERS), 403)
    expect("the state of the other", (await room.status(other))["status"], "draft")


@rules("A user key is long-lived, bound to one user.")
async def a_user_key_acts_for_its_user_only(room: Room) -> None:
    room.checks_users()
    user, other = room.user("ada"), room.user("bob")
    mine, told = await room.key("user", user=user)
    expect("whose key it is", told["user"], user)
    joined = (await mine("POST", room.path("join", user))).good()
    expect("whose ticket it is", joined["user_id"], user)
    await _all(mine, (*_own(room, other), *FOR_SERVICES, *FOR_ADMINS, *FOR_WORKERS), 403)


@rules("A user token is signed: one that was changed is 401.", SHUT)
async def a_token_that_was_changed_is_refused(room: Room) -> None:
    room.checks_users()
    user = room.user()
    token = (await room.join(user))["token"]
    head, claims, signature = token.split(".")
    unsigned = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    wrong = (f"{head}.{claims}.{signature[:-6]}AAAAAA", f"{unsigned}.{claims}.", f"{head}.e30.AAAA")
    for text in wrong:
        (await room.nobody.with_key(text)("GET", room.path("status", user))).refused(401)


@rules("Only EventSource, WebSocket and /wait take a token as ?token=.", SHUT)
async def no_other_call_takes_a_token_in_its_query(room: Room) -> None:
    room.checks_users()
    user = room.user()
    token = (await room.join(user))["token"]
    for verb, method in (("status", "GET"), ("join", "POST"), ("leave", "POST")):
        (await room.nobody(method, room.path(verb, user, f"&token={token}"))).refused(401)
    expect("the state after it", (await room.status(user))["status"], "waiting")


@rules("Nobody gives themselves priority: naming a class is 403 but for trusted callers.", SHUT)
async def nobody_gives_themselves_priority(room: Room) -> None:
    room.checks_users()
    user = room.user()
    mine, _ = await room.key("user", user=user)
    refused = await mine("POST", room.path("join", user), {"priority": "vip"})
    refused.refused(403, "forbidden", "priority")
    (await mine("POST", room.path("join", user), {"priority": "default"})).good()


@rules("The shared worker token only registers.")
async def a_worker_token_only_registers(room: Room) -> None:
    room.checks_users()
    worker, _ = await room.key("worker")
    (await worker("POST", "/workers/register", {})).refused(422, "bad_input", "worker_id")
    calls = (*_own(room, room.user()), *FOR_SERVICES, *FOR_ADMINS, *FOR_WORKERS[1:])
    await _all(worker, calls, 403)


@rules("A new key works at once, a deleted one stops everywhere within a second.")
async def a_deleted_key_stops(room: Room) -> None:
    room.checks_users()
    key, told = await room.key("service")
    for _ in range(6):
        (await key("GET", room.in_pool("/queue/metrics"))).good()
    (await room.admin("DELETE", f"/admin/keys/{told['id']}")).good()
    ends = time.monotonic() + STOPS_WITHIN_S
    while True:
        replies = [await key("GET", room.in_pool("/queue/metrics")) for _ in range(6)]
        if all(reply.status == 401 for reply in replies):
            return
        if time.monotonic() > ends:
            raise Broken(replies[0].call, "401 with a deleted key", replies[0].shown)
        await asyncio.sleep(0.2)


@rules("A key may be made to expire.")
async def a_key_expires(room: Room) -> None:
    room.checks_users()
    key, _ = await room.key("service", expires_in=1)
    await asyncio.sleep(1.5)
    (await key("GET", room.in_pool("/queue/metrics"))).refused(401)


@rules("/.well-known/jwks.json: the public keys that check user tokens.", SHUT)
async def the_key_set_is_public_and_only_that(room: Room) -> None:
    reply = await room.nobody("GET", "/.well-known/jwks.json")
    keys = reply.good()["keys"]
    if not keys or any("d" in key or not {"kty", "kid", "x"} <= set(key) for key in keys):
        raise Broken(reply.call, "public keys alone, each with its kid", reply.shown)
