"""A user's turn: join, confirm, leave, heartbeat, status."""

from infra.doctor import views
from infra.doctor.room import Room
from infra.doctor.rule import SHUT, Broken, Rules, expect, own

rules = Rules()


@rules("POST /queue/join/{user_id}: 200 ticket view (+ token).")
async def join_answers_the_whole_view_and_a_token(room: Room) -> None:
    user = room.user()
    reply = await room.ask("join", user)
    view = reply.good()
    views.check_view(reply.call, view, {**views.TICKET, "token": "string"})
    expect("the kind of a join's answer", reply.kind, "application/json")
    expect("whose ticket it is", (view["user_id"], view["pool"]), (user, room.pool))
    expect("the state beside free slots", view["status"], "draft")


@rules(
    "Draft: a slot reserved for a ticket until it is confirmed; fields that do not apply are null."
)
async def a_draft_tells_its_deadline(room: Room) -> None:
    view = await room.join(room.user())
    length = room.settings["draft_duration"]
    if not length - 30 <= view["expires_in"] <= length:
        raise Broken("join", f"expires_in of at most {length} s", view["expires_in"])
    lasts = views.instant(view["expires_at"]) - views.instant(view["joined_at"])
    expect("expires_at - joined_at, s", round(lasts.total_seconds()), length)
    expect("session_duration", view["session_duration"], room.settings["session_duration"])
    nothing = ("position", "estimated_wait", "estimated_wait_high", "reason")
    expect("what is null in a draft", [view[name] for name in nothing], [None] * 4)


@rules("Position: 1-based place; wherever people read it the place is shown as a number.", SHUT)
async def who_waits_sees_a_place(room: Room) -> None:
    view = await room.join(room.user())
    if view["status"] != "waiting" or not 1 <= view["position"] <= view["queue_length"]:
        raise Broken("join", "waiting, with a position from 1 to queue_length", view)
    expect("the deadline of who waits", (view["expires_in"], view["expires_at"]), (None, None))


@rules("estimated_wait is null when it cannot be known, never a guess of 0.", SHUT)
async def an_estimate_that_cannot_be_known_is_null(room: Room) -> None:
    view = await room.join(room.user())
    expect("estimated_wait without any slot", view["estimated_wait"], None)
    expect("estimated_wait_high without any slot", view["estimated_wait_high"], None)


@rules("Estimates are told to who waits behind others.", own(capacity=1))
async def an_estimate_is_within_a_session(room: Room) -> None:
    await room.join(room.user("first"), auto_confirm=True)
    view = await room.join(room.user("second"))
    low, high = view["estimated_wait"], view["estimated_wait_high"]
    if low is None or high is None or not 0 < low <= high:
        raise Broken("join as the first who waits", "0 < estimate <= high", f"{low}, {high}")


@rules("Already in: same ticket, place and class; join is idempotent.", SHUT)
async def joining_again_keeps_the_ticket_and_the_place(room: Room) -> None:
    user = room.user()
    first = await room.join(user)
    await room.join(room.user("later"))
    again = await room.join(user, client="chat-2")
    for name in ("ticket_id", "joined_at", "status"):
        expect(f"{name} of a second join", again[name], first[name])
    if again["position"] > first["position"]:
        raise Broken("a second join", f"position {first['position']}", again["position"])


@rules("auto_confirm: a slot that is free becomes a session at once.")
async def auto_confirm_makes_a_session_at_once(room: Room) -> None:
    view = await room.join(room.user(), auto_confirm=True)
    expect("the state", view["status"], "active")
    length = room.settings["session_duration"]
    if not length - 30 <= view["expires_in"] <= length:
        raise Broken("join", f"expires_in of at most {length} s", view["expires_in"])


@rules("Already in: auto_confirm and will_return are replaced.", own(capacity=0))
async def joining_again_replaces_auto_confirm(room: Room) -> None:
    gives_up, takes_up = room.user("a"), room.user("b")
    await room.join(gives_up, auto_confirm=True)
    await room.join(gives_up, will_return=True)
    await room.join(takes_up, will_return=True)
    await room.join(takes_up, auto_confirm=True)
    await room.put(capacity=2)
    seen = [(await room.status(user))["status"] for user in (gives_up, takes_up)]
    expect("the states once there are slots", seen, ["draft", "active"])


@rules("POST /queue/confirm: draft to active, 200; already active: the same session, 200.")
async def confirm_starts_the_session_once(room: Room) -> None:
    user = room.user()
    draft = await room.join(user)
    first = (await room.ask("confirm", user, ticket_id=draft["ticket_id"])).good()
    again = (await room.ask("confirm", user)).good()
    views.check_view("confirm", first, views.TICKET)
    expect("the state", first["status"], "active")
    for name in ("ticket_id", "status", "expires_at"):
        expect(f"{name} of a second confirm", again[name], first[name])
    expect("the ticket", first["ticket_id"], draft["ticket_id"])


@rules("Confirm: waiting is 409.", SHUT)
async def who_waits_cannot_confirm(room: Room) -> None:
    user = room.user()
    await room.join(user)
    (await room.ask("confirm", user)).refused(409, "still_waiting")
    expect("the state after it", (await room.status(user))["status"], "waiting")


@rules("Confirm is bound to its ticket_id; a stale one is 409.")
async def confirm_is_bound_to_its_ticket(room: Room) -> None:
    user = room.user()
    old = await room.join(user)
    await room.ask("leave", user)
    await room.join(user)
    stale = await room.ask("confirm", user, ticket_id=old["ticket_id"])
    stale.refused(409, "ticket_stale", "ticket_id")
    expect("the state after it", (await room.status(user))["status"], "draft")


@rules("Confirm, leave, heartbeat and status: unknown is 404.")
async def a_stranger_has_no_ticket(room: Room) -> None:
    for verb in ("confirm", "leave", "heartbeat"):
        (await room.ask(verb, room.user("nobody"))).refused(404, "ticket_unknown")
    unknown = await room.service("GET", room.path("status", room.user("nobody")))
    unknown.refused(404, "ticket_unknown")


@rules("Confirm and heartbeat: ended is 404; leave: already ended is 200.")
async def a_turn_that_ended_is_over(room: Room) -> None:
    user = room.user()
    await room.join(user)
    await room.ask("leave", user)
    for verb in ("confirm", "heartbeat"):
        (await room.ask(verb, user)).refused(404, "ticket_ended")
    again = (await room.ask("leave", user)).good()
    states = (again["previous_status"], again["status"])
    expect("the states of a second leave", states, ("disconnected", "disconnected"))


@rules("Leave: 200 with user_id, pool, previous_status and the resulting status.")
async def leave_tells_the_states_before_and_after(room: Room) -> None:
    for wish, before in (({}, "draft"), ({"auto_confirm": True}, "active")):
        user = room.user(before)
        await room.join(user, **wish)
        reply = await room.ask("leave", user)
        views.check_view(reply.call, reply.good(), views.LEFT)
        whole = {"user_id": user, "pool": room.pool, "previous_status": before}
        expect(f"leave of a {before}", reply.json, {**whole, "status": "disconnected"})


@rules("A ticket that ended stays readable as disconnected with its reason.")
async def an_ended_ticket_stays_readable(room: Room) -> None:
    user = room.user()
    await room.join(user)
    await room.ask("leave", user)
    seen = await room.status(user)
    expect("state and reason", (seen["status"], seen["reason"]), ("disconnected", "left"))
    expect("expires_at", seen["expires_at"], None)


@rules("Joining again makes a new ticket.")
async def joining_after_the_end_makes_a_new_ticket(room: Room) -> None:
    user = room.user()
    first = await room.join(user)
    await room.ask("leave", user)
    second = await room.join(user)
    if second["ticket_id"] == first["ticket_id"] or second["status"] != "draft":
        raise Broken("join after leave", "another ticket, a draft", second)


@rules("With client: detaches that chat, ends the ticket only if no chat is left.", SHUT)
async def leave_of_one_chat_keeps_the_place_of_the_others(room: Room) -> None:
    user = room.user()
    for chat in ("chat-1", "chat-2"):
        await room.join(user, client=chat)
    one = (await room.ask("leave", user, client="chat-1")).good()
    expect("the state with a chat left", one["status"], "waiting")
    other = (await room.ask("leave", user, client="chat-2")).good()
    expect("the state with none left", other["status"], "disconnected")


@rules("Leave with client never ends active.")
async def leave_of_one_chat_never_ends_a_session(room: Room) -> None:
    user = room.user()
    await room.join(user, client="chat-1", auto_confirm=True)
    left = (await room.ask("leave", user, client="chat-1")).good()
    expect("the states", (left["previous_status"], left["status"]), ("active", "active"))


@rules("Heartbeat: presence renewed, 200 view; never extends the hard cap.")
async def a_heartbeat_never_moves_the_hard_cap(room: Room) -> None:
    user = room.user()
    before = await room.join(user, auto_confirm=True)
    reply = await room.ask("heartbeat", user, client="chat-1")
    views.check_view(reply.call, reply.good(), views.TICKET)
    expect("expires_at", reply.json["expires_at"], before["expires_at"])
    waits = room.user("waits")
    await room.join(waits)
    expect("the state", (await room.ask("heartbeat", waits)).good()["status"], "draft")


@rules("GET /queue/status/{user_id}: 200 ticket view; reading has no side effect.", SHUT)
async def reading_changes_nothing(room: Room) -> None:
    user = room.user()
    joined = await room.join(user)
    first, second = await room.status(user), await room.status(user)
    views.check_view("status", first, views.TICKET)
    for name in ("ticket_id", "status", "joined_at"):
        expect(f"{name} read twice", [first[name], second[name]], [joined[name]] * 2)


@rules("Bodies are optional: none at all stands for {}.")
async def a_body_may_be_left_out(room: Room) -> None:
    user = room.user()
    for verb, state in (
        ("join", "draft"), ("confirm", "active"), ("heartbeat", "active"), ("leave", "disconnected")
    ):  # fmt: skip
        view = (await room.service("POST", room.path(verb, user))).good()
        expect(f"the state after {verb}", view["status"], state)


@rules("model: not served is 404 model_not_served.")
async def a_model_nobody_serves_is_said_so(room: Room) -> None:
    user = room.user()
    (await room.ask("join", user, model=user)).refused(404, "model_not_served", "model")
    (await room.service("GET", room.path("status", user))).refused(404)
