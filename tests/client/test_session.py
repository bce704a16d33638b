"""The block of a turn: in use, told of its end, shared, and open to the gateway."""

import asyncio

import pytest
from aiohttp import ClientSession

from admission import client_turn
from admission.client import Client, TurnOver
from tests.api.calls import Caller, until
from tests.client.watch import person, status
from tests.client.wire import Wire
from tests.conftest import Service
from tests.gateway.conftest import make_ready
from tests.gateway.upstream import chat, listening


async def test_the_end_of_a_session_is_told_in_its_block(
    behind: Client, wire: Wire, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_turn, "BEAT_S", (60.0, 60.0))  # the stream tells it
    async with person(behind, "ada") as ada:
        turn = await ada.has_it()
        await until(lambda: wire.has_answered("heartbeat"))
        service.clock.advance_ms(1_200_000)
        await service.tick()
        async with asyncio.timeout(2):
            over = await turn.ended()
        assert (over.reason, turn.is_over) == ("session_timeout", True)
        assert ada.statuses == ["active", "disconnected"]
        assert not ada.task.done()  # its answer may finish
        await ada.ends()


async def test_a_block_that_is_cut_ends_when_its_answer_may_run_no_longer(
    behind: Client, wire: Wire, service: Service
) -> None:
    async with person(behind, "ada", cut=True) as ada:
        turn = await ada.has_it()
        await wire.beats()
        service.clock.advance_ms(1_190_000)
        await wire.beats()  # the answer is being made to the very end
        service.clock.advance_ms(10_000)
        await service.tick()
        await turn.ended()
        await wire.beats()
        assert not ada.task.done()
        service.clock.advance_ms(121_000)
        await service.tick()
        with pytest.raises(TurnOver, match="session_timeout"):
            await ada.task


async def test_a_block_of_who_is_removed_is_cut_at_once(
    vestibule: Client, service: Service
) -> None:
    async with person(vestibule, "ada", cut=True) as ada:
        await ada.has_it()
        await service.store.cancel("default", "ada")
        with pytest.raises(TurnOver, match="removed"):
            await ada.task


async def test_a_block_keeps_its_session_in_use(
    behind: Client, wire: Wire, call: Caller, service: Service
) -> None:
    async with person(behind, "ada") as ada:
        turn = await ada.has_it()
        await call("POST", "/queue/join/bob")
        for _ in range(10):
            service.clock.advance_ms(50_000)
            await wire.beats()
            await service.tick()
        assert not turn.is_over
        assert await status(call, "ada") == "active"
        await ada.ends()


async def test_a_session_may_stay_for_the_next_block(vestibule: Client, call: Caller) -> None:
    async with vestibule.turn("ada", keeps_session=True) as first:
        pass
    assert await status(call, "ada") == "active"
    async with vestibule.turn("ada") as second:
        assert second.ticket.ticket_id == first.ticket.ticket_id
    assert await status(call, "ada") == "disconnected"


async def test_who_keeps_the_session_still_leaves_the_line(vestibule: Client, call: Caller) -> None:
    await call("POST", "/queue/join/bob")
    async with person(vestibule, "ada", keeps_session=True) as ada:
        await ada.waits()
        ada.task.cancel()
        await asyncio.wait({ada.task})
        assert await status(call, "ada") == "disconnected"


async def test_blocks_of_one_user_share_the_session_and_the_last_one_ends_it(
    vestibule: Client, call: Caller
) -> None:
    async with person(vestibule, "ada") as one, person(vestibule, "ada") as other:
        assert (await one.has_it()).ticket == (await other.has_it()).ticket
        await one.ends()
        assert await status(call, "ada") == "active"
        await other.ends()
    assert await status(call, "ada") == "disconnected"


async def test_of_two_blocks_that_wait_one_may_go(vestibule: Client, call: Caller) -> None:
    await call("POST", "/queue/join/bob")
    async with person(vestibule, "ada") as one, person(vestibule, "ada") as other:
        await one.waits()
        await other.waits()
        one.task.cancel()
        await asyncio.wait({one.task})
        assert await status(call, "ada") == "waiting"
        await call("POST", "/queue/leave/bob")
        await other.has_it()


async def test_the_headers_open_the_gateway(vestibule: Client, service: Service) -> None:
    async with (
        ClientSession(service.url) as http,
        listening("w1") as upstream,
        vestibule.turn("ada") as turn,
    ):
        await make_ready(service, "w1", upstream.url)
        url = "/v1/chat/completions"
        async with http.post(url, data=chat(), headers=turn.headers()) as answer:
            assert answer.status == 200
        assert service.service_key not in str(turn.headers())


async def test_a_model_chooses_the_pool(vestibule: Client, service: Service, call: Caller) -> None:
    async with listening("w1") as upstream:
        await make_ready(service, "w1", upstream.url)
        async with vestibule.turn("ada", pool="elsewhere", model="tiny") as turn:
            assert turn.ticket.pool == "default"
        assert await status(call, "ada") == "disconnected"


async def test_a_user_token_is_enough(service: Service, call: Caller) -> None:
    token = (await call("POST", "/queue/join/ada")).json["token"]
    async with Client(service.url, token) as own, own.turn("ada") as turn:
        assert turn.ticket.status == "active"
    assert await status(call, "ada") == "disconnected"


async def test_a_token_past_half_its_life_is_renewed(
    vestibule: Client, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_turn, "TOKEN_OLD_S", 0.0)
    monkeypatch.setattr("admission.auth.gatekeeper.TOKEN_LIFE_S", 1_000_000)
    monkeypatch.setattr("admission.auth.tokens.TOKEN_LIFE_S", 400_000)
    async with vestibule.turn("ada") as turn:
        first = turn.token

        async def renewed() -> bool:
            await asyncio.sleep(1.0)  # tokens of the same second are the same
            return turn.token != first

        await until(renewed)
        mine = await call.with_key(turn.token)("GET", "/queue/status/ada")
        assert mine.status == 200
