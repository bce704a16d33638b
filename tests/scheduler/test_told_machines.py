"""The tick tells who waits of the machines that come, from their order to ready or failed."""

import pytest
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, Ticket
from admission.instance import Instance, State
from admission.store import names
from scheduler.autoscale import Demand
from scheduler.scaling import Scaling
from tests.scheduler.test_scaling import Pool

BOOT_MS = 20_000


@pytest.fixture
async def pool(redis: Redis, clock: ManualClock) -> Pool:
    return await Pool(redis, clock).begin()


async def wait_ms(pool: Pool, user: str) -> float | None:
    seen = await pool.store.status(DEFAULT_POOL, user)
    assert isinstance(seen, Ticket)
    return seen.wait_ms


async def behind_a_full_worker(pool: Pool) -> tuple[Scaling, Instance, Instance]:
    """Its four slots are taken, eve waits, and a second machine boots."""
    scaling = pool.scaling(workers_min=1, workers_max=1)
    await pool.join("ada")
    await scaling.run(pool.fence)
    await pool.take()
    await pool.pass_s(scaling, BOOT_MS // 1000)
    [first] = await pool.instances()
    first = await pool.becomes(first, State.READY, ready_ms=pool.clock.now_ms())
    await pool.worker(first.id)
    for user in ("ada", "bob", "cy", "dan"):
        await pool.store.join(DEFAULT_POOL, user, ticket=f"t-{user}", will_return=True)
        await pool.store.confirm(DEFAULT_POOL, user)
    await pool.join("eve")
    scaling = pool.scaling(workers_min=2)
    await pool.pass_s(scaling, 5, first.id)
    await pool.take()
    [second] = [one for one in await pool.instances() if one.id != first.id]
    return scaling, first, second


async def test_who_waits_behind_a_full_worker_is_told_of_the_one_that_boots(pool: Pool) -> None:
    scaling, ready, booting = await behind_a_full_worker(pool)
    boot_ms = await wait_ms(pool, "eve")
    assert boot_ms == BOOT_MS * 5 / 4  # learnt, rather too long than too short
    await pool.pass_s(scaling, 5, ready.id)
    assert await wait_ms(pool, "eve") == boot_ms - 5_000
    await pool.becomes(booting, State.STARTUP_FAILED, error_code="STARTUP_TIMEOUT")
    await pool.pass_s(scaling, 5, ready.id)  # another one is ordered in its place
    assert await wait_ms(pool, "eve") == boot_ms


async def test_the_autoscaler_does_not_take_its_own_order_for_an_answer(pool: Pool) -> None:
    await behind_a_full_worker(pool)
    metrics = await pool.store.metrics(DEFAULT_POOL)
    demand = Demand.of(metrics)
    assert metrics.wait_ms is not None
    assert demand.wait_ms is not None
    assert demand.wait_ms > metrics.wait_ms + 60_000


async def test_a_machine_that_is_ready_is_told_no_more(pool: Pool) -> None:
    scaling, ready, booting = await behind_a_full_worker(pool)
    await pool.becomes(booting, State.READY, ready_ms=pool.clock.now_ms())
    await pool.worker(booting.id)
    await pool.join("fay", "gus", "hal", "ivy")
    await pool.pass_s(scaling, 5, ready.id, booting.id)
    left_ms = await wait_ms(pool, "ivy")
    assert left_ms is not None
    assert left_ms > 60_000  # somebody else's turn


async def test_a_view_that_cannot_be_read_takes_nothing_back(pool: Pool) -> None:
    scaling = pool.scaling()
    await pool.join("ada")
    await scaling.run(pool.fence)
    before = await wait_ms(pool, "ada")
    assert before == BOOT_MS
    await pool.redis.hset(names.fleet_key("instances"), "x", b"broken")
    await pool.take()
    pool.clock.advance_ms(1_000)
    await scaling.run(pool.fence)
    assert await wait_ms(pool, "ada") == BOOT_MS - 1_000
