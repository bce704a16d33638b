"""Machines that nobody looks after, and pools that still have some, as an admin sees them."""

import msgspec
import pytest
from redis.asyncio import Redis

from admission.attendance import provider_tick
from admission.clock import ManualClock
from admission.instance import Instance, Offer, State
from admission.store.fence import Fence
from admission.store.tick_store import TickStore, Word
from tests.api.calls import Caller
from tests.conftest import Service
from tests.fleet.words import happened, machine, taken


@pytest.fixture
async def fence(redis: Redis, clock: ManualClock, service: Service) -> Fence:
    """Of a scheduler that has published an offer of "aws"."""
    fence = await taken(redis, clock, "a")
    await service.store.fleet.offer(fence, "aws", [Offer("g5", "a", "on-demand", 0.4)])
    return fence


async def keep(service: Service, fence: Fence, *made: Instance) -> None:
    for one in made:
        assert await service.store.fleet.write(fence, one, 0, [happened(one)])


async def test_a_machine_that_nobody_looks_after_is_shown_as_one(
    admin: Caller, service: Service, fence: Fence, redis: Redis, clock: ManualClock
) -> None:
    await keep(service, fence, machine("i-1", state=State.READY, worker_id="rack-7"))
    ticks = TickStore(redis, clock)
    await ticks.beat("a", {provider_tick("local"): Word(1000)})
    for path in ("/admin/instances/i-1", "/admin/instances"):
        seen = (await admin("GET", path)).json
        one = seen["instances"][0] if "instances" in seen else seen
        assert (one["unattended"], one["worker_id"]) == (None, "rack-7")
    clock.advance_ms(60_000)
    [one] = (await admin("GET", "/admin/instances")).json["instances"]
    assert "no scheduler has its provider local" in one["unattended"]


async def test_a_pool_with_machines_is_not_closed(
    admin: Caller, service: Service, fence: Fence
) -> None:
    await admin("PUT", "/admin/pools/lab", {"capacity": 1})
    lab = msgspec.structs.replace(machine().order, pool="lab")
    await keep(service, fence, machine("i-1", order=lab, state=State.BOOTING), machine("i-2"))
    wish = await admin("POST", "/admin/instances", {"provider": "aws", "pool": "lab"})
    assert wish.status == 202, wish.text
    refused = await admin("DELETE", "/admin/pools/lab")
    assert (refused.status, refused.json["code"]) == (409, "pool_has_machines")
    assert refused.json["instances"] == sorted([*wish.json["instances"], "i-1"])
    assert "i-1" in refused.json["detail"]
    assert "lab" in await service.store.pools()
    await admin("PUT", "/admin/pools/other", {"capacity": 1})
    assert (await admin("DELETE", "/admin/pools/other")).status == 200


async def test_a_pool_whose_machines_end_is_closed(
    admin: Caller, service: Service, fence: Fence
) -> None:
    await admin("PUT", "/admin/pools/lab", {"capacity": 1})
    lab = msgspec.structs.replace(machine().order, pool="lab")
    await keep(service, fence, machine("i-1", order=lab, state=State.TERMINATING))
    assert (await admin("DELETE", "/admin/pools/lab")).status == 200
