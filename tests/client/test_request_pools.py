"""Turns in a request pool: a slot for one block, whoever else's the same user has."""

import asyncio

import pytest
from aiohttp import ClientSession

from admission.client import Client, TurnOver
from admission.errors import Conflict
from tests.api.calls import Caller
from tests.client.watch import person
from tests.client.wire import Wire
from tests.conftest import Service
from tests.gateway.conftest import make_ready
from tests.gateway.upstream import chat, listening

POOL = "default"


@pytest.fixture(autouse=True)
async def request_pool(service: Service) -> None:
    """The default pool gives a turn to each request; it has one slot."""
    await service.store.configure(POOL, {"kind": "request", "capacity": 1})


async def busy(call: Caller) -> tuple[int, int]:
    metrics = (await call("GET", "/queue/metrics")).json
    return metrics["active"], metrics["waiting"]


async def test_each_block_has_a_slot_of_its_own(vestibule: Client, call: Caller) -> None:
    async with person(vestibule, "ada") as one:
        await one.has_it()
        async with person(vestibule, "ada") as other:
            await other.waits()
            assert await busy(call) == (1, 1)
            await one.ends()
            await other.has_it()
            assert await busy(call) == (1, 0)
            await other.ends()
    assert await busy(call) == (0, 0)


async def test_a_join_whose_answer_is_lost_takes_one_slot(
    behind: Client, call: Caller, wire: Wire
) -> None:
    wire.once("join", wire.loses_the_answer)
    async with person(behind, "ada") as ada:
        await ada.has_it()
        assert wire.seen.count("join") == 2
        assert await busy(call) == (1, 0)
        await ada.ends()
    assert await busy(call) == (0, 0)


async def test_a_lease_is_renewed_while_its_block_runs(
    behind: Client, wire: Wire, call: Caller, service: Service
) -> None:
    async with person(behind, "ada") as ada:
        turn = await ada.has_it()
        for _ in range(5):
            service.clock.advance_ms(20_000)  # a lease is 30 s
            await wire.beats()
            await service.tick()
        assert await busy(call) == (1, 0)
        assert not turn.is_over
        await ada.ends()
    assert await busy(call) == (0, 0)


async def test_a_lease_that_lapsed_cuts_its_block(
    behind: Client, service: Service, wire: Wire
) -> None:
    async with person(behind, "ada", cut=True) as ada:
        await ada.has_it()
        wire.acts["heartbeat"] = wire.acts["events"] = wire.is_gone
        await asyncio.sleep(0.2)
        service.clock.advance_ms(31_000)
        await service.tick()
        wire.acts.clear()
        with pytest.raises(TurnOver):
            await ada.task


async def test_who_is_cancelled_while_waiting_takes_only_that_place_along(
    vestibule: Client, call: Caller
) -> None:
    async with person(vestibule, "bob") as bob:
        await bob.has_it()
        async with person(vestibule, "ada") as one, person(vestibule, "ada") as other:
            await asyncio.gather(one.waits(), other.waits())
            one.task.cancel()
            await asyncio.wait({one.task})
            assert await busy(call) == (1, 1)


async def test_who_is_cancelled_while_the_join_is_on_its_way_has_left(
    behind: Client, wire: Wire, call: Caller
) -> None:
    """The leave does not overtake it, and names the ticket that nobody had seen yet."""
    async with person(behind, "bob") as bob, person(behind, "ada") as ada:
        await asyncio.gather(bob.is_in(), ada.is_in())
        wire.once("join", wire.is_slow)
        async with person(behind, "ada") as late:
            await asyncio.sleep(0.05)
            late.task.cancel()
            await asyncio.wait({late.task})
        assert wire.answered.count("join") == 3
        assert await busy(call) == (1, 1)


async def test_the_gateway_adopts_the_lease(vestibule: Client, service: Service) -> None:
    async with (
        ClientSession(service.url) as http,
        listening("w1") as upstream,
    ):
        await make_ready(service, "w1", upstream.url)
        async with vestibule.turn("ada") as turn:
            url = "/v1/chat/completions"
            async with http.post(url, data=chat(), headers=turn.headers()) as answer:
                assert answer.status == 200
            assert (await turn.ended()).reason == "left"


async def test_a_join_of_ones_own_must_name_its_request(vestibule: Client) -> None:
    with pytest.raises(Conflict) as refused:
        await vestibule.join("ada")
    assert (refused.value.code, refused.value.field) == ("request_pool", "request_id")
