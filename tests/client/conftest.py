"""What the tests of the client share: one against the real service, and a wire to break."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, TCPConnector

from admission import client_calls, client_events, client_turn
from admission.client import Client
from admission.clock import ManualClock
from tests.api.calls import Caller, caller_of
from tests.api.conftest import Served, served_at
from tests.client.wire import Wire, wired
from tests.conftest import Service


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client repeats comes after moments, not seconds."""
    monkeypatch.setattr(client_calls, "AGAIN_S", 0.02)
    monkeypatch.setattr(client_calls, "AGAIN_MAX_S", 0.1)
    monkeypatch.setattr(client_events, "REOPEN_S", (0.02, 0.05))
    monkeypatch.setattr(client_events, "pause_s", lambda _: 0.05)
    monkeypatch.setattr(client_turn, "BEAT_S", (0.1, 0.1))
    monkeypatch.setattr(client_turn, "BEAT_AGAIN_S", (0.02, 0.05))


@pytest.fixture
def served(valkey: str, redis: object, clock: ManualClock, places_told_soon: None) -> Served:
    """Starts a service with changed settings, over the empty test server."""
    return lambda **changes: served_at(valkey, clock, **changes)


@pytest.fixture
def call(service: Service) -> Caller:
    """Calls with the service key."""
    return caller_of(service)


@pytest.fixture
async def vestibule(service: Service) -> AsyncIterator[Client]:
    """The client of a trusted frontend."""
    async with Client(service.url, service.service_key) as client:
        yield client


@pytest.fixture
async def wire(service: Service) -> AsyncIterator[Wire]:
    async with (
        ClientSession(connector=TCPConnector(limit=0)) as http,
        wired(http, service.url) as made,
    ):
        yield made


@pytest.fixture
async def behind(wire: Wire, service: Service) -> AsyncIterator[Client]:
    """The same client at the other end of the wire."""
    async with Client(wire.url, service.service_key) as client:
        yield client
