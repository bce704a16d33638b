"""Starts the real programs as child processes and ends them by their pid."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import ClientError, ClientSession, TCPConnector

from tests.ports import free_port
from tests.worker.stand_ins import DEADLINE_S

ROOT = Path(__file__).parent.parent.parent
AGENT = ROOT / "worker_image" / "agent.py"


class Program:
    """A running child; what it wrote is read once it has ended."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> tuple[int, str]:
        """Exit status and standard error. Raises `TimeoutError`."""
        _, written = await asyncio.wait_for(self._process.communicate(), DEADLINE_S)
        return self._process.returncode or 0, written.decode()

    async def stop(self) -> tuple[int, str]:
        self.signal(signal.SIGTERM)
        return await self.end()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()


@asynccontextmanager
async def program(
    command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> AsyncIterator[Program]:
    """A child with nothing of our settings in its environment but what is given."""
    clean = {name: value for name, value in os.environ.items() if "VESTIBULE" not in name}
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    running = Program(process)
    try:
        yield running
    finally:
        await running.kill()


def stand_in_for_vllm(folder: Path, script: str) -> Path:
    """An executable `vllm`, as `vestibule worker` and the image's entrypoint call it."""
    vllm = folder / "vllm"
    vllm.write_text(script)
    vllm.chmod(0o755)
    return vllm


# Takes `vllm serve MODEL [...] --host HOST --port PORT` and answers as the demo model.
# Shell and Python at once: a shebang cannot name an interpreter whose path has a space.
GOOD_VLLM = f"""#!/bin/sh
''':'
exec "{sys.executable}" "$0" "$@"
'''
import os, runpy, sys
assert sys.argv[1] == "serve" and os.environ["VLLM_API_KEY"]
assert not {{"VESTIBULE_WORKER_TOKEN", "VESTIBULE_VLLM_KEY"}} & set(os.environ)
print("arguments", sys.argv[2:], flush=True)
sys.argv[1:] = sys.argv[-4:]
sys.path.insert(0, {str(ROOT)!r})
runpy.run_module("infra.demo_model", run_name="__main__")
"""
BAD_VLLM = "#!/bin/sh\necho 'ValueError: no such architecture'\nexit 3\n"


class Agent:
    """A running agent and its client side."""

    def __init__(self, child: Program, url: str, http: ClientSession) -> None:
        self.child, self.url, self.http = child, url, http

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def get(self, path: str) -> tuple[int, str]:
        async with self.http.get(f"{self.url}{path}") as answer:
            return answer.status, await answer.text()

    async def until(self, path: str, status: int) -> str:
        """Poll until a path answers with a status. Raises `TimeoutError`."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    seen, text = await self.get(path)
                except ClientError:
                    seen, text = 0, ""
                if seen == status:
                    return text
                await asyncio.sleep(0.02)


@asynccontextmanager
async def agent(
    folder: Path,
    *,
    admission_url: str,
    vllm_url: str = "",
    port: int | None = None,
    words: Sequence[str] = (),
    host: str = "127.0.0.1",
    **environment: str,
) -> AsyncIterator[Agent]:
    """The agent as it ships: one file, run by itself. Keywords are more of its environment."""
    port = port or free_port()
    settings = {
        "VESTIBULE_ADMISSION_URL": admission_url,
        "VESTIBULE_VLLM_URL": vllm_url,
        "VESTIBULE_WORKER_ID": "w1",
        "VESTIBULE_WORKER_TOKEN": "shared",
        "VESTIBULE_WORKER_STATE": str(folder / "state.json"),
        **environment,
    }
    command = [sys.executable, str(AGENT), "--host", host, "--port", str(port), *words]
    scheme = "https" if environment.get("VESTIBULE_WORKER_TLS") == "on" else "http"
    # The certificate is the agent's own; the tests that are about it pin it.
    connector = TCPConnector(ssl=False)
    async with (
        program(command, settings, folder) as child,
        ClientSession(connector=connector) as http,
    ):
        running = Agent(child, f"{scheme}://{host}:{port}", http)
        await running.until("/healthz", 200)
        yield running
