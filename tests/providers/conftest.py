"""A real sshd, and an admission that records what a worker says to it."""

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.providers import metal, sshd
from tests.providers.sshd import Sshd
from tests.worker.stand_ins import Admission


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Sshd]:
    async with sshd.running(tmp_path / "sshd") as running:
        yield running
    while found := metal.marked(tmp_path):  # what is killed may just have started another
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=1)


@pytest.fixture
async def admission() -> AsyncIterator[Admission]:
    async with Admission().running() as running:
        running.shared_token = metal.TOKEN
        yield running
