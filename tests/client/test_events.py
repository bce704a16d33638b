"""Updates while somebody waits: over cut streams, restarts, and where no stream passes."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime

import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from admission import client_events, client_turn
from admission.client import Client, Ticket
from admission.client_events import pause_s
from admission.domain import Status
from tests.api.calls import Caller, caller_of, until
from tests.api.conftest import Served
from tests.client.watch import person
from tests.client.wire import Act, Wire, says, wired
from tests.conftest import DEADLINE_S, Service


async def streams(wire: Wire, count: int) -> None:
    async def open_() -> bool:
        return wire.streams == count

    await until(open_)


async def test_a_stream_that_is_cut_goes_on(
    behind: Client, wire: Wire, call: Caller, service: Service
) -> None:
    await call("POST", "/queue/join/bob")
    await call("POST", "/queue/join/cy")
    async with person(behind, "ada") as ada:
        await ada.hears("waiting", position=2)
        await streams(wire, 1)
        wire.cut()
        await call("POST", "/queue/leave/cy")
        await service.tick()
        await ada.hears("waiting", position=1)
        await streams(wire, 1)
        wire.cut()
        await call("POST", "/queue/leave/bob")
        await ada.has_it()
    assert wire.seen.count("join") == 1
    assert [ticket.position for ticket in ada.told] == [2, 1, None]


async def test_the_end_is_told_last(vestibule: Client, call: Caller) -> None:
    await call("POST", "/queue/join/ada")
    async with aclosing(vestibule.events("ada")) as events:
        seen = [(await anext(events)).status]
        await call("POST", "/queue/leave/ada")
        seen += [ticket.status async for ticket in events]
    assert seen == ["draft", "disconnected"]


async def test_a_service_that_restarts_is_not_joined_twice(
    served: Served, service: Service, call: Caller
) -> None:
    """The old process ends as it should, the wire leads nowhere, then to the new one."""
    await call("POST", "/queue/join/bob")
    async with AsyncExitStack() as first, ClientSession() as http:
        old = await first.enter_async_context(served())
        async with (
            wired(http, old.url) as wire,
            Client(wire.url, service.service_key) as client,
            person(client, "ada") as ada,
        ):
            before = await ada.waits()
            await streams(wire, 1)
            await first.aclose()
            await asyncio.sleep(0.3)
            async with served() as new:
                wire.target = new.url
                await call("POST", "/queue/leave/bob")
                turn = await ada.has_it()
                assert turn.ticket.ticket_id == before.ticket_id
                assert wire.seen.count("join") == 1
                await ada.ends()
        assert (await call("GET", "/queue/metrics")).json["admitted_total"] == 1


async def test_who_is_forgotten_joins_again(
    vestibule: Client,
    call: Caller,
    service: Service,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a failover that lost the newest writes."""
    monkeypatch.setattr(client_events, "SILENCE_S", 0.2)
    await call("POST", "/queue/join/bob")
    async with person(vestibule, "ada") as ada:
        first = await ada.waits()
        await redis.flushall()
        turn = await ada.has_it()
        assert turn.ticket.ticket_id != first.ticket_id


@pytest.mark.parametrize(
    "act",
    [says(404), says(501), says(200), says(502), "holds_back", "is_gone"],
    ids=["404", "501", "no stream", "502", "held back", "cut off"],
)
async def test_where_no_stream_passes_there_are_polls(
    act: Act | str,
    behind: Client,
    wire: Wire,
    call: Caller,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_events, "SNAPSHOT_S", 0.2)
    wire.acts["events"] = getattr(wire, act) if isinstance(act, str) else act
    await call("POST", "/queue/join/bob")
    await call("POST", "/queue/join/cy")
    async with person(behind, "ada") as ada:
        await ada.hears("waiting", position=2)
        await call("POST", "/queue/leave/cy")
        await ada.hears("waiting", position=1)
        service.clock.advance_ms(50_000)
        await until(lambda: wire.has_answered("heartbeat"))
        await call("POST", "/queue/leave/bob")
        turn = await ada.has_it()
        assert wire.seen.count("events") <= 2  # one each for the wait and the block
        await service.store.cancel("default", "ada")
        async with asyncio.timeout(DEADLINE_S):
            assert (await turn.ended()).reason == "removed"


async def test_a_poll_is_presence(
    behind: Client, wire: Wire, call: Caller, service: Service
) -> None:
    wire.acts["events"] = says(404)
    await service.capacity(0)
    async with person(behind, "ada") as ada:
        await ada.waits()
        for _ in range(4):
            service.clock.advance_ms(40_000)
            polled = len(wire.seen)
            async with asyncio.timeout(DEADLINE_S):
                while len(wire.seen) < polled + 2:  # noqa: ASYNC110 - of the wire's loop
                    await asyncio.sleep(0.01)
        await service.tick()
        assert (await call("GET", "/queue/status/ada")).json["queue_length"] == 1


async def test_a_stream_that_went_silent_is_opened_again(
    behind: Client, wire: Wire, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_events, "SILENCE_S", 0.1)
    await call("POST", "/queue/join/bob")
    async with person(behind, "ada") as ada:
        await ada.waits()

        async def opened_again() -> bool:
            return wire.seen.count("events") >= 3

        await until(opened_again)


async def test_a_stream_is_read_for_so_long_then_a_poll_comes_between(
    behind: Client, wire: Wire, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_events, "STREAM_S", 0.1)
    await call("POST", "/queue/join/bob")
    async with person(behind, "ada") as ada:
        await ada.waits()
        await until(lambda: wire.has_answered("heartbeat"))
        assert ada.statuses == ["waiting"]  # nothing is told twice


async def test_hundreds_may_wait_at_once(
    behind: Client, wire: Wire, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp's own limit is a hundred connections; each of these has a stream."""
    monkeypatch.setattr(client_turn, "BEAT_S", (8.0, 10.0))  # so many would do nothing else
    await service.capacity(0)
    async with AsyncExitStack() as stack:
        people = [await stack.enter_async_context(person(behind, f"u{n}")) for n in range(120)]
        await streams(wire, 120)
        await service.capacity(120)
        await service.tick()
        for someone in people:
            await someone.has_it()


def waiting(**facts: object) -> Ticket:
    return Ticket(
        **{
            "ticket_id": "t",
            "user_id": "ada",
            "pool": "default",
            "status": Status.WAITING,
            "session_duration": 1200,
            "joined_at": datetime.now(UTC),
            **facts,
        }  # type: ignore[arg-type]
    )


async def test_polls_come_when_the_service_says(vestibule: Client, call: Caller) -> None:
    await call("POST", "/queue/join/bob")
    ada = await vestibule.join("ada")
    assert 1 <= (ada.again_in or 0) <= 3  # she is the next
    pauses = {pause_s(ada) / (ada.again_in or 1) for _ in range(50)}
    assert len(pauses) > 1
    assert 1 <= min(pauses) <= max(pauses) <= 1.2


def test_polls_come_in_time_where_the_service_says_nothing() -> None:
    assert all(5 <= pause_s(waiting(position=900)) <= 6 for _ in range(50))


def test_a_ticket_reads_as_a_place() -> None:
    assert str(waiting(position=3, estimated_wait=240)) == "number 3 in line, about 240 s"
    assert str(waiting(position=3)) == "number 3 in line"
    over = waiting(status=Status.DISCONNECTED, reason="removed")
    assert str(over) == "disconnected (removed)"


async def test_two_services_know_one_queue(served: Served, call: Caller, service: Service) -> None:
    await call("POST", "/queue/join/bob")
    async with (
        served() as other,
        Client(other.url, caller_of(other).key or "") as client,
        person(client, "ada") as ada,
    ):
        await ada.waits()
        await call("POST", "/queue/leave/bob")
        await ada.has_it()
