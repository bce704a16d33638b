"""Several admission processes behind one port: one queue, and a death nobody loses a place by."""

import asyncio
import signal
from collections.abc import AsyncIterator

import psutil
import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from tests.scale.processes import KEY, Admission, admission, refused
from tests.scale.servers import until

N = 3


@pytest.fixture
async def three(valkey: str, redis: Redis) -> AsyncIterator[Admission]:
    """Three processes with capacity 3 over the empty test server."""
    async with admission(valkey, VESTIBULE_PROCESSES=str(N)) as one:
        yield one


async def _answering(one: Admission, connections: int) -> set[int]:
    """Which processes answer that many connections, each of its own."""
    sessions = [ClientSession(headers=KEY) for _ in range(connections)]
    try:
        for http in sessions:
            async with http.get(one.url + "/readyz") as answer:
                assert answer.status == 200
        port = int(one.url.rpartition(":")[2])
        return {
            process.pid
            for process in one.workers()
            for link in process.net_connections("tcp")
            if link.status == psutil.CONN_ESTABLISHED and link.laddr.port == port
        }
    finally:
        for http in sessions:
            await http.close()


@pytest.mark.long
async def test_one_queue_one_port_and_nothing_outlives_a_killed_parent(
    valkey: str, three: Admission
) -> None:
    await _each_answers_and_there_is_one_queue(three)
    await _a_port_in_use_is_one_clear_line(valkey, three)
    await _they_stop_when_their_parent_was_killed(three)


@pytest.mark.long
async def test_a_killed_process_loses_no_ticket_and_a_stop_drains_all(three: Admission) -> None:
    await _a_killed_process_is_replaced_and_no_acknowledged_ticket_is_lost(three)
    await _a_stop_drains_all_and_leaves_none(three)


async def _each_answers_and_there_is_one_queue(three: Admission) -> None:
    assert len(three.workers()) == N
    assert len(await _answering(three, 60)) == N
    same = await asyncio.gather(*(three.join("ada") for _ in range(60)))
    assert {status for status, _ in same} == {200}
    assert len({view["ticket_id"] for _, view in same}) == 1
    joined = await asyncio.gather(*(three.join(f"u{i}", auto_confirm=True) for i in range(60)))
    assert [view["status"] for _, view in joined].count("active") == 2  # ada has a draft
    seen = await three.metrics()
    assert (seen["draft"], seen["active"], seen["waiting"]) == (1, 2, 58)


async def _a_killed_process_is_replaced_and_no_acknowledged_ticket_is_lost(
    three: Admission,
) -> None:
    joins = [asyncio.create_task(three.join(f"u{i}", auto_confirm=True)) for i in range(150)]
    await asyncio.wait(joins, return_when=asyncio.FIRST_COMPLETED)
    before = {process.pid for process in three.workers()}
    victim = min(before)
    psutil.Process(victim).kill()
    acknowledged = [view for status, view in await asyncio.gather(*joins) if status == 200]
    assert acknowledged
    for view in acknowledged:
        status, now = await three.settled(f"/queue/status/{view['user_id']}")
        assert (status, now["ticket_id"]) == (200, view["ticket_id"])
    assert (await three.metrics())["active"] == 3

    async def whole() -> bool:
        now = {process.pid for process in three.workers()}
        return len(now) == N and victim not in now and len(await _answering(three, 60)) == N

    await until(whole, "the killed process was not replaced")


async def _a_stop_drains_all_and_leaves_none(three: Admission) -> None:
    family = three.workers()
    await three.join("ada")
    stream = three.event("ada")
    assert (await anext(stream))["status"] == "waiting"
    three.process.send_signal(signal.SIGTERM)
    assert [ticket async for ticket in stream] == []  # ended whole, not cut
    assert await three.process.wait() == 0
    assert not [process for process in family if process.is_running()]


async def _they_stop_when_their_parent_was_killed(three: Admission) -> None:
    family = three.workers()
    three.process.kill()
    await three.process.wait()

    async def gone() -> bool:
        return not any(process.is_running() for process in family)

    await until(gone, "they outlive their parent")


async def _a_port_in_use_is_one_clear_line(valkey: str, three: Admission) -> None:
    port = three.url.rpartition(":")[2]
    for count in ("1", "2"):
        code, said = await refused(valkey, "--port", port, VESTIBULE_PROCESSES=count)
        assert code == 1
        assert said.startswith(f"vestibule: cannot listen on 127.0.0.1:{port}")
        assert said.count("\n") == 1
