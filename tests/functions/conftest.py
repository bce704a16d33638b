"""What these tests share: functions over the real Valkey, asked as API Gateway asks them."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from redis import Redis as BlockingRedis

from admission.clock import ManualClock
from admission.functions import Functions
from tests.conftest import service_settings
from tests.contract.events import Asked, http_api

SERVICE, ADMIN = "service-key", "admin-key"


def event(
    method: str,
    path: str,
    body: Any = None,
    *,
    key: str | None = SERVICE,
    headers: dict[str, str] | None = None,
    shape: Callable[[Asked], dict[str, Any]] = http_api,
    data: bytes = b"",
) -> dict[str, Any]:
    """What a function is invoked with; ``body`` as JSON, ``data`` as it is."""
    sent = {"Host": "gate.example", **(headers or {})}
    if key:
        sent["Authorization"] = f"Bearer {key}"
    if body is not None:
        sent.setdefault("Content-Type", "application/json")
        data = json.dumps(body).encode()
    path, _, query = path.partition("?")
    asked = Asked(
        method, path, query, [*sent.items()], data, "gate.example", "192.0.2.7", "request"
    )
    return shape(asked)


@dataclass(frozen=True)
class Reply:
    """A function's answer."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Asking:
    """Invokes one function."""

    def __init__(self, functions: Functions) -> None:
        self.functions = functions

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> Reply:
        return self.read(self.functions(event(method, path, body, **more)))

    @staticmethod
    def read(answer: Mapping[str, Any]) -> Reply:
        headers = {name.lower(): value for name, value in answer["headers"].items()}
        return Reply(answer["statusCode"], headers, answer["body"])


@pytest.fixture
def empty(valkey: str) -> str:
    """The URL of the test server, emptied."""
    with BlockingRedis.from_url(valkey) as client:
        client.flushall()
    return valkey


@pytest.fixture
def functions_of(empty: str, clock: ManualClock) -> Iterator[Callable[..., Asking]]:
    """Makes functions with changed settings: each is an environment of its own."""
    made: list[Functions] = []

    def make(**changes: str) -> Asking:
        settings = service_settings(**{"REDIS_URL": empty, **changes})
        made.append(Functions(settings, clock, lambda: clock.now_ms() / 1000))
        return Asking(made[-1])

    yield make
    for functions in made:
        functions.close()


@pytest.fixture
def ask(functions_of: Callable[..., Asking]) -> Asking:
    """One function with capacity 1."""
    return functions_of()
