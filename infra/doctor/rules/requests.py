"""Request pools: a slot for one request, fair between users."""

from infra.doctor.room import Room
from infra.doctor.rule import Rules, expect, own

rules = Rules()
ONE = {"kind": "request", "capacity": 1}


async def _ask(room: Room, user: str, request: str) -> str:
    """The ticket of one request."""
    view = await room.join(user, request_id=request, auto_confirm=True)
    return str(view["ticket_id"])


async def _seen(room: Room, user: str, ticket: str) -> tuple[str, int | None]:
    """State and place of one request's ticket."""
    path = room.path("status", user, f"&ticket_id={ticket}")
    view = (await room.service("GET", path)).good()
    return view["status"], view["position"]


@rules("A request pool without request_id: 409 request_pool.", own(**ONE))
async def a_request_pool_wants_the_request_named(room: Room) -> None:
    refused = await room.ask("join", room.user(), auto_confirm=True)
    refused.refused(409, "request_pool", "request_id")


@rules("A ticket is (user, request_id); order is fair between users.", own(**ONE))
async def each_request_is_told_apart_and_users_take_turns(room: Room) -> None:
    ada, bob = room.user("ada"), room.user("bob")
    one, two = await _ask(room, ada, "r1"), await _ask(room, ada, "r2")
    other = await _ask(room, bob, "r1")
    expect("the request that runs", await _seen(room, ada, one), ("active", None))
    expect("who had no turn yet", await _seen(room, bob, other), ("waiting", 1))
    expect("a second one of the same user", await _seen(room, ada, two), ("waiting", 2))
    left = (await room.ask("leave", ada, ticket_id=one)).good()
    expect("what was left", left["previous_status"], "active")
    expect("the next", await _seen(room, bob, other), ("active", None))
    expect("the one after", await _seen(room, ada, two), ("waiting", 1))


@rules("Join is idempotent: the same request keeps its ticket.", own(**ONE))
async def the_same_request_keeps_its_ticket(room: Room) -> None:
    user = room.user()
    expect("its ticket", await _ask(room, user, "r1"), await _ask(room, user, "r1"))
    expect("leases", (await room.metrics())["active"], 1)


@rules("A lease is renewed by heartbeats that name its ticket.", own(**ONE))
async def a_heartbeat_names_its_request(room: Room) -> None:
    user = room.user()
    one, _ = await _ask(room, user, "r1"), await _ask(room, user, "r2")
    beat = (await room.ask("heartbeat", user, ticket_id=one)).good()
    expect("the ticket", (beat["ticket_id"], beat["status"]), (one, "active"))
