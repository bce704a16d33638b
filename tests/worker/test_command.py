"""`vestibule worker`, with the demo model in vLLM's place: the same command line, up in a second.

The real vLLM is tried in `make e2e`.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from infra.cli import main
from infra.errors import CommandError
from infra.worker import Plan, Running, agent_command, agent_environment, demo_command
from tests.ports import free_port
from tests.worker.processes import BAD_VLLM, GOOD_VLLM, ROOT, stand_in_for_vllm
from tests.worker.stand_ins import DEADLINE_S, Admission
from worker_image.agent import read_settings

TOKEN = {"VESTIBULE_WORKER_TOKEN": "shared"}


class Command:
    """A running `vestibule worker`; both its outputs in one stream of lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    async def until(self, words: str) -> str:
        """Read on until a line has these words. Raises `TimeoutError`, `AssertionError`."""
        assert self._process.stdout
        async with asyncio.timeout(DEADLINE_S):
            while line := (await self._process.stdout.readline()).decode().rstrip():
                self.lines.append(line)
                if words in line:
                    return line
        raise AssertionError(f"ended without {words!r}: {self.lines}")

    async def end(self) -> int:
        """Read all the rest; the exit status."""
        async with asyncio.timeout(DEADLINE_S):
            written, _ = await self._process.communicate()
        self.lines += written.decode().splitlines()
        return self._process.returncode or 0

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)


@asynccontextmanager
async def command(
    folder: Path, *arguments: str, script: str = GOOD_VLLM, **environment: str
) -> AsyncIterator[Command]:
    vllm = stand_in_for_vllm(folder, script)
    clean = {name: value for name, value in os.environ.items() if "VESTIBULE" not in name}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "infra.cli", "worker", "--model", "some/model"),
        *("--vllm", str(vllm), *arguments),
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.communicate(), DEADLINE_S)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
async def test_it_tells_how_far_it_is_and_leaves_nothing_behind(
    tmp_path: Path, admission: Admission, number: signal.Signals
) -> None:
    port = free_port()
    async with command(
        tmp_path,
        *("--admission-url", admission.url, "--port", str(port), "--slots", "4"),
        *("--served-model-name", "tiny", "--", "--dtype", "bfloat16"),
        VESTIBULE_WORKER_TOKEN="shared",
    ) as running:
        await running.until("ready: pool default, 4 slots")
        children = psutil.Process(running.pid).children(recursive=True)
        assert len(children) == 2
        running.signal(number)
        assert await running.end() == 0
    text = "\n".join(running.lines)
    for words in ("vLLM starts with some/model", "admission: registered", "model loaded: vestib"):
        assert words in text
    assert "Traceback" not in text
    assert not [child for child in children if child.is_running()]
    assert admission.heartbeats[-1].body["slots"] == 4
    [log] = (tmp_path / ".vestibule").glob("*.log")
    given = "'some/model', '--dtype', 'bfloat16', '--served-model-name', 'tiny'"
    assert given in log.read_text()


async def test_a_models_address_is_told_without_its_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = "https://s3.example.org/m.tar?X-Amz-Signature=abcdef"
    given = {**TOKEN, "VESTIBULE_MODEL": model, "VESTIBULE_STATE_DIR": str(tmp_path)}
    plan = Plan(read_settings([], given), ["true"], os.environ)
    with pytest.raises(CommandError, match="the agent ended"):
        await Running(plan).run()
    told = capsys.readouterr().out
    assert "vLLM starts with https://s3.example.org/m.tar?[removed]" in told
    assert "abcdef" not in told


async def test_a_vllm_that_dies_ends_it_with_its_last_words(
    tmp_path: Path, admission: Admission
) -> None:
    where = ("--admission-url", admission.url, "--port", str(free_port()))
    async with command(
        tmp_path, *where, script=BAD_VLLM, VESTIBULE_WORKER_TOKEN="shared"
    ) as running:
        assert await running.end() == 1
    assert "  | ValueError: no such architecture" in running.lines
    assert "vestibule: vLLM ended with status 3: ValueError: no such arch" in running.lines[-1]
    assert (tmp_path / running.lines[-1].partition("(log: ")[2].removesuffix(")")).exists()


async def test_a_vllm_that_is_killed_after_it_served_is_started_again(
    tmp_path: Path, admission: Admission
) -> None:
    where = ("--admission-url", admission.url, "--port", str(free_port()))
    async with command(tmp_path, *where, VESTIBULE_WORKER_TOKEN="shared") as running:
        await running.until("ready:")
        children = psutil.Process(running.pid).children(recursive=True)
        [vllm] = [child for child in children if "some/model" in child.cmdline()]
        vllm.kill()
        await running.until("not ready: vLLM was ended by signal 9; next start in")
        await running.until("ready:")
        running.signal(signal.SIGTERM)
        assert await running.end() == 0


async def test_a_refused_token_ends_it_before_the_model_is_loaded(
    tmp_path: Path, admission: Admission
) -> None:
    token = tmp_path / "token"
    token.write_text("wrong\n")
    where = ("--admission-url", admission.url, "--port", str(free_port()))
    async with command(tmp_path, *where, "--worker-token-file", str(token)) as running:
        assert await running.end() == 1
    assert "admission refuses this worker: nobody knows this key (401)" in running.lines[-1]


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--vllm", "no-such-vllm"], TOKEN, "there is no executable 'no-such-vllm'"),
        (["--port", "BUSY"], TOKEN, "cannot listen on 127.0.0.1:BUSY: Address already in use"),
        (["--model", "./nowhere"], TOKEN, "./nowhere: there is no such folder"),
        (["--model", ""], TOKEN, "which model? --model, or VESTIBULE_MODEL"),
        (["--slots", "0"], TOKEN, "VESTIBULE_SLOTS='0' must be"),
        ([], {}, "VESTIBULE_WORKER_TOKEN is missing"),
        ([], {**TOKEN, "VESTIBULE_SLOT": "3"}, "VESTIBULE_SLOT: unknown setting"),
        ([], {"VESTIBULE_STATE_DIR": "keys"}, "keys.json is damaged"),
        (["--worker-token-file", "none"], {}, "--worker-token-file none cannot be read"),
    ],
)
async def test_what_is_wrong_beforehand_is_one_line(
    tmp_path: Path,
    admission: Admission,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    words: str,
) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "keys.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if "VESTIBULE" in name]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    busy = admission.url.rpartition(":")[2]
    given = [word.replace("BUSY", busy) for word in arguments]
    assert main(["worker", "--model", "m", "--vllm", sys.executable, *given]) in {1, 2}
    out, error = capsys.readouterr()
    assert (out, len(error.splitlines())) == ("", 1)
    assert words.replace("BUSY", busy) in error


async def test_the_token_of_the_state_folder_is_found(tmp_path: Path, admission: Admission) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "keys.json").write_text('{"worker_token": "shared", "admin_key": "a"}')
    where = ("--admission-url", admission.url, "--port", str(free_port()))
    async with command(tmp_path, *where, VESTIBULE_STATE_DIR=str(folder)) as running:
        await running.until("ready:")
        running.signal(signal.SIGTERM)
        assert await running.end() == 0


async def test_the_demo_worker_of_up_is_these_two_commands(
    tmp_path: Path, admission: Admission
) -> None:
    model_port, port = free_port(), free_port()
    settings = agent_environment(
        admission_url=admission.url,
        worker_token="shared",
        worker_id="demo",
        state_file=tmp_path / "worker.json",
        vllm_url=f"http://127.0.0.1:{model_port}",
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    demo = await asyncio.create_subprocess_exec(*demo_command(port=model_port), env=environment)
    agent = await asyncio.create_subprocess_exec(*agent_command(port=port), env=environment)
    await admission.until_ready()
    await admission.until(lambda: admission.heartbeats[-1].body["models"] == ["vestibule-demo"])
    for child in (agent, demo):
        child.terminate()
        assert await asyncio.wait_for(child.wait(), DEADLINE_S) == 0
