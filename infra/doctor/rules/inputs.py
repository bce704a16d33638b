"""Bad input: 4xx problem+json that names the field, and nothing changes."""

from typing import Any

from infra.doctor.room import Room
from infra.doctor.rule import SHUT, Broken, Rules, expect, own

rules = Rules()
BODY_BYTES_MAX = 65_536
LONG = "x" * 129
BODIES: tuple[tuple[str, Any, str], ...] = (
    ("join", {"unknown": 1}, "unknown"),
    ("join", {"auto_confirm": "yes"}, "auto_confirm"),
    ("join", {"auto_confirm": None}, "auto_confirm"),
    ("join", {"will_return": 1}, "will_return"),
    ("join", {"model": ""}, "model"),
    ("join", {"model": 7}, "model"),
    ("join", {"model": "m" * 257}, "model"),
    ("join", {"client": ""}, "client"),
    ("join", {"client": LONG}, "client"),
    ("join", {"client": ["c"]}, "client"),
    ("join", {"request_id": ""}, "request_id"),
    ("join", {"priority": "V I P"}, "priority"),
    ("join", {"priority": "no-such-class"}, "priority"),
    ("join", [], "body"),
    ("join", "text", "body"),
    ("leave", {"client": ""}, "client"),
    ("leave", {"ticket_id": 5}, "ticket_id"),
    ("confirm", {"ticket_id": ""}, "ticket_id"),
    ("confirm", {"ticket": "x"}, "ticket"),
    ("heartbeat", {"client": None, "x": None}, "x"),
    ("heartbeat", {"ticket_id": LONG}, "ticket_id"),
)
NO_JSON = (b"{", b"\xff\xfe", b"{'a': 1}", b"[" * 3000, b'{"client": "a"} x')
USERS = ("a%20b", "%C3%A9", "%25", "a%5Cb", "a,b", "a%3Db", "u" * 129)
QUERIES: tuple[tuple[str, int, str], ...] = (
    ("/queue/status/ada?pool=NO", 422, "pool"),
    ("/queue/status/ada?pool=", 422, "pool"),
    ("/queue/status/ada?pool=%FF%0A", 422, "pool"),
    ("/queue/status/ada?pool=" + "p" * 65, 422, "pool"),
    ("/queue/status?pool=a%7Db", 422, "pool"),
    ("/queue/status?offset=-1", 422, "offset"),
    ("/queue/status?offset=" + "9" * 2000, 422, "offset"),
    ("/queue/status?limit=1001", 422, "limit"),
    ("/queue/status?limit=ten", 422, "limit"),
    ("/queue/status?limit=", 422, "limit"),
    ("/queue/status?limit=%C2%B2", 422, "limit"),
    ("/queue/status?limit=1e3", 422, "limit"),
)
SETTINGS: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "body"),
    ({"capacity": -1}, "capacity"),
    ({"capacity": "many"}, "capacity"),
    ({"capacity": True}, "capacity"),
    ({"capacity": 1.5}, "capacity"),
    ({"paused": "no"}, "paused"),
    ({"kind": "lottery"}, "kind"),
    ({"session_duration": 0}, "session_duration"),
    ({"draft_duration": 10**12}, "draft_duration"),
    ({"user_concurrency": 0}, "user_concurrency"),
    ({"priorities": {"vip": {"weight": 0}}}, "priorities.vip.weight"),
    ({"max_active": 3}, "max_active"),
)


async def _state(room: Room, user: str) -> Any:
    """What no refused call may change."""
    seen, counts = await room.status(user), await room.metrics()
    kept = {name: seen[name] for name in ("ticket_id", "status", "joined_at", "position")}
    counted = {name: counts[name] for name in ("capacity", "active", "draft", "waiting", "paused")}
    return kept, counted


@rules("Bad input gets 422 that names the field, and changes nothing.", own(capacity=0))
async def a_wrong_field_of_a_body_is_named(room: Room) -> None:
    user = room.user()
    await room.join(user)
    before = await _state(room, user)
    for verb, body, field in BODIES:
        (await room.service("POST", room.path(verb, user), body)).refused(422, "bad_input", field)
    expect("ticket and pool after it", await _state(room, user), before)


@rules("A body that is no JSON is 422 and names the body.", own(capacity=0))
async def a_body_that_is_no_json_is_named(room: Room) -> None:
    user = room.user()
    await room.join(user)
    before = await _state(room, user)
    for kind in ("application/json", "application/octet-stream", "text/plain"):
        for data in NO_JSON:
            reply = await room.service(
                "POST", room.path("join", user), data=data, headers={"Content-Type": kind}
            )
            reply.refused(422, "bad_input", "body")
    expect("ticket and pool after it", await _state(room, user), before)


@rules("A body is read by what it is, whatever its Content-Type says.")
async def a_body_is_taken_under_any_content_type(room: Room) -> None:
    kinds = ("application/json", "application/octet-stream", "text/plain; charset=utf-8")
    for number, kind in enumerate(kinds):
        user = room.user(str(number))
        reply = await room.service(
            "POST",
            room.path("join", user),
            data='{"auto_confirm": true, "client": "caf\u00e9"}'.encode(),
            headers={"Content-Type": kind},
        )
        expect(f"the state after a join as {kind}", reply.good()["status"], "active")


@rules("A body above 64 KiB is 413.", SHUT)
async def a_large_body_is_refused(room: Room) -> None:
    user = room.user()
    large = b'{"client": "' + b"c" * BODY_BYTES_MAX + b'"}'
    json = {"Content-Type": "application/json"}
    reply = await room.service("POST", room.path("join", user), data=large, headers=json)
    reply.refused(413)
    (await room.service("GET", room.path("status", user))).refused(404)


@rules("{user_id}: 1-128 characters of A-Z a-z 0-9 . _ - @ : | +, else 422.", SHUT)
async def what_is_no_user_id_is_refused(room: Room) -> None:
    for user in USERS:
        for method, verb in (("POST", "join"), ("GET", "status"), ("POST", "leave")):
            reply = await room.service(method, room.path(verb, user))
            reply.refused(422, "bad_input", "user_id")


@rules("A slash in a user id never reaches another path.", SHUT)
async def a_slash_is_no_part_of_a_user_id(room: Room) -> None:
    # API Gateway's HTTP APIs decode the path before they pass it on: then there is no such path.
    reply = await room.service("GET", room.path("status", "a%2Fb"))
    reply.refused(reply.status if reply.status in (404, 422) else 422)


@rules("Every letter of a user id is taken as it is.")
async def every_letter_of_a_user_id_is_taken_as_it_is(room: Room) -> None:
    mark = room.user()
    for letters, sent in (("@x.org", "%40x.org"), ("|y:z+1", "%7Cy:z+1"), ("_", "_"), (".A", ".A")):
        seen = (await room.service("POST", room.path("join", mark + sent))).good()
        expect("whose ticket it is", seen["user_id"], mark + letters)
        (await room.service("GET", room.path("status", mark + sent))).good()


@rules("A wrong query is 422 and named.", SHUT)
async def a_wrong_query_is_named(room: Room) -> None:
    for path, status, field in QUERIES:
        (await room.service("GET", path)).refused(status, "bad_input", field)


@rules("A wrong setting of a pool is 422 and named, and changes nothing.", own(capacity=2))
async def a_wrong_setting_of_a_pool_is_named(room: Room) -> None:
    path, before = f"/admin/pools/{room.pool}", await room.metrics()
    for body, field in SETTINGS:
        (await room.admin("PUT", path, body)).refused(422, "bad_input", field)
    for name in ("A", "a_b", "p" * 65):
        reply = await room.admin("PUT", f"/admin/pools/{name}", {"paused": False})
        reply.refused(422, "bad_input", "pool")
    expect("the pool after it", await room.metrics(), before)


@rules("No such path 404, no such method 405 with Allow; no traceback leaves the process.", SHUT)
async def no_such_path_or_method(room: Room) -> None:
    for method, path in (("GET", "/nowhere"), ("GET", "/queue/join/a/b"), ("POST", "/admin/none")):
        (await room.admin(method, path)).refused(404, "no_such_path")
    for method, path in (("GET", room.path("join", "ada")), ("DELETE", "/queue/status")):
        reply = await room.admin(method, path)
        reply.refused(405, "method_not_allowed")
        if "Allow" not in reply.headers:
            raise Broken(reply.call, "the header Allow", "none")
