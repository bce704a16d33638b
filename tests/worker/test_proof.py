"""The model really answers: one token is asked for, no more often than needed."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.worker.processes import Agent, agent
from tests.worker.stand_ins import (
    DEADLINE_S,
    STREAM_HEAD,
    Admission,
    Request,
    Upstream,
    chunk,
    plain,
)
from worker_image import agent as agent_module
from worker_image.agent import Figures

KEY = {"Authorization": "Bearer upstream-key"}


async def _reason(running: Agent) -> str:
    return str(json.loads(await running.until("/readyz", 503))["reason"])


async def test_a_model_server_whose_model_fails_is_not_ready(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    upstream.token_status = "500 Internal Server Error"
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        assert await _reason(running) == "the model server answers 500 to /v1/chat/completions"
        upstream.token_status = "200 OK"
        await running.until("/readyz", 200)


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
async def test_a_full_model_server_is_not_a_dead_one(
    tmp_path: Path, admission: Admission, upstream: Upstream, status: str
) -> None:
    upstream.token_status = status
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await running.until("/readyz", 200)


async def test_a_server_that_cannot_be_tried_counts_by_its_models(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    upstream.token_status = "404 Not Found"
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await running.until("/readyz", 200)
    assert upstream.tokens == 3


async def test_many_who_ask_cost_one_token(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await running.until("/readyz", 200)
        answers = await asyncio.gather(*(running.get("/readyz") for _ in range(50)))
    assert {status for status, _ in answers} == {200}
    assert upstream.tokens == 1


async def test_a_token_that_passes_by_is_proof_enough(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "LOOK_INTERVAL_S", (0.0, 0.0))
    given = {"VESTIBULE_WORKER_TOKEN": "t", "VESTIBULE_VLLM_URL": upstream.url}
    settings = agent_module.read_settings([], given)
    async with ClientSession() as session:
        server = agent_module.ModelServer(session, settings, lambda: False)
        server.spoke()
        assert await server.look(3.0) == (["tiny"], None)
        assert upstream.tokens == 0
        assert await server.look(-1.0) == (["tiny"], None)
        assert upstream.tokens == 1
        server.ended()
        await server.look(3.0)
        assert upstream.tokens == 2


@pytest.mark.parametrize("busy", [True, False])
async def test_a_busy_model_may_be_slow(monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
    monkeypatch.setattr(agent_module, "ASK_TIMEOUT_S", 0.2)

    tasks: list[asyncio.Task[Any] | None] = []

    async def only_models(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        line = await reader.readuntil(b"\r\n\r\n")
        if b"/v1/models" in line:
            writer.write(plain(b'{"data": [{"id": "tiny"}]}'))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(only_models, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    given = {"VESTIBULE_WORKER_TOKEN": "t", "VESTIBULE_VLLM_URL": url}
    settings = agent_module.read_settings([], given)
    async with ClientSession() as session:
        model = agent_module.ModelServer(session, settings, lambda: busy)
        names, problem = await model.look(0.0)
    server.close()
    await asyncio.gather(*(task for task in tasks if task))
    assert names == ["tiny"]
    assert problem == (None if busy else "the model says nothing in 0 s")


async def test_figures_and_metrics_are_vllms_own(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    upstream.metrics = (
        "# TYPE vllm:kv_cache_usage_perc gauge\n"
        'vllm:kv_cache_usage_perc{engine="0"} 0.25\n'
        'vllm:kv_cache_usage_perc{engine="1"} 7.5e-1\n'
        'vllm:num_requests_running{engine="0"} 4.0\n'
        "vestibule_worker_up 0\n"
    )
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        await admission.until_ready()
        lines = (await running.get("/metrics"))[1].splitlines()
    load = admission.heartbeats[-1].body["load"]
    assert (load["running"], load["waiting"], load["kv_cache_usage"]) == (4, None, 0.75)
    assert 'vllm:kv_cache_usage_perc{engine="1"} 7.5e-1' in lines
    assert "vestibule_worker_model_kv_cache_usage 0.75" in lines
    assert [line for line in lines if line.startswith("vestibule_worker_up")] == [
        "vestibule_worker_up 1"
    ]


def test_the_older_name_of_the_cache_is_known() -> None:
    assert Figures.read("vllm:gpu_cache_usage_perc 1.2").kv_cache_usage == 1.0
    assert Figures.read("").kv_cache_usage is None


async def test_what_runs_is_in_the_heartbeat(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    admission.heartbeat_interval = 0.1
    told = asyncio.Event()

    async def stream(_: Request, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(b"one"))
        await asyncio.wait_for(told.wait(), DEADLINE_S)
        writer.write(chunk(b""))

    upstream.answer = stream
    async with agent(
        tmp_path,
        admission_url=admission.url,
        vllm_url=upstream.url,
        VESTIBULE_INSTANCE_ID="i-0abc",
    ) as running:
        await admission.until_ready()
        url = f"{running.url}/v1/chat/completions"
        async with running.http.post(url, headers=KEY, json={}) as answer:
            await answer.content.readany()
            await admission.until(lambda: admission.heartbeats[-1].body["in_flight"] == 1)
            told.set()
            await answer.read()
    assert admission.heartbeats[-1].body["instance_id"] == "i-0abc"
