"""A turn over REST: join, confirm, leave, heartbeat, status (DESIGN sections 4 and 5)."""

from datetime import datetime

import pytest

from tests.api.calls import Caller
from tests.api.fleet import register
from tests.conftest import Service

VIEW = {
    "ticket_id",
    "user_id",
    "pool",
    "status",
    "position",
    "queue_length",
    "estimated_wait",
    "estimated_wait_high",
    "expires_in",
    "expires_at",
    "session_duration",
    "joined_at",
    "reason",
    "priority",
    "may_be_passed",
}


async def test_join_answers_the_whole_ticket_view_and_a_token(call: Caller) -> None:
    reply = await call("POST", "/queue/join/ada")
    assert reply.status == 200
    assert reply.kind == "application/json"
    assert set(reply.json) == VIEW | {"token"}


async def test_a_draft_tells_its_deadline_in_seconds_and_as_an_instant(
    call: Caller, service: Service
) -> None:
    view = (await call("POST", "/queue/join/ada")).json
    assert (view["status"], view["expires_in"], view["session_duration"]) == ("draft", 300, 1200)
    assert view["position"] is view["estimated_wait"] is view["reason"] is None
    assert view["expires_at"].endswith("Z")
    ends = datetime.fromisoformat(view["expires_at"])
    joined = datetime.fromisoformat(view["joined_at"])
    assert joined.timestamp() * 1000 == service.clock.now_ms()
    assert (ends - joined).total_seconds() == 300


async def test_who_waits_sees_place_and_estimate_in_seconds(call: Caller) -> None:
    await call("POST", "/queue/join/ada", {"auto_confirm": True})
    view = (await call("POST", "/queue/join/bob")).json
    assert (view["status"], view["position"], view["queue_length"]) == ("waiting", 1, 1)
    assert view["estimated_wait"] == view["estimated_wait_high"] == 1200
    assert view["expires_in"] is view["expires_at"] is None


async def test_an_estimate_that_cannot_be_known_is_null(call: Caller, service: Service) -> None:
    await service.capacity(0)
    view = (await call("POST", "/queue/join/ada")).json
    assert view["position"] == 1
    assert view["estimated_wait"] is view["estimated_wait_high"] is None


async def test_joining_again_keeps_ticket_and_place(call: Caller) -> None:
    for user in ("ada", "bob", "cy"):
        await call("POST", f"/queue/join/{user}")
    first = (await call("GET", "/queue/status/bob")).json
    again = (await call("POST", "/queue/join/bob", {"client": "chat-2"})).json
    del again["token"]
    assert again == first


async def test_auto_confirm_becomes_active_at_once(call: Caller) -> None:
    view = (await call("POST", "/queue/join/ada", {"auto_confirm": True})).json
    assert (view["status"], view["expires_in"]) == ("active", 1200)


async def test_confirm_starts_the_session_once(call: Caller) -> None:
    draft = (await call("POST", "/queue/join/ada")).json
    first = await call("POST", "/queue/confirm/ada", {"ticket_id": draft["ticket_id"]})
    second = await call("POST", "/queue/confirm/ada")
    assert (first.status, first.json["status"]) == (200, "active")
    assert (second.status, second.json) == (200, first.json)


@pytest.mark.parametrize(
    ("user", "body", "status", "code"),
    [
        ("bob", {}, 409, "still_waiting"),
        ("ada", {"ticket_id": "another"}, 409, "ticket_stale"),
        ("gone", {}, 404, "ticket_ended"),
        ("nobody", {}, 404, "ticket_unknown"),
    ],
)
async def test_confirm_without_a_draft_is_refused(
    call: Caller, user: str, body: dict[str, str], status: int, code: str
) -> None:
    await call("POST", "/queue/join/gone")
    await call("POST", "/queue/leave/gone")
    await call("POST", "/queue/join/ada")
    await call("POST", "/queue/join/bob")
    reply = await call("POST", f"/queue/confirm/{user}", body)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert (await call("GET", "/queue/status/ada")).json["status"] == "draft"


async def test_leave_tells_the_states_before_and_after(call: Caller) -> None:
    await call("POST", "/queue/join/ada")
    reply = await call("POST", "/queue/leave/ada")
    expected = {"user_id": "ada", "pool": "default"}
    assert reply.json == {**expected, "previous_status": "draft", "status": "disconnected"}
    again = await call("POST", "/queue/leave/ada")
    assert (again.status, again.json["previous_status"]) == (200, "disconnected")


async def test_leave_of_one_chat_keeps_the_place_of_the_other(call: Caller) -> None:
    await call("POST", "/queue/join/ada", {"client": "chat-1"})
    await call("POST", "/queue/join/ada", {"client": "chat-2"})
    one = await call("POST", "/queue/leave/ada", {"client": "chat-1"})
    other = await call("POST", "/queue/leave/ada", {"client": "chat-2"})
    assert (one.json["status"], other.json["status"]) == ("draft", "disconnected")


async def test_leave_of_one_chat_never_ends_a_session(call: Caller) -> None:
    await call("POST", "/queue/join/ada", {"client": "chat-1", "auto_confirm": True})
    reply = await call("POST", "/queue/leave/ada", {"client": "chat-1"})
    assert reply.json["status"] == "active"


async def test_a_freed_slot_goes_to_the_next_without_a_tick(call: Caller) -> None:
    await call("POST", "/queue/join/ada")
    await call("POST", "/queue/join/bob")
    await call("POST", "/queue/leave/ada")
    assert (await call("GET", "/queue/status/bob")).json["status"] == "draft"


@pytest.mark.parametrize("path", ["confirm", "heartbeat", "leave"])
async def test_a_stranger_has_no_ticket(call: Caller, path: str) -> None:
    reply = await call("POST", f"/queue/{path}/nobody")
    assert (reply.status, reply.json["code"]) == (404, "ticket_unknown")
    assert (await call("GET", "/queue/status/nobody")).status == 404


async def test_a_heartbeat_renews_presence(call: Caller, service: Service) -> None:
    await service.capacity(0)
    await call("POST", "/queue/join/ada", {"auto_confirm": True})
    for _ in range(3):
        service.clock.advance_ms(45_000)
        assert (await call("POST", "/queue/heartbeat/ada")).json["position"] == 1
        await service.tick()
    assert (await call("GET", "/queue/status/ada")).json["queue_length"] == 1
    service.clock.advance_ms(61_000)
    await service.tick()
    assert (await call("GET", "/queue/status/ada")).json["queue_length"] == 0


async def test_heartbeats_never_move_the_hard_cap(call: Caller, service: Service) -> None:
    before = (await call("POST", "/queue/join/ada", {"auto_confirm": True})).json["expires_at"]
    service.clock.advance_ms(30_000)
    alive = await call("POST", "/queue/heartbeat/ada", {"client": "chat-1"})
    assert (alive.json["expires_at"], alive.json["expires_in"]) == (before, 1170)
    service.clock.advance_ms(1_170_000)
    over = await call("POST", "/queue/heartbeat/ada", {"client": "chat-1"})
    assert (over.status, over.json["code"]) == (404, "ticket_ended")
    assert over.json["ticket"]["reason"] == "session_timeout"


async def test_an_ended_ticket_is_readable_for_five_minutes(call: Caller, service: Service) -> None:
    await call("POST", "/queue/join/ada")
    await call("POST", "/queue/leave/ada")
    view = (await call("GET", "/queue/status/ada")).json
    assert (view["status"], view["reason"], view["expires_at"]) == ("disconnected", "left", None)
    service.clock.advance_ms(300_000)
    await service.tick()
    assert (await call("GET", "/queue/status/ada")).status == 404


async def test_a_model_chooses_the_pool(call: Caller, admin: Caller, agent: str) -> None:
    await admin("PUT", "/admin/pools/gpu", {"capacity": 3})
    await register(call.with_key("worker-token"), agent, pool="gpu", models=["tiny"])
    await admin("PUT", "/admin/pools/gpu", {"paused": None})  # reads the registry again
    view = (await call("POST", "/queue/join/ada?pool=default", {"model": "tiny"})).json
    assert (view["pool"], view["status"]) == ("gpu", "draft")
    assert (await call("GET", "/queue/status/ada?pool=gpu")).json["user_id"] == "ada"
    assert (await call("GET", "/queue/status/ada")).status == 404


async def test_a_model_nobody_serves_is_none_of_our_business(call: Caller) -> None:
    reply = await call("POST", "/queue/join/ada", {"model": "gpt-4o"})
    assert (reply.status, reply.json["code"]) == (404, "model_not_served")
    assert reply.fields == {"model"}


async def test_a_full_queue_or_paused_pool_says_when_to_try_again(
    call: Caller, admin: Caller, service: Service
) -> None:
    await admin("PUT", "/admin/pools/default", {"paused": True})
    paused = await call("POST", "/queue/join/ada")
    assert (paused.status, paused.json["code"]) == (503, "pool_paused")
    await service.store.configure("default", {"paused": None, "capacity": 0, "queue_limit": 1})
    await call("POST", "/queue/join/ada")
    full = await call("POST", "/queue/join/bob")
    assert (full.status, full.json["code"]) == (503, "queue_full")
    assert paused.headers["Retry-After"] == full.headers["Retry-After"] == "30"
    assert (await call("GET", "/queue/status/bob")).status == 404
