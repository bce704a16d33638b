"""Slots: who gets one, in which order, and when it comes free again."""

import asyncio
from typing import Any

from infra.doctor.room import Room
from infra.doctor.rule import SHUT, Broken, Rules, Skipped, expect, own

rules = Rules()
OVER_S = 1.3  # a deadline of a second has passed, by everybody's clock
TOGETHER = 50


async def _join_all(room: Room, users: list[str], **wish: Any) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(room.join(user, **wish) for user in users)))


def _states(views: list[dict[str, Any]]) -> dict[str, int]:
    found = [view["status"] for view in views]
    return {state: found.count(state) for state in set(found)}


@rules("A freed slot is offered in the script that freed it.", own(capacity=1))
async def a_freed_slot_goes_to_the_next_at_once(room: Room) -> None:
    first, second, third = (room.user(str(n)) for n in range(3))
    for user in (first, second, third):
        await room.join(user)
    await room.ask("leave", first)
    expect("the state of the next", (await room.status(second))["status"], "draft")
    expect("the place of the one after", (await room.status(third))["position"], 1)


@rules("Drafts and sessions never exceed capacity when a slot is granted.", own(capacity=7))
async def fifty_joins_at_once_never_exceed_capacity(room: Room) -> None:
    users = [room.user(str(n)) for n in range(TOGETHER)]
    views = await _join_all(room, users, auto_confirm=True)
    expect("the states", _states(views), {"active": 7, "waiting": TOGETHER - 7})
    seen = await room.metrics()
    counts = [seen[name] for name in ("active", "draft", "waiting", "free")]
    expect("metrics: active, draft, waiting, free", counts, [7, 0, TOGETHER - 7, 0])


@rules("Positions are 1 + the tickets in the queue with a lower score.", own(capacity=0))
async def places_are_unique_and_dense(room: Room) -> None:
    users = [room.user(str(n)) for n in range(TOGETHER)]
    await _join_all(room, users)
    views = await asyncio.gather(*(room.status(user) for user in users))
    places = sorted(view["position"] for view in views)
    expect("all places", places, list(range(1, TOGETHER + 1)))


@rules("Order within a class is arrival order.", own(capacity=0))
async def who_came_first_is_first(room: Room) -> None:
    users = [room.user(str(n)) for n in range(8)]
    told = [(await room.join(user))["position"] for user in users]
    expect("the places told at each join", told, list(range(1, 9)))
    await room.put(capacity=3)
    states = [(await room.status(user))["status"] for user in users]
    expect("the states with 3 slots", states, ["draft"] * 3 + ["waiting"] * 5)


@rules("One ticket per user; join is idempotent, also in parallel.", SHUT)
async def one_user_joining_in_parallel_has_one_ticket(room: Room) -> None:
    views = await _join_all(room, [room.user()] * 20)
    expect("tickets of one user", len({view["ticket_id"] for view in views}), 1)


@rules("Confirm is single-use: already active is the same session.", own(capacity=1))
async def confirming_in_parallel_makes_one_session(room: Room) -> None:
    user = room.user()
    await room.join(user)
    replies = await asyncio.gather(*(room.ask("confirm", user) for _ in range(10)))
    ends = {reply.good()["expires_at"] for reply in replies}
    expect("ends of the session", len(ends), 1)
    expect("sessions", (await room.metrics())["active"], 1)


@rules("Leave beats offer: no ghost drafts; a freed slot is offered at once.", own(capacity=5))
async def leaving_and_joining_at_once_loses_no_slot(room: Room) -> None:
    old = [room.user(f"old-{n}") for n in range(20)]
    new = [room.user(f"new-{n}") for n in range(20)]
    await _join_all(room, old)
    await asyncio.gather(
        *(room.ask("leave", user) for user in old[::2]), *(room.join(user) for user in new)
    )
    seen = await room.metrics()
    expect("drafts, free slots", (seen["draft"], seen["free"]), (5, 0))
    expect("who waits", seen["waiting"], 25)
    await asyncio.gather(*(room.ask("leave", user) for user in (*old, *new)))
    seen = await room.metrics()
    expect("what is left", [seen[name] for name in ("draft", "active", "waiting")], [0, 0, 0])


@rules("Lowering capacity evicts nobody, it only stops admitting.", own(capacity=2))
async def lowering_capacity_evicts_nobody(room: Room) -> None:
    users = [room.user(str(n)) for n in range(3)]
    await _join_all(room, users[:2], auto_confirm=True)
    await room.join(users[2], auto_confirm=True)
    await room.put(capacity=1)
    await room.ask("leave", users[0])
    states = [(await room.status(user))["status"] for user in users]
    expect("the states", states, ["disconnected", "active", "waiting"])
    await room.put(capacity=2)
    expect("the state with room again", (await room.status(users[2]))["status"], "active")


@rules(
    "A draft ends at its stored deadline and never counts after it; joins and heartbeats move the"
    " queue even without a tick.",
    own(capacity=1, draft_duration=1),
)
async def a_draft_ends_at_its_deadline(room: Room) -> None:
    late, next_one = room.user("late"), room.user("next")
    await room.join(late)
    await room.join(next_one, auto_confirm=True)
    await asyncio.sleep(OVER_S)
    (await room.ask("confirm", late)).refused(404, "ticket_ended")
    moved = (await room.ask("heartbeat", next_one)).good()
    expect("the state of the next", moved["status"], "active")
    seen = await room.status(late)
    expect("how it ended", (seen["status"], seen["reason"]), ("disconnected", "draft_timeout"))


@rules(
    "A session ends at its hard cap whatever the heartbeats say.",
    own(capacity=1, session_duration=1),
)
async def a_session_ends_at_its_hard_cap(room: Room) -> None:
    user = room.user()
    await room.join(user, auto_confirm=True)
    for _ in range(3):
        await room.ask("heartbeat", user, client="chat-1")
        await asyncio.sleep(OVER_S / 3)
    reply = await room.ask("heartbeat", user, client="chat-1")
    if reply.status == 200 and reply.good()["status"] == "waiting":
        raise Skipped("this deployment lets who ran out wait again (VESTIBULE_REQUEUE=on)")
    reply.refused(404, "ticket_ended")
    seen = await room.status(user)
    expect("how it ended", (seen["status"], seen["reason"]), ("disconnected", "session_timeout"))
    expect("sessions that count", (await room.metrics())["active"], 0)


@rules(
    "A ticket that ended stays readable with its reason: queue_timeout.",
    own(capacity=0, queue_timeout=1),
)
async def waiting_ends_at_the_queue_timeout(room: Room) -> None:
    user = room.user()
    await room.join(user)
    await asyncio.sleep(OVER_S)
    (await room.ask("heartbeat", user)).refused(404, "ticket_ended")
    expect("why", (await room.status(user))["reason"], "queue_timeout")


@rules("A higher class is a head start in time.", own(
    capacity=0, priorities={"vip": {"head_start": 600}, "batch": {"head_start": -60}}
))  # fmt: skip
async def a_higher_class_is_a_head_start(room: Room) -> None:
    classes = {"a": None, "b": "batch", "c": "vip"}
    for name, priority in classes.items():
        await room.join(room.user(name), priority=priority)
    seen = {name: await room.status(room.user(name)) for name in classes}
    places = [view["position"] for view in seen.values()]
    expect("the places of default, batch, vip", places, [2, 3, 1])
    unknown = await room.ask("join", room.user("d"), priority="king")
    unknown.refused(422, "bad_input", "priority")
    again = await room.join(room.user("b"), priority="vip")
    if again["position"] != 3:
        raise Broken("joining again with a higher class", "the same place, 3", again["position"])


@rules("503 + Retry-After when the queue is full.", own(capacity=0, queue_limit=1))
async def a_full_queue_says_when_to_try_again(room: Room) -> None:
    first, late = room.user("first"), room.user("late")
    await room.join(first)
    full = await room.ask("join", late)
    full.refused(503, "queue_full")
    _says_when(full.call, full.headers.get("Retry-After"))
    (await room.service("GET", room.path("status", late))).refused(404)
    await room.join(first)  # who is in, is in


@rules("503 + Retry-After when the pool is paused.", own(capacity=3))
async def a_paused_pool_takes_nobody_new(room: Room) -> None:
    inside = room.user("inside")
    await room.join(inside)
    await room.put(paused=True)
    refused = await room.ask("join", room.user("new"))
    refused.refused(503, "pool_paused")
    _says_when(refused.call, refused.headers.get("Retry-After"))
    expect("the state of who was in", (await room.status(inside))["status"], "draft")
    await room.put(paused=None)
    await room.join(room.user("new"))


def _says_when(call: str, after: str | None) -> None:
    if after is None or not after.isdecimal() or int(after) < 1:
        raise Broken(call, "Retry-After: whole seconds", after)
