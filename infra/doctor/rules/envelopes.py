"""What every answer carries: request ids, leave for web pages, when to come back."""

from infra.doctor.deployment import Reply
from infra.doctor.room import Room
from infra.doctor.rule import SHUT, Broken, Rules, Skipped, expect, own

rules = Rules()
REQUEST_ID, LEAVE = "X-Request-Id", "Access-Control-Allow-Origin"
STRANGER = "https://contract.invalid"  # nobody's (RFC 6761)
POLL_MAX_S = 3600


@rules("Every answer has a request id: the caller's own where it is one, else a new one.", SHUT)
async def every_answer_has_a_request_id(room: Room) -> None:
    user = room.user()
    await room.join(user)
    for path in (room.path("status", user), room.path("status", room.user("nobody")), "/nowhere"):
        reply = await room.service("GET", path, headers={REQUEST_ID: user})
        expect(f"{REQUEST_ID} of {reply.call}", reply.headers.get(REQUEST_ID), user)
    for wrong in ("a b", "x" * 129, "a/b"):
        reply = await room.nobody("GET", "/healthz", headers={REQUEST_ID: wrong})
        if reply.headers.get(REQUEST_ID, wrong) in (wrong, ""):
            raise Broken(reply.call, f"another {REQUEST_ID} than {wrong[:20]!r}", "that or none")
    made = {(await room.nobody("GET", "/healthz")).headers.get(REQUEST_ID) for _ in range(3)}
    if len(made) < 3 or None in made:
        raise Broken("GET /healthz, three times", f"three values of {REQUEST_ID}", made)


@rules("Cross-origin calls only from VESTIBULE_ALLOWED_ORIGINS.", SHUT)
async def pages_of_strangers_may_not_call(room: Room) -> None:
    user = room.user()
    asks = {"Origin": STRANGER, "Access-Control-Request-Method": "POST"}
    for method, path, headers in (
        ("GET", "/healthz", {"Origin": STRANGER}),
        ("POST", room.path("join", user), {"Origin": STRANGER}),
        ("OPTIONS", room.path("join", user), asks),
    ):
        reply = await room.service(method, path, headers=headers)
        expect(f"{LEAVE} of {reply.call}", reply.headers.get(LEAVE), None)


@rules("Pages of an allowed origin may call, and read every answer.", SHUT)
async def pages_of_an_allowed_origin_may_call(room: Room) -> None:
    origin = room.deployment.origin
    if origin is None:
        raise Skipped("no allowed origin is known here: name one with --origin")
    path, own = room.path("join", room.user()), {"Origin": origin}
    asked = await room.nobody(
        "OPTIONS", path, headers={**own, "Access-Control-Request-Method": "POST"}
    )
    told = (asked.status, asked.headers.get(LEAVE))
    if told[0] not in (200, 204) or told[1] != origin:
        raise Broken(asked.call, f"200 or 204, and leave for {origin}", told)
    named = asked.headers.get("Access-Control-Allow-Headers", "").lower()
    if "authorization" not in named or "content-type" not in named:
        raise Broken(asked.call, "leave to send Authorization and Content-Type", named)
    for reply in (
        await room.service("POST", path, headers=own),
        await room.service("GET", "/nowhere", headers=own),
        await room.nobody("GET", path.replace("/join/", "/status/"), headers=own),
    ):
        expect(f"{LEAVE} of {reply.call}", reply.headers.get(LEAVE), origin)
        expect("Access-Control-Allow-Credentials",
               reply.headers.get("Access-Control-Allow-Credentials"), None)  # fmt: skip


@rules("Callers are told when to poll again: Retry-After in seconds in a ticket's answer.", SHUT)
async def who_waits_is_told_when_to_poll(room: Room) -> None:
    user = room.user()
    for reply in (
        await room.ask("join", user),
        await room.ask("heartbeat", user),
        await room.service("GET", room.path("status", user)),
    ):
        reply.good()
        _polls_within(reply, POLL_MAX_S)


@rules("The interval near the front lies well inside the draft time.", own(
    capacity=1, draft_duration=20
))  # fmt: skip
async def who_is_next_polls_well_inside_the_draft_time(room: Room) -> None:
    await room.join(room.user("first"))
    for name in ("second", "third"):
        _polls_within(await room.ask("join", room.user(name)), 10)


def _polls_within(reply: Reply, most_s: int) -> None:
    after = reply.headers.get("Retry-After", "")
    if not after.isdecimal() or not 1 <= int(after) <= most_s:
        raise Broken(reply.call, f"Retry-After of 1 to {most_s}", after or None)


@rules("/healthz, /readyz and /openapi.json are open to all.", SHUT)
async def health_and_description_are_open(room: Room) -> None:
    expect("status", (await room.nobody("GET", "/healthz")).good()["status"], "alive")
    expect("status", (await room.nobody("GET", "/readyz")).good()["status"], "ready")
    document = (await room.nobody("GET", "/openapi.json")).good()
    told = "/queue/join/{user_id}" in document["paths"], document["openapi"][:2]
    expect("the document: has join, its version", told, (True, "3."))
