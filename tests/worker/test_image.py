"""The image: its entrypoint and health check outside Docker, and the house's rules for its file."""

import asyncio
import os
import re
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import psutil

from tests.ports import free_port
from tests.worker.processes import (
    BAD_VLLM,
    GOOD_VLLM,
    ROOT,
    Program,
    agent,
    program,
    stand_in_for_vllm,
)
from tests.worker.stand_ins import Admission, Upstream
from worker_image import flavors

FOLDER = ROOT / "worker_image"
ENTRYPOINT, HEALTHCHECK = FOLDER / "entrypoint", FOLDER / "healthcheck.py"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
MODEL = "some/model; touch $(pwd)"


def _container(
    folder: Path, admission: Admission, *words: str, script: str = GOOD_VLLM, **environment: str
) -> AbstractAsyncContextManager[Program]:
    """The entrypoint with those words; its `vllm` notes its own in the file `words`."""
    real = stand_in_for_vllm(folder, script).rename(folder / "real-vllm")
    noted = f'#!/bin/sh\nprintf "%s\\n" "$@" > "{folder}/words"\nexec "{real}" "$@"\n'
    stand_in_for_vllm(folder, noted)
    settings = {
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VESTIBULE_ADMISSION_URL": admission.url,
        "VESTIBULE_WORKER_TOKEN": "shared",
        "VESTIBULE_WORKER_PORT": str(free_port()),
        "VESTIBULE_VLLM_URL": f"http://127.0.0.1:{free_port()}",
        **environment,
    }
    return program([str(ENTRYPOINT), *words], settings, folder)


def _healthy(port: int) -> bool:
    run = subprocess.run(
        [sys.executable, HEALTHCHECK],
        env={**os.environ, "VESTIBULE_WORKER_PORT": str(port)},
        check=False,
        capture_output=True,
    )
    assert run.stderr == b""
    return run.returncode == 0


async def test_it_runs_the_agent_and_vllm_and_stops_both(
    tmp_path: Path, admission: Admission
) -> None:
    words = flavors.load("l40s").vllm.words()
    async with _container(tmp_path, admission, MODEL, *words) as container:
        await admission.until_ready()
        running = psutil.Process(container.pid)
        children = running.children(recursive=True)
        assert children
        assert MODEL not in running.cmdline()  # a presigned address is a secret
        status, written = await container.stop()
    assert status == 0
    assert len(admission.drains) == 1
    assert "Traceback" not in written
    assert not [child for child in children if child.is_running()]
    got = (tmp_path / "words").read_text().splitlines()
    assert got[: len(words) + 2] == ["serve", MODEL, *words]
    assert got.count("--shutdown-timeout") == 1  # the flavor's, not the agent's own
    assert got[-4:-1] == ["--host", "127.0.0.1", "--port"]


async def test_the_model_may_come_from_the_environment(
    tmp_path: Path, admission: Admission
) -> None:
    async with _container(tmp_path, admission, VESTIBULE_MODEL="some/model") as container:
        await admission.until_ready()
        status, _ = await container.stop()
    assert status == 0
    assert (tmp_path / "words").read_text().splitlines()[:2] == ["serve", "some/model"]


async def test_a_vllm_that_dies_is_reported_and_the_container_goes_on(
    tmp_path: Path, admission: Admission
) -> None:
    async with _container(tmp_path, admission, "m", script=BAD_VLLM) as container:
        await admission.until(
            lambda: any("status 3" in (call.body["reason"] or "") for call in admission.heartbeats)
        )
        status, _ = await container.stop()
    assert status == 0
    assert not admission.heartbeats[-1].body["ready"]


async def test_a_refused_token_ends_the_container(tmp_path: Path, admission: Admission) -> None:
    admission.shared_token = "another"
    async with _container(tmp_path, admission, "m") as container:
        status, written = await container.end()
    assert status == 1
    assert "admission refuses this worker" in written


async def test_the_health_check_asks_the_agent(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    async with agent(tmp_path, admission_url=admission.url, vllm_url=upstream.url) as running:
        assert await asyncio.to_thread(_healthy, running.port)
        port = running.port
    assert not await asyncio.to_thread(_healthy, port)


async def test_the_health_check_asks_over_tls(
    tmp_path: Path, admission: Admission, upstream: Upstream
) -> None:
    port = free_port()
    settings = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VESTIBULE_ADMISSION_URL": admission.url,
        "VESTIBULE_VLLM_URL": upstream.url,
        "VESTIBULE_WORKER_TOKEN": "shared",
        "VESTIBULE_WORKER_TLS": "on",
        "VESTIBULE_WORKER_URL": f"https://127.0.0.1:{port}",
        "VESTIBULE_WORKER_PORT": str(port),
    }
    async with program([str(ENTRYPOINT)], settings, tmp_path) as container:
        await admission.until(lambda: bool(admission.registrations))
        assert await asyncio.to_thread(_healthy, port)
        status, _ = await container.stop()
    assert status == 0


def _said(instruction: str) -> list[str]:
    """What stands behind each such instruction, continued lines joined."""
    text = re.sub(r"\\\n", "", DOCKERFILE)
    return [" ".join(said.split()) for said in re.findall(rf"^{instruction} (.*)$", text, re.M)]


def test_the_image_carries_the_agent_alone_and_nothing_in_it_runs_as_root() -> None:
    copied = {word for line in _said("COPY") for word in line.split()[1:-1]}
    assert copied == {"agent.py", "entrypoint", "healthcheck.py", "requirements.txt"}
    assert all((FOLDER / name).is_file() for name in copied)
    assert _said("USER")[-1] == "10001:0"
    assert "healthcheck.py" in _said("HEALTHCHECK")[0]
    assert _said("ENTRYPOINT") == ['["/opt/vestibule/entrypoint"]']


def test_the_image_takes_packages_by_hash_only() -> None:
    (installing,) = _said("RUN")
    assert "--require-hashes" in installing
    lock = (FOLDER / "requirements.txt").read_text()
    assert re.search(r"^aiohttp==\S+ \\$", lock, re.M)
    assert re.search(r"^nvidia-ml-py==\S+ \\$", lock, re.M)
    named = re.findall(r"^[a-z0-9-]+==.*(?:\n {4}.*)*", lock, re.M)
    assert len(named) == lock.count("==")
    assert all("--hash=sha256:" in package for package in named)
    assert not re.search(r"https?://|file:", lock)


def test_the_image_starts_from_an_exact_version() -> None:
    (base,) = _said("ARG")
    assert base == f"IMAGE={flavors.load('nvidia').image}"
    assert _said("FROM") == ["${IMAGE}"]
