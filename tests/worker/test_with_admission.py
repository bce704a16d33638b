"""The agent and the real admission service: the contract as both sides keep it."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from tests.conftest import Service
from tests.ports import free_port
from tests.worker.processes import AGENT, agent, program
from tests.worker.stand_ins import DEADLINE_S, Upstream
from worker_image.agent import AGENT_VERSION

View = dict[str, Any]


async def _worker(service: Service, true: Callable[[View], bool]) -> View:
    """Poll until admission shows one worker of which something holds. Raises `TimeoutError`."""
    key = {"Authorization": f"Bearer {service.admin_key}"}
    async with asyncio.timeout(DEADLINE_S), ClientSession(service.url, headers=key) as http:
        while True:
            async with http.get("/admin/workers") as answer:
                seen: list[View] = (await answer.json())["workers"]
            if seen and true(seen[0]):
                return seen[0]
            await asyncio.sleep(0.02)


async def test_admission_shows_what_the_agent_says(
    tmp_path: Path, service: Service, upstream: Upstream
) -> None:
    async with agent(
        tmp_path,
        admission_url=service.url,
        vllm_url=upstream.url,
        VESTIBULE_WORKER_TOKEN=service.worker_token,
    ) as running:
        seen = await _worker(service, lambda view: bool(view["ready"]))
        info = json.loads(await running.until("/info", 200))
    assert seen["worker_id"] == "w1"
    assert seen["url"] == running.url
    assert (seen["kind"], seen["pool"], seen["models"]) == ("agent", "default", ["tiny"])
    assert (seen["slots"], seen["in_flight"], seen["draining"]) == (8, 0, False)
    assert seen["agent_info"] == {
        "version": AGENT_VERSION,
        "build_date": info["agent_build_date"],
        "checksum": info["agent_checksum"],
    }
    assert seen["hardware"]["cpu_count"] >= 1
    assert seen["load"]["cpu_load"] is not None


async def test_admission_sees_an_unready_model_and_its_reason(
    tmp_path: Path, service: Service
) -> None:
    async with agent(
        tmp_path,
        admission_url=service.url,
        vllm_url="http://127.0.0.1:9",
        VESTIBULE_WORKER_TOKEN=service.worker_token,
    ):
        seen = await _worker(service, lambda view: "does not answer" in (view["reason"] or ""))
    assert seen["ready"] is False


async def test_a_worker_drained_by_its_operator_drains_and_a_restart_ends_it(
    tmp_path: Path, service: Service, upstream: Upstream
) -> None:
    key = {"Authorization": f"Bearer {service.admin_key}"}
    async with agent(
        tmp_path,
        admission_url=service.url,
        vllm_url=upstream.url,
        VESTIBULE_WORKER_TOKEN=service.worker_token,
    ) as running:
        await _worker(service, lambda view: bool(view["ready"]))
        async with running.http.post(
            f"{service.url}/admin/workers/w1/drain", headers=key
        ) as answer:
            assert answer.status == 200
        await _worker(service, lambda view: bool(view["draining"]))
        assert "draining" in await running.until("/readyz", 503)
    async with agent(
        tmp_path, admission_url=service.url, vllm_url=upstream.url, VESTIBULE_WORKER_TOKEN=""
    ):
        await _worker(service, lambda view: view["ready"] and not view["draining"])


async def test_a_stopped_worker_is_draining_for_admission(
    tmp_path: Path, service: Service, upstream: Upstream
) -> None:
    async with agent(
        tmp_path,
        admission_url=service.url,
        vllm_url=upstream.url,
        VESTIBULE_WORKER_TOKEN=service.worker_token,
    ) as running:
        await _worker(service, lambda view: bool(view["ready"]))
        assert (await running.child.stop())[0] == 0
        await _worker(service, lambda view: view["draining"] and not view["ready"])


async def test_admission_refuses_a_wrong_token(tmp_path: Path, service: Service) -> None:
    environment = {
        "VESTIBULE_WORKER_TOKEN": "wrong",
        "VESTIBULE_ADMISSION_URL": service.url,
        "VESTIBULE_WORKER_PORT": str(free_port()),
    }
    async with program([sys.executable, str(AGENT)], environment, tmp_path) as child:
        status, written = await child.end()
    assert status == 1
    assert "agent: admission refuses this worker: " in written
