"""The image's entrypoint outside Docker, with the demo model in vLLM's place."""

import os
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import psutil

from tests.worker.processes import (
    BAD_VLLM,
    GOOD_VLLM,
    ROOT,
    Program,
    free_port,
    program,
    stand_in_for_vllm,
)
from tests.worker.stand_ins import Admission

ENTRYPOINT = ROOT / "worker_image" / "entrypoint"


def _container(
    folder: Path, admission: Admission, script: str
) -> AbstractAsyncContextManager[Program]:
    stand_in_for_vllm(folder, script)
    environment = {
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VESTIBULE_ADMISSION_URL": admission.url,
        "VESTIBULE_WORKER_TOKEN": "shared",
        "VESTIBULE_WORKER_PORT": str(free_port()),
        "VESTIBULE_VLLM_URL": f"http://127.0.0.1:{free_port()}",
    }
    return program([str(ENTRYPOINT), "some/model", "--dtype", "auto"], environment, folder)


async def test_it_runs_vllm_and_the_agent_and_stops_both(
    tmp_path: Path, admission: Admission
) -> None:
    async with _container(tmp_path, admission, GOOD_VLLM) as container:
        await admission.until_ready()
        children = psutil.Process(container.pid).children(recursive=True)
        assert len(children) == 2
        status, written = await container.stop()
    assert status == 0
    assert len(admission.drains) == 1
    assert "Traceback" not in written
    assert not [child for child in children if child.is_running()]


async def test_a_vllm_that_dies_ends_the_container(tmp_path: Path, admission: Admission) -> None:
    async with _container(tmp_path, admission, BAD_VLLM) as container:
        status, written = await container.end()
    assert status == 3
    assert "entrypoint: vLLM or the agent ended (status 3)" in written


async def test_a_refused_token_ends_the_container(tmp_path: Path, admission: Admission) -> None:
    admission.shared_token = "another"
    async with _container(tmp_path, admission, GOOD_VLLM) as container:
        status, written = await container.end()
    assert status == 1
    assert "admission refuses this worker" in written
