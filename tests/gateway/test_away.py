"""While Redis is away nothing passes; with VESTIBULE_WHEN_REDIS_AWAY=pass a little, for a while."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from admission.clock import ManualClock
from admission.gateway import away
from admission.store import connection
from tests.api.calls import Reply, caller_of, until
from tests.api.conftest import served_at
from tests.api.valkey import OwnValkey, own_valkey
from tests.conftest import Service
from tests.gateway.conftest import Chatter, make_ready
from tests.gateway.upstream import Upstream, chat, listening


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OwnValkey]:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT_S", 0.2)
    async with own_valkey() as valkey:
        yield valkey


@pytest.fixture
async def model() -> AsyncIterator[Upstream]:
    async with listening("w1") as upstream:
        yield upstream


@pytest.fixture
async def passing(server: OwnValkey, model: Upstream) -> AsyncIterator[Service]:
    """A service that lets two calls at once pass while Redis is away."""
    limits = {"VESTIBULE_WHEN_REDIS_AWAY": "pass", "VESTIBULE_AWAY_CONCURRENCY": "2"}
    async with served_at(server.url, ManualClock(), **limits) as service:
        await make_ready(service, "w1", model.url)
        yield service


def bob_of(service: Service) -> Chatter:
    return Chatter(caller_of(service), "bob")


def refused(reply: Reply) -> bool:
    assert "Retry-After" in reply.headers
    return (reply.status, reply.json["error"]["code"]) == (503, "store_unavailable")


async def test_by_default_nothing_passes_and_a_running_answer_goes_on(
    server: OwnValkey, model: Upstream, asked: Counter[str]
) -> None:
    async with served_at(server.url, ManualClock()) as service:
        await make_ready(service, "w1", model.url)
        ada = Chatter(caller_of(service), "ada")
        await ada.join()
        async with ada.streams() as response:
            await response.content.readany()
            await server.kill()
            service.clock.advance_ms(1001)
            assert refused(await ada.says(chat()))
            model.go.set()
            assert (await response.content.read()).endswith(b"[DONE]\n\n")
        await server.start()


async def test_a_session_is_trusted_for_its_second_also_then(
    server: OwnValkey, model: Upstream, asked: Counter[str]
) -> None:
    async with served_at(server.url, ManualClock()) as service:
        await make_ready(service, "w1", model.url)
        ada = Chatter(caller_of(service), "ada")
        await ada.join()

        async def costs_no_call() -> bool:
            """The news of the join itself may come late, and makes memory doubt."""
            before = asked["use"]
            assert (await ada.says(chat())).status == 200
            return asked["use"] == before

        await until(costs_no_call)
        await server.kill()
        assert (await ada.says(chat())).status == 200
        await server.start()


async def test_so_many_pass_at_once_without_a_turn(
    server: OwnValkey, model: Upstream, passing: Service
) -> None:
    bob = bob_of(passing)
    assert (await bob.says(chat())).status == 429
    await server.kill()

    async def read() -> bytes:
        async with bob.streams() as response:
            return await response.content.read()

    two = [asyncio.create_task(read()) for _ in range(2)]

    async def both_run() -> bool:
        return len(model.seen) == 2

    await until(both_run)
    assert refused(await bob.says(chat()))
    model.go.set()
    assert all(await asyncio.gather(*two))
    assert (await bob.says(chat())).status == 200
    assert (
        await caller_of(passing, "nobody's").with_key("x")("POST", "/v1/completions")
    ).status == 401
    await server.start()

    async def gated_again() -> bool:
        return (await bob.says(chat())).status == 429

    await until(gated_again)


async def test_for_ten_minutes_at_most(
    server: OwnValkey, model: Upstream, passing: Service
) -> None:
    bob = bob_of(passing)
    await server.kill()
    passing.clock.advance_ms(away.PASS_MS)
    assert (await bob.says(chat())).status == 200
    passing.clock.advance_ms(1000)
    assert refused(await bob.says(chat()))
    await server.start()


async def test_a_request_pools_calls_pass_too(
    server: OwnValkey, model: Upstream, passing: Service
) -> None:
    await passing.store.configure("default", {"kind": "request", "capacity": 1})
    await make_ready(passing, "w1", model.url)
    await server.kill()
    assert (await bob_of(passing).says(chat())).status == 200
    await server.start()
