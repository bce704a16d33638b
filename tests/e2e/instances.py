"""Knows two instances of Vestibule over one Redis, their scheduler and what balances them.

To people and to Open WebUI they are one Vestibule.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.line import LONG_SESSION_S
from tests.e2e.server import Server
from tests.e2e.stack import EXECUTABLE, Vestibule
from tests.infra.conftest import ROOT

SERVICE_KEY, ADMIN_KEY = "a-service-key", "an-admin-key"


def settings(redis: str, upstream: str) -> dict[str, str]:
    """The same for all: who calls, the one slot, the model."""
    return {
        "REDIS_URL": redis,
        "VESTIBULE_SERVICE_KEY": SERVICE_KEY,
        "VESTIBULE_ADMIN_KEY": ADMIN_KEY,
        "VESTIBULE_UPSTREAMS": upstream,
        "VESTIBULE_STATE_DIR": "no-such-folder",
        "MAX_ACTIVE_USERS": "1",
        "SESSION_DURATION": str(LONG_SESSION_S),
    }


class Scheduler(Server):
    """`vestibule scheduler`, which looks after the model; it has no address."""

    name = "scheduler"

    def __init__(self, folder: Path, given: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._given = given

    def command(self) -> Sequence[str | Path]:
        return (EXECUTABLE, "scheduler")

    def environment(self) -> Mapping[str, str]:
        return self._given

    def _answers(self) -> bool:
        return True


class Instance(Server):
    """`vestibule admission`."""

    ready_path = "/readyz"
    ready_within_s = 30

    def __init__(self, folder: Path, name: str, given: Mapping[str, str]) -> None:
        self.name = name
        super().__init__(folder)
        self._given = given

    def command(self) -> Sequence[str | Path]:
        return (EXECUTABLE, "admission", "--needs-worker", "--port", str(self.port))

    def environment(self) -> Mapping[str, str]:
        return self._given


class Balanced(Vestibule):
    """What people see of the instances: one address."""

    name = "balancer"

    def __init__(self, folder: Path, port: int, given: Mapping[str, str], *urls: str) -> None:
        super().__init__(folder, port, "")
        self._given, self._urls = given, urls

    def command(self) -> Sequence[str | Path]:
        python = EXECUTABLE.with_name("python")
        return (python, "-m", "tests.scale.balancer", str(self.port), *self._urls)

    def environment(self) -> Mapping[str, str]:
        own = {"VESTIBULE_PORT": str(self.port), "PYTHONPATH": str(ROOT)}
        return {**self._given, **own}

    def service_key(self) -> str:
        return SERVICE_KEY
