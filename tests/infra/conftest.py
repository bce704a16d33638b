"""Runs the real ``vestibule`` command, and leaves nothing of it behind."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from infra.state import read_keys
from tests.ports import free_port

DEADLINE_S = 30.0
ROOT = Path(__file__).parent.parent.parent


class Up:
    """One ``vestibule up`` on a free port and a state folder of its own."""

    def __init__(self, state: Path, *words: str, **environment: str) -> None:
        self.state = state
        self.port = environment.pop("VESTIBULE_PORT", "") or str(free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = environment
        self._errors = (state.parent / f"{state.name}.err").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "infra.cli", "up", "--port", self.port, *words],
            cwd=ROOT,
            env={**clean_environment(), "VESTIBULE_STATE_DIR": str(state), **environment},
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.printed = ""

    def wait_ready(self) -> "Up":
        """Read what it prints until the welcome is whole, and wait until a worker is ready, which
        on a slow machine takes longer than the welcome waits for it."""
        self.wait_printed(r"Ctrl-C stops everything\.\n")
        (self.url,) = re.findall(r"is ready on (\S+)", self.printed)[-1:]
        if "no worker is ready" in self.printed:
            eventually(self._has_models, "its worker is not ready")
        return self

    def _has_models(self) -> bool:
        """Whether each process knows of a model; a call is a connection of its own."""
        return all(self.get("/v1/models").json()["data"] for _ in range(9))

    def wait_printed(self, pattern: str) -> "Up":
        """Read what it prints until ``pattern`` is found past what was read before."""
        output, seen, ends = self.process.stdout, "", time.monotonic() + DEADLINE_S
        assert output is not None
        while not re.search(pattern, seen):
            assert time.monotonic() < ends, f"not printed: {pattern}\n{seen}\n{self.errors()}"
            assert self.process.poll() is None, f"it ended:\n{seen}\n{self.errors()}"
            if select.select([output], [], [], 0.2)[0]:
                seen += os.read(output.fileno(), 65536).decode()
        self.printed += seen
        return self

    def errors(self) -> str:
        """What it wrote to standard error so far."""
        self._errors.seek(0)
        return self._errors.read()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        for process in (*self._family(),):
            process.kill()
        self.process.wait(DEADLINE_S)
        if self.process.stdout:
            self.process.stdout.close()
        self._errors.close()

    def _family(self) -> list[psutil.Process]:
        if self.process.poll() is not None:
            return []
        return [*self.children(), psutil.Process(self.process.pid)]

    def post(
        self, path: str, body: object | None = None, key: str = "service_key"
    ) -> requests.Response:
        return requests.post(self.url + path, json=body, headers=self._headers(key), timeout=10)

    def get(self, path: str, key: str = "service_key") -> requests.Response:
        return requests.get(self.url + path, headers=self._headers(key), timeout=10)

    def _headers(self, key: str) -> dict[str, str]:
        kept = read_keys(self.state / "keys.json")
        given = self._environment.get(f"VESTIBULE_{key.upper()}")
        return {"Authorization": f"Bearer {given or kept[key]}"}


def clean_environment() -> dict[str, str]:
    """Ours without any setting of the developer's own shell."""
    ours = re.compile(r"VESTIBULE_|REDIS_|MAX_ACTIVE_USERS|SESSION_DURATION|DRAFT_DURATION")
    return {name: value for name, value in os.environ.items() if not ours.match(name)}


def eventually(check: Callable[[], bool], what: str) -> None:
    """Wait until ``check`` holds; fails with ``what`` after a while."""
    ends = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < ends, what
        select.select([], [], [], 0.05)


@contextmanager
def _fresh() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="vst-"))
    yield folder / "state"
    shutil.rmtree(folder)


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder that is not there yet, with a name short enough for a socket."""
    with _fresh() as folder:
        yield folder


@pytest.fixture(scope="session")
def running() -> Iterator[Up]:
    """One ``vestibule up`` for all the tests that do no more than use it."""
    with _fresh() as folder, closing(Up(folder)) as one:
        yield one.wait_ready()


@pytest.fixture
def up(state: Path) -> Iterator[Callable[..., Up]]:
    """Starts ``vestibule up`` with the words and settings given; ends what is left of it."""
    started: list[Up] = []

    def start(*words: str, **environment: str) -> Up:
        started.append(Up(state, *words, **environment))
        return started[-1]

    yield start
    for one in started:
        one.close()
