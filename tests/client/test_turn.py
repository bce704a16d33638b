"""A turn as a block: joined, waited for, confirmed, kept, and left however the block ends."""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime

import pytest
from aiohttp import web

from admission.client import Client, Ticket, TurnOver
from tests.api.calls import Caller, until
from tests.client.watch import person, status
from tests.client.wire import Wire
from tests.conftest import DEADLINE_S, Service

FRONTEND = """
import asyncio, sys
from admission.client import Client

async def main():
    async with Client(sys.argv[1], sys.argv[2]) as vestibule:
        async with vestibule.turn("ada", on_update=lambda ticket: print(ticket, flush=True)):
            await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_slot_that_is_free_is_had_at_once_and_left(vestibule: Client, call: Caller) -> None:
    told: list[Ticket] = []
    async with vestibule.turn("ada", on_update=told.append) as turn:
        assert await status(call, "ada") == "active"
        assert (turn.user_id, turn.ticket.status, turn.is_over) == ("ada", "active", False)
        assert turn.deadline is not None
        assert turn.deadline.tzinfo is UTC
        assert turn.ticket.joined_at < turn.deadline
        assert isinstance(turn.ticket.joined_at, datetime)
        assert turn.token not in repr(turn.ticket)
    assert [str(ticket) for ticket in told] == ["active"]
    assert await status(call, "ada") == "disconnected"


async def test_who_waits_is_told_the_place_and_comes_in_turn(
    vestibule: Client, service: Service
) -> None:
    async with person(vestibule, "bob") as bob:
        await bob.has_it()
        async with person(vestibule, "cy") as cy:
            assert (await cy.waits()).position == 1
            async with person(vestibule, "ada") as ada:
                assert (await ada.waits()).position == 2
                await bob.ends()
                await cy.has_it()
                await service.tick()
                await ada.hears("waiting", position=1)
                assert ada.turn is None
                await cy.ends()
                await ada.has_it()
    assert [str(ticket).split(",")[0] for ticket in ada.told] == [
        "number 2 in line",
        "number 1 in line",
        "active",
    ]


async def test_a_slot_that_is_left_is_the_next_ones_at_once(
    behind: Client, wire: Wire, call: Caller
) -> None:
    """No answer that was named while the block ran holds it any longer."""
    async with person(behind, "ada") as ada:
        await ada.has_it()
        await until(lambda: wire.has_answered("heartbeat"))
        await call("POST", "/queue/join/bob", {"auto_confirm": True})
        await ada.ends()
        assert await status(call, "bob") == "active"
        assert (await call("GET", "/queue/metrics")).json["finishing"] == 0


async def test_a_heartbeat_on_its_way_arrives_before_the_leave(behind: Client, wire: Wire) -> None:
    """After it, it would name the answer again, whose lease holds the slot."""
    on_their_way: list[int] = []

    def count() -> int:
        return wire.seen.count("heartbeat") - wire.answered.count("heartbeat")

    async def leave(request: web.Request) -> web.StreamResponse:
        on_their_way.append(count())
        return await wire.forward(request)

    async def one_is() -> bool:
        return count() == 1

    wire.acts |= {"heartbeat": wire.is_slow, "leave": leave}
    async with person(behind, "ada") as ada:
        await ada.has_it()
        await until(one_is)
        await ada.ends()
    assert on_their_way == [0, 0]


async def test_it_is_left_when_the_block_fails(vestibule: Client, call: Caller) -> None:
    with pytest.raises(RuntimeError, match="of the block"):
        async with vestibule.turn("ada"):
            raise RuntimeError("of the block")
    assert await status(call, "ada") == "disconnected"


async def test_who_is_cancelled_while_waiting_has_left_within_a_second(
    vestibule: Client, call: Caller
) -> None:
    await call("POST", "/queue/join/bob")
    async with person(vestibule, "ada") as ada:
        await ada.waits()
        ada.task.cancel()
        async with asyncio.timeout(1):
            await asyncio.wait({ada.task})
        assert ada.task.cancelled()
        assert await status(call, "ada") == "disconnected"


async def test_who_is_cancelled_in_the_block_has_left(vestibule: Client, call: Caller) -> None:
    async with person(vestibule, "ada") as ada:
        await ada.has_it()
        ada.task.cancel()
        await asyncio.wait({ada.task})
        assert ada.task.cancelled()
        assert await status(call, "ada") == "disconnected"


async def test_control_c_leaves(service: Service, call: Caller) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        FRONTEND,
        service.url,
        service.service_key,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        assert await process.stdout.readline() == b"active\n"
        process.send_signal(signal.SIGINT)
        _, said = await process.communicate()
    assert said.decode().splitlines()[-1] == "KeyboardInterrupt"
    assert await status(call, "ada") == "disconnected"


async def test_a_draft_is_confirmed_in_time(vestibule: Client, service: Service) -> None:
    async with person(vestibule, "ada", auto_confirm=False) as ada:
        await ada.has_it()
        assert ada.statuses == ["draft", "active"]
        async with person(vestibule, "bob", auto_confirm=False) as bob:
            await bob.waits()
            await ada.ends()
            await bob.has_it()
            service.clock.advance_ms(301_000)
            await service.tick()
            assert bob.statuses == ["waiting", "draft", "active"]
            await bob.ends()


async def test_a_wait_may_have_a_limit(vestibule: Client, call: Caller) -> None:
    await call("POST", "/queue/join/bob")
    with pytest.raises(TimeoutError):
        async with vestibule.turn("ada", wait_s=0.2):
            pytest.fail("there was no slot")
    assert await status(call, "ada") == "disconnected"


async def test_who_is_removed_while_waiting_is_told_why(
    vestibule: Client, service: Service
) -> None:
    await service.store.join("default", "bob", ticket="b")
    async with person(vestibule, "ada") as ada:
        await ada.waits()
        await service.store.cancel("default", "ada")
        with pytest.raises(TurnOver, match="removed") as over:
            await ada.task
        assert over.value.ticket.reason == "removed"
        assert ada.statuses == ["waiting", "disconnected"]


async def test_what_an_update_raises_ends_the_wait(vestibule: Client, call: Caller) -> None:
    async def gone(_: Ticket) -> None:
        raise ConnectionResetError("the browser is gone")

    await call("POST", "/queue/join/bob")
    with pytest.raises(ConnectionResetError):
        async with vestibule.turn("ada", on_update=gone):
            pytest.fail("there was no slot")
    assert await status(call, "ada") == "disconnected"


async def test_what_an_update_raises_ends_the_block(
    vestibule: Client, call: Caller, service: Service
) -> None:
    def update(ticket: Ticket) -> None:
        if ticket.reason:
            raise ConnectionResetError(ticket.reason)

    async with person(vestibule, "ada", also=update) as ada:
        await ada.has_it()
        await service.store.cancel("default", "ada")
        with pytest.raises(ConnectionResetError, match="removed"):
            await ada.task
