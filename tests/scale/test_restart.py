"""Killed at any moment, Redis and the service lose nobody they answered, and grant none twice."""

import asyncio

import psutil
import pytest

from tests.scale.conftest import MATRIX, binary_of
from tests.scale.processes import Admission, admission
from tests.scale.servers import one

CAPACITY = 3


@pytest.mark.parametrize(
    ("name", "rounds"),
    [
        pytest.param("valkey", 1, id="valkey-once", marks=pytest.mark.long),
        *(
            pytest.param(*param.values, 8, id=f"{param.id}-again-and-again", marks=pytest.mark.soak)
            for param in MATRIX
        ),
    ],
)
async def test_redis_and_a_process_killed_under_joins(name: str, rounds: int) -> None:
    async with (
        one(binary_of(name)) as server,
        admission(server.url, VESTIBULE_PROCESSES="2") as service,
    ):
        known: dict[str, str] = {}
        for round_ in range(rounds):
            users = [f"u{round_}-{i}" for i in range(100)]
            joins = [asyncio.create_task(service.join(user, auto_confirm=True)) for user in users]
            await asyncio.wait(joins, return_when=asyncio.FIRST_COMPLETED)
            if round_ % 2 == 0:
                await server.kill()
            else:
                min(service.workers(), key=lambda p: p.pid).kill()
            answers = await asyncio.gather(*joins)
            if round_ % 2 == 0:
                await server.start()
            assert {status for status, _ in answers} <= {200, 503, 0}
            known |= {
                view["user_id"]: view["ticket_id"] for status, view in answers if status == 200
            }
            await _all_known(service, known)
            known |= {user: await _join(service, user) for user in users}
            seen = await service.metrics()
            assert (seen["draft"] + seen["active"], seen["waiting"]) == (
                CAPACITY,
                len(known) - CAPACITY,
            )
        assert psutil.Process(service.process.pid).is_running()


async def _all_known(service: Admission, known: dict[str, str]) -> None:
    for user, ticket in known.items():
        assert await _told(service, "GET", f"/queue/status/{user}") == ticket


async def _join(service: Admission, user: str) -> str:
    return await _told(service, "POST", f"/queue/join/{user}")


async def _told(service: Admission, method: str, path: str) -> str:
    """The ticket's id, once somebody answers."""
    status, view = await service.settled(path, method)
    assert status == 200, (path, view)
    return str(view["ticket_id"])
