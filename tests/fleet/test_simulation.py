"""Seeded lives of a fleet hold every invariant; and the simulation can fail, naming its seed.

500 lives are the soak; here a hundred of them, and some more over the real store.
"""

from collections import Counter

import pytest
from redis.asyncio import Redis

from tests.fleet.doubled_store import DoubledStore
from tests.fleet.life import Life, Report
from tests.fleet.witness import Broken

HERE, ALL, EACH = 25, 500, 25
SEEN = {  # what has to have happened in so many lives, or they prove less than they say
    *("adopt", "reopen", "rescue", "find", "drain", "resume", "redate", "pend", "archive"),
    *("keep_volume", "lose_volume", "fail failed", "fail_startup failed"),
    *("fail_provisioning failed", "launch failed", "delete_volume failed", "terminate failed"),
}
CODES = {
    *("STARTUP_TIMEOUT", "SPOT_INTERRUPTED", "WORKER_LOST", "WORKER_UNREADY", "MACHINE_STOPPED"),
    *("DELETED_BY_PROVIDER", "PROVIDER_OUT_OF_STOCK", "PROVIDER_QUOTA_EXCEEDED", "INSTALL_FAILED"),
    *("PROVIDER_DENIED", "PROVIDER_INVALID_ORDER", "AGENT_CHECKSUM_FAILED", "ORPHAN"),
    *("VOLUMES_DELETE_PENDING", "TERMINATE_PENDING"),
}


async def lives(first: int, count: int) -> list[Report]:
    return [await Life(seed).live() for seed in range(first, first + count)]


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(first, marks=[pytest.mark.long] if first > HERE else [])
        for first in range(1, ALL, EACH)
    ],
)
async def test_whatever_happens_nothing_leaks_and_nothing_is_doubled(first: int) -> None:
    reports = await lives(first, EACH)
    happened = sum((Counter(report.events) for report in reports), Counter())
    codes = frozenset[str]().union(*(report.codes for report in reports))
    assert sum(report.crashes for report in reports) > 50
    assert sum(report.woken for report in reports) > 50
    assert len(SEEN - happened.keys()) <= 3, SEEN - happened.keys()
    assert len(CODES - codes) <= 3, CODES - codes


@pytest.mark.parametrize(
    "seed", [12, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1_001, 1_021))]
)
async def test_the_same_over_the_real_store(redis: Redis, seed: int) -> None:
    await Life(seed, lambda clock: DoubledStore(redis, clock)).live()


async def test_the_same_seed_is_the_same_life() -> None:
    assert await lives(7, 1) == await lives(7, 1)


async def test_a_broken_invariant_names_its_seed() -> None:
    life = Life(3)
    life.cloud.tokens = Forgetful()
    with pytest.raises(Broken, match="seed 3: two machines for one id"):
        await life.live()


class Forgetful(dict[str, str]):
    """A provider that does not keep launch tokens."""

    def __contains__(self, token: object) -> bool:
        return False
