"""Pools' numbers, the list of who waits, an admin's settings, and this process' health."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.api.calls import Caller
from tests.api.conftest import Served
from tests.conftest import DEADLINE_S, Service

METRICS = {
    "pool",
    "capacity",
    "active",
    "draft",
    "finishing",
    "waiting",
    "free",
    "paused",
    "admitted_total",
    "expired_total",
    "abandoned_total",
    "estimated_wait",
    "wait_p50",
    "wait_p95",
}


async def test_metrics_count_what_the_gate_counts(call: Caller, service: Service) -> None:
    await service.capacity(3)
    await call("POST", "/queue/join/ada", {"auto_confirm": True})
    await call("POST", "/queue/join/bob")
    metrics = (await call("GET", "/queue/metrics")).json
    assert set(metrics) == METRICS
    counted = {name: metrics[name] for name in ("capacity", "active", "draft", "waiting", "free")}
    assert counted == {"capacity": 3, "active": 1, "draft": 1, "waiting": 0, "free": 1}
    assert (metrics["admitted_total"], metrics["estimated_wait"]) == (1, 0)


async def test_waits_are_in_seconds(call: Caller, service: Service) -> None:
    assert (await call("GET", "/queue/metrics")).json["wait_p50"] is None
    await call("POST", "/queue/join/ada", {"auto_confirm": True})
    await call("POST", "/queue/join/bob", {"auto_confirm": True})
    service.clock.advance_ms(20_000)
    await call("POST", "/queue/leave/ada")
    metrics = (await call("GET", "/queue/metrics")).json
    assert (metrics["wait_p50"], metrics["wait_p95"]) == (10, 19)


async def test_the_queue_is_listed_in_order_page_by_page(call: Caller, service: Service) -> None:
    await call("POST", "/queue/join/ada", {"auto_confirm": True})
    for user in ("u1", "u2", "u3"):
        await call("POST", f"/queue/join/{user}")
    page = (await call("GET", "/queue/status?offset=1&limit=1")).json
    item = page.pop("queue_items")[0]
    assert page == {
        "queue_length": 3,
        "active_requests": 1,
        "max_concurrent": 1,
        "total_processed": 1,
    }
    assert set(item) == {"request_id", "user_id", "position", "enqueued_at", "status"}
    assert (item["user_id"], item["position"], item["status"]) == ("u2", 2, "waiting")
    now = datetime.fromtimestamp(service.clock.now_ms() / 1000, UTC)
    assert item["enqueued_at"].endswith("Z")
    assert datetime.fromisoformat(item["enqueued_at"]) == now
    everyone = (await call("GET", "/queue/status")).json["queue_items"]
    assert [(i["user_id"], i["position"]) for i in everyone] == [("u1", 1), ("u2", 2), ("u3", 3)]
    assert (await call("GET", "/queue/status?limit=0")).json["queue_items"] == []


async def test_an_admins_setting_wins_until_it_is_put_to_null(admin: Caller, call: Caller) -> None:
    changes = {"capacity": 7, "session_duration": 60, "draft_duration": 30, "needs_worker": True}
    put = await admin("PUT", "/admin/pools/default", changes)
    assert put.status == 200
    view = put.json
    assert (view["capacity"], view["session_duration"], view["draft_duration"]) == (7, 60, 30)
    assert (view["kind"], view["needs_worker"]) == ("session", True)
    await admin("PUT", "/admin/pools/default", dict.fromkeys(changes))
    (listed,) = (await admin("GET", "/admin/pools")).json["pools"]
    assert (listed["capacity"], listed["session_duration"]) == (1, 1200)
    assert set(listed) >= METRICS


async def test_a_new_capacity_admits_at_once(admin: Caller, call: Caller) -> None:
    await call("POST", "/queue/join/ada")
    await call("POST", "/queue/join/bob")
    await admin("PUT", "/admin/pools/default", {"capacity": 2})
    assert (await call("GET", "/queue/status/bob")).json["status"] == "draft"


async def test_auto_capacity_is_the_slots_of_the_ready_workers(admin: Caller) -> None:
    view = (await admin("PUT", "/admin/pools/default", {"capacity": "auto"})).json
    assert (view["capacity_setting"], view["capacity"], view["ready_workers"]) == ("auto", 0, 0)


async def test_pools_have_queues_of_their_own(admin: Caller, call: Caller) -> None:
    await admin("PUT", "/admin/pools/gpu-2", {"capacity": 0})
    await call("POST", "/queue/join/ada")
    assert (await call("POST", "/queue/join/ada?pool=gpu-2")).json["position"] == 1
    pools = {pool["pool"]: pool for pool in (await admin("GET", "/admin/pools")).json["pools"]}
    assert (pools["default"]["draft"], pools["gpu-2"]["waiting"]) == (1, 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/healthz", {"status": "alive"}),
        ("/readyz", {"status": "ready", "workers": {"known": 0, "ready": 0}}),
    ],
)
async def test_health_is_open_to_all(call: Caller, path: str, body: dict[str, Any]) -> None:
    reply = await call.with_key(None)("GET", path)
    assert (reply.status, reply.json) == (200, body)


async def test_a_service_that_has_only_just_started_stops_at_once(served: Served) -> None:
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(10):
            async with served():
                pass


async def test_readyz_is_ready_after_redis_forgot_the_scripts(
    service: Service, call: Caller
) -> None:
    await service.store._redis.script_flush()
    assert (await call("GET", "/readyz")).status == 200
    assert (await call("POST", "/queue/join/ada")).status == 200
