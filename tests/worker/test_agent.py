"""The agent's open endpoints and its settings."""

import asyncio
import hashlib
import json
import sys
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.worker.processes import AGENT, agent, program
from tests.worker.stand_ins import Admission, Upstream
from worker_image import agent as agent_module
from worker_image.agent import (
    AGENT_BUILD_DATE,
    AGENT_VERSION,
    Machine,
    SettingsError,
    Worker,
    read_settings,
)

TOKEN = {"VESTIBULE_WORKER_TOKEN": "t"}


async def test_info_gives_the_checksum_of_the_file_that_runs(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await running.until("/readyz", 200)
        assert json.loads(await running.until("/info", 200)) == {
            "agent_version": AGENT_VERSION,
            "agent_build_date": AGENT_BUILD_DATE,
            "agent_checksum": hashlib.sha256(AGENT.read_bytes()).hexdigest(),
            "worker_id": "w1",
            "instance_id": None,
            "models": ["tiny"],
            "vllm_version": "0.33.0",
            "vllm_ready": True,
            "vllm_state": "external",
            "vllm_restarts": 0,
            "model_percent": None,
        }


async def test_metrics_are_prometheus_text(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    upstream.metrics = (
        '# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine="0"} 4.0\n'
        'vllm:num_requests_waiting{engine="0"} 6.0\n'
    )
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await admission.until_ready()
        key = {"Authorization": "Bearer upstream-key"}
        async with running.http.get(f"{running.url}/v1/any", headers=key) as answer:
            assert answer.status == 200
        async with running.http.get(f"{running.url}/metrics") as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            lines = (await answer.text()).splitlines()
    for line in (
        "vestibule_worker_up 1",
        "vestibule_worker_ready 1",
        "vestibule_worker_requests_running 0",
        'vestibule_worker_requests_total{status="200"} 1',
        "vestibule_worker_model_requests_running 4",
        "vestibule_worker_model_queue_depth 6",
    ):
        assert line in lines
    assert "# TYPE vestibule_worker_requests_total counter" in lines
    assert len(lines) == len(set(lines))


async def test_an_unknown_path_is_problem_json(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        for path, status in (("/nope", 404), ("/drain", 401)):
            async with running.http.get(f"{running.url}{path}") as answer:
                assert (answer.status, answer.content_type) == (status, "application/problem+json")


async def test_a_port_in_use_is_one_clear_line(tmp_path: Path, upstream: Upstream) -> None:
    port = upstream.url.rpartition(":")[2]
    environment = TOKEN | {"VESTIBULE_WORKER_PORT": port}
    async with program([sys.executable, str(AGENT)], environment, tmp_path) as child:
        status, written = await child.end()
    assert status == 1
    assert "address already in use" in written.splitlines()[-1]
    assert "Traceback" not in written


async def test_two_agents_do_not_share_a_state(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    """Each would end the other's vLLM as a leftover of its own."""
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url):
        state = str(tmp_path / "state.json")
        environment = TOKEN | {"VESTIBULE_WORKER_STATE": state}
        command = [sys.executable, str(AGENT), "--port", str(free_port())]
        async with program(command, environment, tmp_path) as child:
            status, written = await child.end()
    assert (status, written) == (1, f"agent: another agent runs with {state}\n")


async def test_wrong_settings_end_it_with_status_2(tmp_path: Path) -> None:
    command = [sys.executable, str(AGENT), "--slots", "many", "--port", str(free_port())]
    async with program(command, {}, tmp_path) as child:
        status, written = await child.end()
    assert status == 2
    assert written.splitlines() == [
        "agent: these settings are wrong:",
        "VESTIBULE_SLOTS='many' must be a whole number from 1 to 99999",
        "VESTIBULE_WORKER_TOKEN is missing: a new worker registers with it",
    ]


def test_all_wrong_settings_are_named_at_once_and_no_secret_is_shown() -> None:
    environment = {
        "VESTIBULE_ADMISSION_URL": "localhost",
        "VESTIBULE_WORKER_TOKEN": "sec ret",
        "VESTIBULE_POOL": "Ä",
        "VESTIBULE_WORKER_ID": "a b",
        "VESTIBULE_WORKER_DRAIN_TIMEOUT": "-1",
        "WORKER_AGENT_SHA256": "abc",
    }
    with pytest.raises(SettingsError) as caught:
        read_settings(["--port", "65536", "--host", "0.0.0.0"], environment)
    text = str(caught.value)
    for name in (*environment, "VESTIBULE_WORKER_PORT", "VESTIBULE_WORKER_URL"):
        assert text.count(name) == 1
    assert "sec ret" not in text


def test_flags_win_over_the_environment_and_the_environment_over_defaults() -> None:
    environment = TOKEN | {
        "VESTIBULE_WORKER_HOST": "::1",
        "VESTIBULE_SLOTS": "3",
        "VESTIBULE_POOL": "",
        "VESTIBULE_WORKER_PORT": "tcp://10.0.0.1:80",
        "VESTIBULE_VLLM_URL": "http://127.0.0.1:8001/v1/",
        "VESTIBULE_WORKER_ID": "gpu-1",
        "VESTIBULE_STATE_DIR": "/some/where",
        "WORKER_AGENT_SHA256": "AB" * 32,
    }
    settings = read_settings(["--slots", "5"], environment)
    assert settings.slots == 5
    assert settings.pool == "default"
    assert settings.worker_url == "http://[::1]:9001"
    assert settings.vllm_url == "http://127.0.0.1:8001"
    assert settings.state_file == Path("/some/where/worker-gpu-1.json")
    assert settings.expected_checksum == "ab" * 32


async def test_a_former_upstream_key_is_good_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_module, "KEY_GRACE_S", 0.0)
    worker = Worker(read_settings([], TOKEN), "0" * 64)
    assert not worker.may_call("")
    for key in ("first", "second", "second"):
        worker.take_key(key)
    assert worker.may_call("first")
    worker.settle_keys()
    retired = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, retired.set)
    await retired.wait()
    assert worker.upstream_keys == ["second"]


def test_a_machine_without_a_gpu_says_null_not_zero(tmp_path: Path) -> None:
    load = Machine(tmp_path).load()
    assert load["gpu_load"] is None
    assert load["gpu_memory_total_mb"] is None
    assert Machine(tmp_path).hardware()["gpus"] == []
