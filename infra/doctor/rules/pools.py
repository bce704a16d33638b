"""Pools: their numbers, who waits, and an admin's settings."""

from infra.doctor import views
from infra.doctor.room import Room
from infra.doctor.rule import Broken, Rules, expect, own

rules = Rules()


@rules("GET /queue/metrics: the numbers of one pool; metrics read the same as the gate.", own(
    capacity=3
))  # fmt: skip
async def metrics_count_what_the_gate_counts(room: Room) -> None:
    await room.join(room.user("a"), auto_confirm=True)
    await room.join(room.user("b"))
    reply = await room.service("GET", room.in_pool("/queue/metrics"))
    seen = reply.good()
    views.check_view(reply.call, seen, views.METRICS)
    counts = {name: seen[name] for name in ("pool", "capacity", "active", "draft", "waiting")}
    whole = {"pool": room.pool, "capacity": 3, "active": 1, "draft": 1, "waiting": 0}
    expect("the counts", counts, whole)
    expect("free, paused, admitted", (seen["free"], seen["paused"], seen["admitted_total"]),
           (1, False, 1))  # fmt: skip


@rules("GET /queue/status: queue_length, active_requests, max_concurrent, total_processed and"
       " queue_items, paged; the first who waits is 1.", own(capacity=1))  # fmt: skip
async def the_queue_is_listed_page_by_page(room: Room) -> None:
    users = [room.user(str(n)) for n in range(6)]
    tickets = [(await room.join(user, auto_confirm=True))["ticket_id"] for user in users]
    reply = await room.service("GET", room.in_pool("/queue/status"))
    whole = reply.good()
    views.check_view(reply.call, whole, views.QUEUE)
    for item in whole["queue_items"]:
        views.check_view(reply.call, item, views.QUEUED)
    told = [(i["user_id"], i["request_id"], i["position"]) for i in whole["queue_items"]]
    expect("who waits", told, list(zip(users[1:], tickets[1:], range(1, 6), strict=True)))
    counts = [whole[name] for name in ("queue_length", "active_requests", "max_concurrent")]
    expect("queue_length, active_requests, max_concurrent", counts, [5, 1, 1])
    pages = []
    for offset in (0, 2, 4, 6):
        query = f"/queue/status?offset={offset}&limit=2"
        page = (await room.service("GET", room.in_pool(query))).good()
        expect("queue_length of a page", page["queue_length"], 5)
        pages.append([item["position"] for item in page["queue_items"]])
    expect("the pages", pages, [[1, 2], [3, 4], [5], []])
    none = (await room.service("GET", room.in_pool("/queue/status?limit=0"))).good()
    expect("the lines of limit=0", none["queue_items"], [])


@rules("PUT /admin/pools/{pool}: settings are defaults; a value put here wins until put to null.",
       own(capacity=4, session_duration=77, draft_duration=33))  # fmt: skip
async def an_admins_setting_wins_until_put_to_null(room: Room) -> None:
    listed = (await room.admin("GET", "/admin/pools")).good()["pools"]
    mine = next((pool for pool in listed if pool["pool"] == room.pool), None)
    if mine is None:
        raise Broken("GET /admin/pools", f"the new pool {room.pool}", "without it")
    views.check_view("GET /admin/pools", mine, {**views.METRICS, "kind": "string"})
    names = ("capacity", "session_duration", "draft_duration", "kind")
    expect("the settings", [mine[name] for name in names], [4, 77, 33, "session"])
    changed = await room.put(session_duration=None, draft_duration=44)
    expect("what was changed", changed["draft_duration"], 44)
    if changed["session_duration"] == 77:
        raise Broken("session_duration put to null", "the deployment's own", 77)


@rules("Pools are independent: one queue each.", own(capacity=0))
async def a_pool_has_a_queue_of_its_own(room: Room) -> None:
    user = room.user()
    await room.join(user)
    elsewhere = await room.service("GET", f"/queue/status/{user}")
    elsewhere.refused(404, "ticket_unknown")
    expect("who waits here", (await room.metrics())["waiting"], 1)


@rules("The kind of a pool in use stays: 409.", own(capacity=1))
async def the_kind_of_a_pool_in_use_stays(room: Room) -> None:
    await room.join(room.user())
    refused = await room.admin("PUT", f"/admin/pools/{room.pool}", {"kind": "request"})
    refused.refused(409, "pool_occupied", "kind")


@rules("auto: the slots of its ready workers; none are there.", own(capacity="auto"))
async def auto_capacity_is_that_of_its_workers(room: Room) -> None:
    expect("capacity without a worker", (await room.metrics())["capacity"], 0)


@rules("A pool with needs_worker grants nothing while it has no ready worker.", own(
    capacity=3, needs_worker=True
))  # fmt: skip
async def a_pool_that_needs_a_worker_waits_for_one(room: Room) -> None:
    expect("the state", (await room.join(room.user()))["status"], "waiting")


@rules("An admin takes a user out: disconnected with the reason removed.", own(capacity=1))
async def an_admin_takes_a_user_out(room: Room) -> None:
    user, path = room.user(), "/admin/queue/cancel/"
    await room.join(user, auto_confirm=True)
    (await room.service("POST", room.in_pool(path + user))).refused(403)
    done = (await room.admin("POST", room.in_pool(path + user))).good()
    states = (done["previous_status"], done["status"])
    expect("the states", states, ("active", "disconnected"))
    expect("the reason", (await room.status(user))["reason"], "removed")
    (await room.admin("POST", room.in_pool(path + room.user("nobody")))).refused(404)


@rules("A pool that is not there is 404 and named.")
async def a_pool_that_is_not_there_is_named(room: Room) -> None:
    nowhere = f"?pool={room.user().lower()}"
    for path in (f"/queue/status/ada{nowhere}", f"/queue/metrics{nowhere}"):
        (await room.service("GET", path)).refused(404, "pool_unknown", "pool")
    joined = await room.service("POST", f"/queue/join/{room.user()}{nowhere}")
    joined.refused(404, "pool_unknown", "pool")
