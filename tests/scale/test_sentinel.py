"""Sentinel: the master dies, its replica takes over, and the queue goes on from what it had."""

import asyncio

import pytest

from admission.store.connection import UnfitServer, check_server, open_redis
from tests.scale.processes import Admission, admission
from tests.scale.servers import MASTER, Watched, until, watched

SENTINEL = {"VESTIBULE_REDIS_MODE": "sentinel", "VESTIBULE_REDIS_SENTINEL_MASTER": MASTER}
CAPACITY = 3


@pytest.mark.long
async def test_what_the_replica_had_is_kept_the_rest_is_healed(valkey_binary: str) -> None:
    async with (
        watched(valkey_binary, sentinels=1) as servers,
        admission(servers.url, **SENTINEL) as service,
    ):
        await _fail_over_with_a_loss(servers, service)
        lone = open_redis(servers.sentinels[0].url)
        with pytest.raises(UnfitServer, match="set VESTIBULE_REDIS_MODE=sentinel"):
            await check_server(lone)
        await lone.aclose()


@pytest.mark.soak
async def test_the_matrix_with_three_sentinels_and_three_processes(any_binary: str) -> None:
    async with (
        watched(any_binary, sentinels=3) as servers,
        admission(servers.url, **SENTINEL, VESTIBULE_PROCESSES="3") as service,
    ):
        await servers.sentinels[0].kill()  # two of three are enough
        await _fail_over_with_a_loss(servers, service)


@pytest.mark.soak
async def test_joins_while_the_master_dies(any_binary: str) -> None:
    """Whoever was answered before the replica was cut off is there, and capacity holds."""
    async with (
        watched(any_binary, sentinels=3) as servers,
        admission(servers.url, **SENTINEL) as service,
    ):
        await asyncio.gather(*(service.join(f"early{i}") for i in range(50)))
        assert await servers.master.client.wait(1, 5000) == 1
        joins = [asyncio.create_task(service.join(f"u{i}", auto_confirm=True)) for i in range(300)]
        await asyncio.wait(joins, return_when=asyncio.FIRST_COMPLETED)
        await servers.master.kill()
        answers = await asyncio.gather(*joins)
        assert {status for status, _ in answers} <= {200, 503}
        for i in range(50):
            assert (await service.settled(f"/queue/status/early{i}"))[0] == 200
        for i in range(300):  # as a client does after a 503
            await until(lambda i=i: _joined(service, f"u{i}"), f"u{i} cannot join")  # type: ignore[misc]
        seen = await service.metrics()
        assert seen["draft"] + seen["active"] == CAPACITY
        assert seen["waiting"] == 350 - CAPACITY


async def _fail_over_with_a_loss(servers: Watched, service: Admission) -> None:
    """Two slots are known to the replica, the third and three who wait are not."""
    kept = [(await service.join(f"kept{i}", auto_confirm=True))[1] for i in range(2)]
    kept += [(await service.join("kept2"))[1]]
    assert (await service.call("POST", "/queue/leave/kept2"))[0] == 200
    assert await servers.master.client.wait(1, 5000) == 1
    await servers.cut_off_replica()
    lost = [(await service.join(f"lost{i}", auto_confirm=True))[1] for i in range(4)]
    assert [view["status"] for view in lost] == ["active", *["waiting"] * 3]
    began = asyncio.get_running_loop().time()
    await servers.lose_master()
    await until(servers.replica.is_master, "the replica was not made master")
    for before in kept[:2]:
        status, now = await service.settled(f"/queue/status/{before['user_id']}")
        assert (status, now["ticket_id"], now["status"]) == (200, before["ticket_id"], "active")
    took_s = asyncio.get_running_loop().time() - began
    assert took_s < 10, f"no answer for {took_s} s"
    for view in lost:
        assert (await service.status(view["user_id"]))[0] == 404
    assert (await service.metrics())["active"] == 2
    again = await asyncio.gather(
        *(service.join(view["user_id"], auto_confirm=True) for view in (*lost, *lost))
    )
    assert [view["status"] for _, view in again[:4]].count("active") == 1
    assert [view["ticket_id"] for _, view in again[:4]] == [v["ticket_id"] for _, v in again[4:]]
    seen = await service.metrics()
    assert (seen["draft"], seen["active"], seen["waiting"]) == (0, CAPACITY, 3)


async def _joined(service: Admission, user: str) -> bool:
    return (await service.join(user, auto_confirm=True))[0] == 200
