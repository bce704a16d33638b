"""Request pools and priorities over HTTP: how an admin makes them, and what callers see."""

import pytest

from tests.api.calls import Caller
from tests.api.conftest import Served
from tests.conftest import Service


@pytest.fixture
async def ollama(admin: Caller) -> str:
    """A request pool with one slot; its query."""
    made = await admin("PUT", "/admin/pools/ollama", {"kind": "request", "capacity": 1})
    assert (made.status, made.json["kind"]) == (200, "request")
    return "?pool=ollama"


async def test_a_request_pool_wants_the_request_named(call: Caller, ollama: str) -> None:
    refused = await call("POST", f"/queue/join/ada{ollama}", {"auto_confirm": True})
    assert (refused.status, refused.json["code"]) == (409, "request_pool")
    assert refused.fields == {"request_id"}


async def test_a_session_pool_has_no_use_for_a_request_id(call: Caller) -> None:
    first = await call("POST", "/queue/join/ada", {"request_id": "r1"})
    second = await call("POST", "/queue/join/ada", {"request_id": "r2"})
    assert first.json["ticket_id"] == second.json["ticket_id"]


async def test_each_request_waits_and_is_told_apart(call: Caller, ollama: str) -> None:
    async def ask(user: str, request: str) -> str:
        body = {"request_id": request, "auto_confirm": True}
        joined = await call("POST", f"/queue/join/{user}{ollama}", body)
        assert joined.status == 200
        return str(joined.json["ticket_id"])

    async def status(user: str, ticket: str) -> tuple[str, int | None]:
        seen = await call("GET", f"/queue/status/{user}{ollama}&ticket_id={ticket}")
        return seen.json["status"], seen.json["position"]

    one, two, other = await ask("ada", "r1"), await ask("ada", "r2"), await ask("bob", "r1")
    assert await status("ada", one) == ("active", None)
    assert await status("bob", other) == ("waiting", 1)  # ada has her turn already
    assert await status("ada", two) == ("waiting", 2)
    beat = await call("POST", f"/queue/heartbeat/ada{ollama}", {"ticket_id": one})
    assert (beat.status, beat.json["ticket_id"]) == (200, one)
    left = await call("POST", f"/queue/leave/ada{ollama}", {"ticket_id": one})
    assert left.json["previous_status"] == "active"
    assert await status("bob", other) == ("active", None)
    assert await status("ada", two) == ("waiting", 1)


async def test_an_admin_cancels(call: Caller, admin: Caller) -> None:
    await call("POST", "/queue/join/ada", {"auto_confirm": True})
    assert (await call("POST", "/admin/queue/cancel/ada")).status == 403
    done = await admin("POST", "/admin/queue/cancel/ada")
    assert done.json == {
        "user_id": "ada",
        "pool": "default",
        "previous_status": "active",
        "status": "disconnected",
    }
    assert (await call("GET", "/queue/status/ada")).json["reason"] == "removed"
    assert (await admin("POST", "/admin/queue/cancel/nobody")).status == 404


async def test_a_pool_is_closed_with_all_who_are_in_it(
    call: Caller, admin: Caller, ollama: str, service: Service
) -> None:
    for user in ("ada", "bob"):
        await call("POST", f"/queue/join/{user}{ollama}", {"request_id": "r"})
    closed = await admin("DELETE", "/admin/pools/ollama")
    assert closed.json == {"pool": "ollama", "closed": True}
    assert (await call("GET", f"/queue/status/ada{ollama}")).status == 404
    assert [pool["pool"] for pool in (await admin("GET", "/admin/pools")).json["pools"]] == [
        "default"
    ]
    assert (await admin("DELETE", "/admin/pools/ollama")).status == 404
    assert (await admin("DELETE", "/admin/pools/default")).status == 409


async def test_the_kind_of_a_pool_in_use_stays(call: Caller, admin: Caller) -> None:
    await call("POST", "/queue/join/ada")
    refused = await admin("PUT", "/admin/pools/default", {"kind": "request", "capacity": 9})
    assert (refused.status, refused.json["code"]) == (409, "pool_occupied")
    assert (await call("GET", "/queue/metrics")).json["capacity"] == 1


async def test_priority_is_a_head_start_that_is_shown(served: Served) -> None:
    async with served(VESTIBULE_PRIORITIES="vip=600;weight=4,batch=-60") as service:
        call = Caller(service.http, service.url, service.service_key)
        await call("POST", "/queue/join/x", {"auto_confirm": True})
        for user, priority in (("ada", None), ("bob", "batch"), ("cem", "vip")):
            await call("POST", f"/queue/join/{user}", {"priority": priority})
        seen = [(await call("GET", f"/queue/status/{user}")).json for user in ("ada", "bob", "cem")]
        assert [view["position"] for view in seen] == [2, 3, 1]
        assert [view["priority"] for view in seen] == ["default", "batch", "vip"]
        assert [view["may_be_passed"] for view in seen] == [True, True, False]
        refused = await call("POST", "/queue/join/dan", {"priority": "king"})
        assert (refused.status, refused.fields) == (422, {"priority"})


async def test_nobody_gives_themselves_priority(served: Served) -> None:
    async with served(VESTIBULE_PRIORITIES="vip=600") as service:
        call = Caller(service.http, service.url, service.service_key)
        token = (await call("POST", "/queue/join/ada")).json["token"]
        await call("POST", "/queue/leave/ada")
        ada = call.with_key(token)
        refused = await ada("POST", "/queue/join/ada", {"priority": "vip"})
        assert (refused.status, refused.fields) == (403, {"priority"})
        assert (await ada("POST", "/queue/join/ada", {"priority": "default"})).status == 200


async def test_a_pool_keeps_classes_of_its_own(admin: Caller, call: Caller) -> None:
    classes = {"staff": {"head_start": 300, "weight": 2}}
    put = await admin("PUT", "/admin/pools/default", {"priorities": classes})
    assert put.json["priorities"] == {
        "default": {"head_start": 0, "weight": 1},
        "staff": {"head_start": 300, "weight": 2},
    }
    joined = await call("POST", "/queue/join/ada", {"priority": "staff"})
    assert joined.json["priority"] == "staff"


async def test_a_users_class_that_the_pool_lacks_counts_as_the_default(
    admin: Caller, call: Caller
) -> None:
    assert (await admin("PUT", "/admin/priorities/ada", {"priority": "vip"})).status == 200
    joined = await call("POST", "/queue/join/ada")
    assert (joined.status, joined.json["priority"]) == (200, "default")
