"""The tests' own time limit ends what hangs, wherever it does."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
timeout = 0.5
filterwarnings = error::ResourceWarning
"""
CONFTEST = """
from tests.event_loop import Loop
from tests.time_limit import pytest_timeout_set_timer

def pytest_asyncio_loop_factories():
    return {"uvloop": Loop}
"""
HANGING = """
import asyncio, time, pytest

@pytest.fixture
async def stuck():
    yield
    await asyncio.Event().wait()

async def test_nothing_runs():
    await asyncio.Event().wait()

async def test_another_task_runs():
    async def run():
        while True:
            time.sleep(0.01)
            await asyncio.sleep(0)
    running = asyncio.create_task(run())
    await asyncio.Event().wait()

async def test_a_fixture_does_not_end(stuck):
    pass

def test_no_loop():
    time.sleep(60)

kept = []

async def test_a_server_stays_open():
    kept.append(await asyncio.start_server(lambda *_: None, "127.0.0.1", 0))

async def test_the_next_one_runs():
    await asyncio.sleep(0)
"""


@pytest.mark.long
def test_what_hangs_fails_and_the_next_test_runs(tmp_path: Path) -> None:
    for name, text in (("pytest.ini", INI), ("conftest.py", CONFTEST), ("test_it.py", HANGING)):
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=40, check=False,
    )  # fmt: skip
    ended = {line.split(" - ")[0].strip() for line in done.stdout.splitlines()}
    cases = {
        "FAILED test_it.py::test_nothing_runs",
        "FAILED test_it.py::test_another_task_runs",
        "ERROR test_it.py::test_a_fixture_does_not_end",
        "FAILED test_it.py::test_no_loop",
        "ERROR test_it.py::test_a_server_stays_open",
        "PASSED test_it.py::test_the_next_one_runs",
    }
    assert cases <= ended, done.stdout + done.stderr
    assert "wait_for=<Future pending" in done.stdout  # it says who waits where
