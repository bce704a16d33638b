"""Knows a GPU machine as its operator runs it, `vestibule worker`, and how it and its vLLM die.

Does not know the gateway; what admission is told by the agent is not ours to see.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psutil
import requests

from tests.e2e.server import HTTP_TIMEOUT_S
from tests.e2e.stack import BEHIND, EXECUTABLE, MODEL, SERVE, VllmServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.e2e.build import Components
    from tests.e2e.stack import Vestibule

SLOTS = 4


class Worker(VllmServer):
    """The agent, which runs vLLM and registers; ready once the model answers through it.

    Its `/metrics` are vLLM's too. Each has a state folder of its own, as on a machine of its own.
    """

    ready_path = "/readyz"
    ready_within_s = 420  # two start at the same time: 60 to 100 s on two idle cores

    def __init__(
        self, folder: Path, components: Components, vestibule: Vestibule, name: str
    ) -> None:
        super().__init__(folder, components, name)
        self._vestibule = vestibule
        self._state = folder / name

    def command(self) -> Sequence[str | Path]:
        model = ("--model", self._components.model, "--served-model-name", MODEL)
        place = ("--admission-url", self._vestibule.url, "--port", str(self.port))
        vllm = ("--vllm", self._components.vllm / "bin" / "vllm", "--slots", str(SLOTS))
        return (*BEHIND, EXECUTABLE, "worker", *model, *place, *vllm, "--", *SERVE)

    def environment(self) -> Mapping[str, str]:
        return {
            **super().environment(),
            "VESTIBULE_STATE_DIR": str(self._state),
            "VESTIBULE_WORKER_ID": self.name,
            "VESTIBULE_WORKER_TOKEN": self._vestibule.key("worker_token"),
        }

    def is_ready(self) -> bool:
        """Whether the model answers and admission knows the worker."""
        try:
            reply = requests.get(self.url + self.ready_path, timeout=HTTP_TIMEOUT_S)
            return reply.status_code == 200 and reply.json()["registered"] is True
        except requests.RequestException:
            return False

    def in_flight(self) -> int:
        """How many requests came from gateways and are not over; the agent's own do not count."""
        return self._count("vestibule_worker_requests_running")

    def restarts(self) -> int:
        """How often the agent has started vLLM again since it started itself."""
        count: int = self.call("GET", "/info")["vllm_restarts"]
        return count

    def kill(self) -> None:
        """End everything of it at once, as a machine that loses its power."""
        super().kill()
        for left in self._orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()

    def kill_vllm(self) -> None:
        """End `vllm serve` alone, as the kernel does when memory is short."""
        assert self._process
        (agent,) = psutil.Process(self._process.pid).children()
        (serve,) = agent.children()
        serve.kill()

    def stop(self) -> None:
        """As an operator would; the agent and vLLM have sessions of their own, and are not left."""
        if self._process:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._orphans += psutil.Process(self._process.pid).children(recursive=True)
        super().stop()

    def log_tail(self, lines: int = 60) -> str:
        """Also what the agent wrote, vLLM's lines among its own."""
        agents = self._state / f"worker-{self.name}.log"
        last = agents.read_text(errors="replace").splitlines()[-lines:] if agents.exists() else []
        return "\n".join([super().log_tail(lines), f"the end of {agents}:", *last])

    def _answers(self) -> bool:
        return self.is_ready()
