"""Why there are as many machines as there are: ``GET /admin/fleet``, and the news of it."""

import json
from typing import Any

import pytest
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.decided import Decided, Obstacle
from admission.instance import Event
from admission.store.fence import Fence
from tests.api.calls import Caller, caller_of
from tests.api.test_fleet_events import streamed
from tests.conftest import Service
from tests.fleet.words import NOW_MS, taken

SHORT = Obstacle("budget", "no money", NOW_MS - 720_000)


@pytest.fixture
async def fence(redis: Redis, clock: ManualClock) -> Fence:
    return await taken(redis, clock, "a")


async def decide(service: Service, fence: Fence, pool: str, **facts: Any) -> None:
    event = facts.pop("event", None)
    decided = Decided(at_ms=NOW_MS, **{"reason": "more is wanted, but no money", **facts})
    await service.store.fleet.decide(fence, f"scale-{pool}", b"{}", pool, decided, event)


async def test_only_admins(call: Caller, service: Service) -> None:
    assert (await call("GET", "/admin/fleet")).status == 403
    admin = caller_of(service, service.admin_key)
    assert (await admin("GET", "/admin/fleet")).json == {"pools": []}


async def test_the_last_decision_of_each_pool(
    admin: Caller, service: Service, fence: Fence
) -> None:
    numbers: dict[str, float | int | None] = {
        "wanted_slots": 14,
        "supply_slots": 12,
        "workers_ready": 3,
        "workers_loading": 0,
        "workers_least": 1,
        "workers_most": 3,
        "load": 13.25,
        "arrivals_per_s": 0.5,
        "boot_ms": 290_500,
        "wait_target_ms": 60_000,
        "gpu_load": None,
        "cost_per_hour": 3.018,
    }
    await decide(service, fence, "default", short=SHORT, numbers=numbers, acted_ms=NOW_MS - 1)
    hold = Obstacle("pool_paused", "the pool is paused", NOW_MS)
    await decide(service, fence, "a", reason="hold: the pool is paused", hold=hold)
    held, one = (await admin("GET", "/admin/fleet")).json["pools"]
    assert (held["pool"], held["hold"]["code"], held["load"]) == ("a", "pool_paused", None)
    known = {name: value for name, value in one.items() if value is not None}
    assert known == {
        "pool": "default",
        "at": "2027-01-15T08:00:00.000Z",
        "reason": "more is wanted, but no money",
        "short": {"code": "budget", "reason": "no money", "since": "2027-01-15T07:48:00.000Z"},
        "acted_at": "2027-01-15T07:59:59.999Z",
        "wanted_slots": 14,
        "supply_slots": 12,
        "workers_ready": 3,
        "workers_loading": 0,
        "workers_least": 1,
        "workers_most": 3,
        "load": 13.25,
        "arrivals_per_second": 0.5,
        "boot": 290.5,
        "wait_target": 60.0,
        "cost_per_hour": 3.018,
    }


async def test_news_of_a_pool_are_events_of_their_own_kind(
    admin: Caller, service: Service, fence: Fence
) -> None:
    async with streamed(admin) as stream:
        await stream.block()
        detail = {"pool": "default", "short": "budget", "load": 2}
        event = Event("", NOW_MS, 0, "short", reason="no money", ok=False, detail=detail)
        await decide(service, fence, "default", event=event)
        block = await stream.block()
    assert block["event"] == "pool"
    assert json.loads(block["data"]) == {
        "pool": "default",
        "at": "2027-01-15T08:00:00.000Z",
        "name": "short",
        "reason": "no money",
        "ok": False,
        "detail": {"short": "budget", "load": 2},
    }


async def test_a_pool_that_was_closed_is_forgotten(
    admin: Caller, service: Service, fence: Fence
) -> None:
    await admin("PUT", "/admin/pools/gpu-2", {"capacity": 0})
    for pool in ("default", "gpu-2"):
        await decide(service, fence, pool)
    assert (await admin("DELETE", "/admin/pools/gpu-2")).status == 200
    [left] = (await admin("GET", "/admin/fleet")).json["pools"]
    assert left["pool"] == "default"
