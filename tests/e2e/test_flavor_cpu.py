"""Knows the worker's image without Docker: its entrypoint, the agent, the CPU flavor, real vLLM.

Does not know Open WebUI; admission is the recording one of `tests/worker`, which holds the key.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.build import ANSWER, CONTEXT_TOKENS, Components
from tests.e2e.server import Server
from tests.e2e.stack import MODEL
from tests.worker.stand_ins import Admission
from worker_image import flavors

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

ENTRYPOINT = Path(flavors.__file__).parent.parent / "entrypoint"
# What an operator writes behind the flavor's words wins over them.
OPERATORS = ("--kv-cache-memory-bytes", "1G", "--served-model-name", MODEL)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


class Worker(Server):
    """The image's entrypoint, with what `vestibule image cpu --run` would give it."""

    name = "worker"
    ready_path = "/readyz"
    ready_within_s = 240  # 30 to 55 s on two idle cores

    def __init__(self, folder: Path, components: Components, admission: Admission) -> None:
        super().__init__(folder)
        self._components, self._admission = components, admission
        self._flavor = flavors.load("cpu")

    def command(self) -> Sequence[str | Path]:
        return (ENTRYPOINT, self._components.model, *self._flavor.vllm.words(), *OPERATORS)

    def environment(self) -> Mapping[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "VESTIBULE_VLLM": str(self._components.vllm / "bin" / "vllm"),
            "VESTIBULE_ADMISSION_URL": self._admission.url,
            "VESTIBULE_WORKER_TOKEN": self._admission.shared_token,
            "VESTIBULE_WORKER_PORT": str(self.port),
            "VESTIBULE_STATE_DIR": str(self.folder / "state"),
            "VESTIBULE_SLOTS": str(self._flavor.vllm.max_num_seqs),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            **self._flavor.environment,
        }


@pytest.fixture
async def admission() -> AsyncIterator[Admission]:
    async with Admission().running() as running:
        yield running


async def test_the_cpu_flavor_answers_through_the_agent(
    components: Components, admission: Admission, tmp_path: Path
) -> None:
    worker = Worker(tmp_path, components, admission)
    await asyncio.to_thread(worker.start)
    try:
        await admission.until_ready()
        key = {"Authorization": f"Bearer {admission.upstream_key}"}
        async with aiohttp.ClientSession(worker.url, headers=key) as http:
            first = await _ask(http, tools=[TOOL])  # as Open WebUI sends with every chat
            again = await _ask(http, tools=[TOOL])
            async with http.get("/info") as info:
                about = await info.json()
            async with http.get("/metrics") as metrics:
                figures = await metrics.text()
            async with http.get("/v1/models") as models:
                (card,) = (await models.json())["data"]
    finally:
        await asyncio.to_thread(worker.stop)

    assert ANSWER in first["choices"][0]["message"]["content"]
    assert again["usage"]["prompt_tokens"] == first["usage"]["prompt_tokens"]
    assert _total(figures, "vllm:prefix_cache_hits_total") > 0
    assert about["vllm_version"].startswith("0.")
    assert card["max_model_len"] == CONTEXT_TOKENS  # `auto`: all of it fits
    assert admission.heartbeats[-1].body["slots"] == flavors.load("cpu").vllm.max_num_seqs
    assert len(admission.drains) == 1


def test_every_flag_a_flavor_may_name_is_known_to_this_vllm(components: Components) -> None:
    vllm = components.vllm / "bin" / "vllm"
    shown = subprocess.run(
        [vllm, "serve", "--help=all"], capture_output=True, text=True, check=True, timeout=300
    )
    known = set(re.findall(r"--[a-z0-9-]+", shown.stdout))
    fields = flavors.Vllm.model_fields
    flags = {f"--{name.replace('_', '-')}" for name in fields}
    assert flags <= known
    # `false` in a flavor is said as the flag's negation.
    switches = {name for name, field in fields.items() if "bool" in str(field.annotation)}
    assert {f"--no-{name.replace('_', '-')}" for name in switches} <= known


async def _ask(http: aiohttp.ClientSession, **more: object) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello " * 64}], **more}
    async with http.post("/v1/chat/completions", json=body) as answer:
        said: dict[str, Any] = await answer.json()
        assert answer.status == 200, said
        return said


def _total(metrics: str, name: str) -> float:
    lines = [line for line in metrics.splitlines() if line.startswith(name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
