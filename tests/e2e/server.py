"""Knows how one real server is started, when it is ready, and how it is stopped.

Does not know which servers there are (`stack.py`). Each runs in a process group of its own, writes
what it says to `<folder>/<name>.log`, and is a context manager: ready inside, gone after it. Inside
it can be killed and started again, on the same port and with the same data.
"""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import requests

from tests.ports import free_port

POLL_S = 0.2
HTTP_TIMEOUT_S = 30
STOP_TIMEOUT_S = 20
LOG_TAIL_LINES = 30


class ServerError(Exception):
    """A server did not start, died, or refused what the test set up; the text ends with its log."""


class Server(ABC):
    """One process group, its log, and the address that answers 200 once it is ready."""

    name = "server"
    ready_path = "/health"
    ready_within_s = 60.0

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._orphans: list[psutil.Process] = []

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """The command line."""

    def environment(self) -> Mapping[str, str]:
        """Variables beside PATH and HOME; nothing else is inherited."""
        return {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Start it and wait until it is ready; also after `kill`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env={**inherited, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def kill(self) -> None:
        """End its main process as `kill -9` does; what it had started is not told."""
        process, self._process = self._process, None
        assert process, f"{self.name} does not run"
        self._orphans += psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End it as an operator would, with SIGTERM; what is then left of it is killed."""
        process, self._process = self._process, None
        if process:
            self._end(process)
        for orphan in self._orphans:
            if orphan.is_running():
                orphan.kill()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _kill_group(process.pid)
            process.wait()

    def call(self, method: str, path: str, *, key: str = "", body: object = None) -> Any:
        """One HTTP call as JSON. Raises `ServerError` unless the answer is 2xx."""
        reply = requests.request(
            method,
            self.url + path,
            json=body,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=HTTP_TIMEOUT_S,
        )
        if not reply.ok:
            raise self.error(f"{method} {path} answered {reply.status_code}: {reply.text[:500]}")
        return reply.json() if reply.content else None

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines this server wrote, and where the rest is."""
        last = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([f"the end of {self.log}:", *last])

    def error(self, what: str) -> ServerError:
        """An error that says `what` happened, with the end of this server's log."""
        return ServerError(f"{self.name}: {what}\n{self.log_tail()}")

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.ready_within_s
        while time.monotonic() < deadline:
            if (status := process.poll()) is not None:
                raise self.error(f"ended with status {status} before it was ready")
            if self._answers():
                return
            time.sleep(POLL_S)
        raise self.error(f"not ready after {self.ready_within_s:.0f} s")

    def _answers(self) -> bool:
        try:
            return requests.get(self.url + self.ready_path, timeout=5).status_code == 200
        except requests.RequestException:
            return False


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
