"""Knows a host over SSH that gets the real vLLM by a real scheduler: to 100 % and back.

Does not know Open WebUI; how a host fares otherwise is tested in `tests/providers`.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.stack import MODEL
from tests.ports import free_port
from tests.providers import life, sshd
from tests.providers.test_bare_metal_life import FLEET

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.e2e.build import Components

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

# Beside the flavor `cpu`; the host is this machine, on which others want to work, too.
WORDS = ["--kv-cache-memory-bytes", "1G", "--served-model-name", MODEL, "--enforce-eager"]
ENVIRONMENT = '{ OMP_NUM_THREADS = "1", HF_HUB_OFFLINE = "1" }'
READY_S, GONE_S = 600, 120  # 30 to 55 s on two idle cores


async def test_a_host_over_ssh_serves_a_real_model_and_is_left_clean(
    components: Components, redis: Redis, tmp_path: Path
) -> None:
    async with sshd.running(tmp_path / "sshd") as server:
        text = FLEET.format(
            server=server,
            folder=tmp_path,
            port=free_port(),
            python=sys.executable,
            vllm=components.vllm / "bin" / "vllm",
            model=components.model,
            arguments=json.dumps(WORDS),
            environment=ENVIRONMENT,
        )
        async with life.serving(redis, tmp_path, text) as fleet:
            over = await life.live(fleet, {"provider": "metal"}, ready_s=READY_S, gone_s=GONE_S)
    reached = {line["progress"] for line in over["history"]}
    assert {5, 20, 30, 40, 50, 60, 75, 90, 95, 100} <= reached
    assert not (tmp_path / "rack-1").exists()
