"""What happens to the fleet, live: each event once, from where a follower was, for any number."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession
from redis.asyncio import Redis

from admission import background, bulletin
from admission.bulletin import Begin, Bulletin, Told
from admission.clock import ManualClock
from admission.errors import StoreUnavailable
from admission.instance import State
from admission.store.fence import Fence
from admission.store.fleet_records import Recorded
from admission.store.fleet_store import FleetStore
from tests.api.calls import Caller
from tests.api.conftest import Served
from tests.conftest import DEADLINE_S, Service
from tests.fleet.words import happened, machine, taken


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulletin, "LOOK_S", 0.02)


@pytest.fixture
def fleet(redis: Redis, clock: ManualClock) -> FleetStore:
    return FleetStore(redis, clock, history_kept=5, history_max=50)


@pytest.fixture
async def fence(redis: Redis, clock: ManualClock) -> Fence:
    return await taken(redis, clock, "a")


class Stream:
    """Reads the blocks of an answer of Server-Sent Events."""

    def __init__(self, response: ClientResponse) -> None:
        self._response = response

    async def block(self) -> dict[str, str]:
        """The next one, by the names of its lines; empty at the end."""
        found = {}
        async with asyncio.timeout(DEADLINE_S):
            while line := (await self._response.content.readline()).decode().rstrip("\n"):
                name, _, value = line.partition(":")
                found[name] = value.removeprefix(" ")
        return found

    async def event(self) -> dict[str, Any]:
        block = await self.block()
        assert block["event"] == "fleet"
        event: dict[str, Any] = json.loads(block["data"])
        return event


@asynccontextmanager
async def streamed(admin: Caller, after: str = "") -> AsyncIterator[Stream]:
    headers = {"Last-Event-ID": after} if after else {}
    async with admin.open("GET", "/admin/events", headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        yield Stream(response)


async def note(fleet: FleetStore, fence: Fence, *names: str) -> None:
    for name in names:
        await fleet.note(fence, [happened("m", name)])


@asynccontextmanager
async def reading(fleet: FleetStore) -> AsyncIterator[Bulletin]:
    board = Bulletin(fleet)
    async with background.running("bulletin", board.keep_reading):
        yield board


Followed = AsyncGenerator[Begin | Told | None, None]


async def heard(followed: Followed, count: int) -> list[str]:
    """The names of so many events."""
    found: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        async for told in followed:
            if isinstance(told, Told):
                found.append(json.loads(told.text)["name"])
            if len(found) == count:
                break
    return found


# --- over HTTP -----------------------------------------------------------------------------------


async def test_a_change_is_told_live_with_the_instance_after_it(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    await note(fleet, fence, "before")
    async with streamed(admin) as stream, streamed(admin) as other:
        first = await stream.block()
        assert first == {"retry": "2000", "id": (await fleet.ends())[1]}
        await other.block()
        one = machine(state=State.READY)
        await fleet.write(fence, one, 0, [happened(one, "become_ready", target="ready")])
        await note(fleet, fence, "orphan")
        for each in (stream, other):
            told = await each.event()
            assert (told["name"], told["target"]) == ("become_ready", "ready")
            assert (told["instance"]["instance_id"], told["instance"]["state"]) == ("i-1", "ready")
            assert (await each.event())["instance"] is None


async def test_who_comes_back_hears_what_it_missed_and_no_more(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    await note(fleet, fence, "n1", "n2", "n3")
    entries = [each.entry for each in await fleet.history()]
    async with streamed(admin, after=entries[0]) as stream:
        assert await stream.block() == {"retry": "2000", "id": entries[0]}
        blocks = [await stream.block() for _ in range(2)]
        assert [block["id"] for block in blocks] == entries[1:]
        await note(fleet, fence, "n4")
        assert (await stream.event())["name"] == "n4"


async def test_who_was_away_for_too_long_is_told_of_the_gap(
    admin: Caller, fleet: FleetStore, fence: Fence
) -> None:
    await note(fleet, fence, "n0")
    seen = (await fleet.ends())[0]
    await fleet.drain("9999999999999-0")
    await note(fleet, fence, *(f"n{n}" for n in range(1, 9)))
    async with streamed(admin, after=seen) as stream:
        first = await stream.block()
        assert (first["event"], first["id"]) == ("gap", seen)
        assert [(await stream.event())["name"] for _ in range(5)] == [f"n{n}" for n in range(4, 9)]
    later = "9999999999999-0"  # of a Redis that is no more
    async with streamed(admin, after=later) as stream:
        first = await stream.block()
        assert (first["event"], first["id"]) == ("gap", (await fleet.ends())[1])


async def test_a_quiet_stream_pings(
    admin: Caller, monkeypatch: pytest.MonkeyPatch, fence: Fence
) -> None:
    monkeypatch.setattr(bulletin, "PING_S", 0.05)
    async with streamed(admin, after="nonsense") as stream:
        assert (await stream.block())["id"] == "0-0"
        assert [await stream.block() for _ in range(2)] == [{"": "ping"}] * 2


async def test_a_stream_ends_whole_when_the_service_stops(served: Served, fence: Fence) -> None:
    async with ClientSession() as http:
        async with served() as service:
            admin = Caller(http, service.url, service.admin_key)
            stream = streamed(admin)
            opened = await stream.__aenter__()
            await opened.block()
        assert await opened.block() == {}
        await stream.__aexit__(None, None, None)


async def test_without_redis_there_is_no_stream(
    admin: Caller, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> tuple[str, str]:
        raise StoreUnavailable

    monkeypatch.setattr(service.store.fleet, "ends", away)
    reply = await admin("GET", "/admin/events")
    assert (reply.status, reply.json["code"]) == (503, "store_unavailable")


# --- one reader for all --------------------------------------------------------------------------


async def test_a_hundred_followers_cost_redis_what_one_does(
    fleet: FleetStore, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, real = 0, fleet.history

    async def counted(after: str = "0-0", count: int = 100) -> list[Recorded]:
        nonlocal reads
        reads += 1
        return await real(after, count)

    monkeypatch.setattr(fleet, "history", counted)
    monkeypatch.setattr(bulletin, "LOOK_S", 0.05)
    async with reading(fleet) as board:
        followed = [board.follow(None) for _ in range(100)]
        for each in followed:
            await anext(each)
        hearing = [asyncio.create_task(heard(each, 3)) for each in followed]
        await asyncio.sleep(0)
        await note(fleet, fence, "n1", "n2", "n3")
        assert await asyncio.gather(*hearing) == [["n1", "n2", "n3"]] * 100
        assert reads < 10
        for each in followed:
            await each.aclose()
        await asyncio.sleep(0.1)
        reads = 0
        await asyncio.sleep(0.2)
        assert reads <= 1, "nobody follows"


async def test_who_reads_slowly_misses_nothing_and_holds_up_nobody(
    fleet: FleetStore, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulletin, "KEPT", 3)
    monkeypatch.setattr(bulletin, "PAGE", 2)
    names = [f"n{n}" for n in range(20)]
    async with reading(fleet) as board, aclosing(board.follow(None)) as slow:
        await anext(slow)
        async with aclosing(board.follow(None)) as quick:
            await anext(quick)
            await note(fleet, fence, names[0])
            assert await heard(slow, 1) == await heard(quick, 1) == names[:1]
            await note(fleet, fence, *names[1:])
            assert await heard(quick, 19) == names[1:]
            assert len(board._newest) == 3  # noqa: SLF001 - what a slow one costs
            assert await heard(slow, 19) == names[1:]


async def test_redis_that_is_away_for_a_while_ends_no_stream(
    fleet: FleetStore,
    fence: Fence,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await note(fleet, fence, "n1", "n2")
    seen = (await fleet.ends())[0]
    async with reading(fleet) as board, aclosing(board.follow(seen)) as followed:
        assert await anext(followed) == Begin(seen, gap=False)
        fails, real = 4, fleet.history

        async def ailing(after: str = "0-0", count: int = 100) -> list[Recorded]:
            nonlocal fails
            fails -= 1
            if fails >= 0:
                raise StoreUnavailable
            return await real(after, count)

        monkeypatch.setattr(fleet, "history", ailing)
        assert await heard(followed, 1) == ["n2"]
        fails = 2
        await note(fleet, fence, "n3")
        assert await heard(followed, 1) == ["n3"]
    assert "background_failed" not in caplog.text


async def test_followers_that_come_and_go_hear_only_what_comes_after_them(
    fleet: FleetStore, fence: Fence
) -> None:
    async with reading(fleet) as board:
        for number in range(3):
            await note(fleet, fence, f"between {number}")
            async with aclosing(board.follow(None)) as followed:
                await anext(followed)
                await note(fleet, fence, f"n{number}")
                assert await heard(followed, 1) == [f"n{number}"]
                assert len(board._newest) == 1  # noqa: SLF001 - what came while nobody followed
