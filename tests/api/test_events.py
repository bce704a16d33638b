"""A ticket's changes as Server-Sent Events (DESIGN section 5)."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from admission import news
from admission.api import streams
from admission.store.names import pool_key
from tests.api.calls import Caller, caller_of
from tests.api.conftest import Served
from tests.api.stream import Events
from tests.api.test_tickets import VIEW
from tests.conftest import DEADLINE_S, Service

Follow = Callable[[str], AbstractAsyncContextManager[Events]]


@pytest.fixture
def follow(call: Caller) -> Follow:
    """Opens the event stream of a user."""
    return lambda user: following(call, user)


@asynccontextmanager
async def following(call: Caller, user: str, query: str = "") -> AsyncIterator[Events]:
    async with call.open("GET", f"/queue/events/{user}{query}") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        yield Events(response)


async def presence_ms(redis: Redis) -> list[float]:
    """Until when each waiting ticket counts as present."""
    key = pool_key("default", "presence")
    found: Any = await redis.zrange(key, 0, -1, withscores=True)
    return [score for _, score in found]


async def test_the_snapshot_comes_first_and_is_the_whole_view(call: Caller, follow: Follow) -> None:
    await call("POST", "/queue/join/ada")
    async with follow("ada") as stream:
        ticket = await stream.next()
    assert ticket is not None
    assert set(ticket) == VIEW | {"because"}
    assert ticket.pop("because") is None
    assert ticket == (await call("GET", "/queue/status/ada")).json


async def test_each_change_comes_once_with_increasing_ids_and_the_end_last(
    call: Caller, follow: Follow, service: Service
) -> None:
    await call("POST", "/queue/join/ada")
    await call("POST", "/queue/join/bob")
    seen = []
    async with follow("bob") as stream:
        for step in (
            None,
            call("POST", "/queue/leave/ada"),
            call("POST", "/queue/confirm/bob"),
            call("POST", "/queue/leave/bob"),
        ):
            if step is not None:
                await step
                await service.tick()
            ticket = await stream.next()
            assert ticket is not None
            seen.append((ticket["status"], ticket["position"], ticket["reason"]))
        assert await stream.next() is None
    assert seen == [
        ("waiting", 1, None),
        ("draft", None, None),
        ("active", None, None),
        ("disconnected", None, "left"),
    ]
    assert stream.ids == sorted(set(stream.ids))


async def test_who_waits_hears_the_new_place_after_a_tick(
    call: Caller, follow: Follow, service: Service
) -> None:
    await service.capacity(0)
    for user in ("ada", "bob"):
        await call("POST", f"/queue/join/{user}")
    async with follow("bob") as stream:
        first = await stream.next()
        await call("POST", "/queue/leave/ada")
        await service.tick()
        second = await stream.next()
    assert first is not None
    assert second is not None
    assert (first["position"], second["position"]) == (2, 1)


async def test_all_who_wait_are_told_by_a_few_calls(
    call: Caller, follow: Follow, service: Service, redis: Redis
) -> None:
    await service.capacity(0)
    users = [f"u{number}" for number in range(30)]
    for user in users:
        await call("POST", f"/queue/join/{user}")
    async with AsyncExitStack() as streams:
        followed = [await streams.enter_async_context(follow(user)) for user in users]
        for stream in followed:
            await stream.next()
        await redis.config_resetstat()
        await call("POST", "/queue/leave/u0")
        told = [await stream.next() for stream in followed[1:]]
        calls = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert [ticket and ticket["position"] for ticket in told] == list(range(1, 30))
    assert calls < 10


async def test_who_is_passed_is_told_so(served: Served) -> None:
    async with served(VESTIBULE_PRIORITIES="vip=60") as service:
        call = caller_of(service)
        await service.capacity(0)
        await call("POST", "/queue/join/ada")
        async with following(call, "ada") as stream:
            seen = [await stream.next()]
            await call("POST", "/queue/join/bob", {"priority": "vip"})
            seen.append(await stream.next())
            await call("POST", "/queue/leave/bob")
            seen.append(await stream.next())
    told = [(ticket["position"], ticket["because"]) for ticket in seen if ticket]
    assert told == [(1, None), (2, "passed"), (1, None)]


async def test_other_slots_are_told_as_the_cause(
    call: Caller, follow: Follow, service: Service
) -> None:
    for user in ("ada", "bob", "cy"):
        await call("POST", f"/queue/join/{user}")
    await service.tick()
    async with follow("cy") as stream:
        await stream.next()
        await call("POST", "/queue/leave/bob")
        await stream.next()  # told in a pass over a pool of one slot
        await service.capacity(0)
        await service.tick()
        ticket = await stream.next()
    assert ticket is not None
    assert (ticket["estimated_wait"], ticket["because"]) == (None, "capacity")


@pytest.mark.parametrize(
    ("given", "first"), [("41", 42), ("", 1), ("-3", 1), ("x", 1), ("9" * 40, 1)]
)
async def test_a_client_that_comes_back_goes_on(call: Caller, given: str, first: int) -> None:
    await call("POST", "/queue/join/ada")
    path, headers = "/queue/events/ada", {"Last-Event-ID": given}
    async with call.open("GET", path, headers=headers) as response:
        stream = Events(response)
        ticket = await stream.next()
        assert ticket is not None
        await call("POST", "/queue/leave/ada")
        await stream.next()
    assert stream.ids == [first, first + 1]
    assert stream.retry_ms[0] == 2_000
    assert stream.retry_ms[-1] > 60_000  # the turn is over: nothing to come back for soon


async def deaf_client(service: Service, path: str) -> socket.socket:
    """One who asks for a stream and has little room for what comes."""
    deaf, loop = socket.socket(), asyncio.get_running_loop()
    deaf.setblocking(False)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    address = urlsplit(service.url)
    await loop.sock_connect(deaf, (address.hostname, address.port))
    key = f"Authorization: Bearer {service.service_key}"
    await loop.sock_sendall(deaf, f"GET {path} HTTP/1.1\r\nHost: x\r\n{key}\r\n\r\n".encode())
    return deaf


async def rest_of(deaf: socket.socket) -> bytes:
    """What came for it after all, until it is let go."""
    came = b""
    async with asyncio.timeout(DEADLINE_S):
        with suppress(ConnectionResetError):
            while more := await asyncio.get_running_loop().sock_recv(deaf, 65_536):
                came += more
    deaf.close()
    return came


async def test_who_does_not_read_is_let_go_and_delays_nobody(
    call: Caller, follow: Follow, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WRITE_S", 0.5)
    monkeypatch.setattr(streams, "SEND_BUFFER_BYTES", 1)  # the kernel gives its least
    monkeypatch.setattr(news, "PLACES_S", 0.0)
    await service.capacity(0)
    ahead = [f"u{number}" for number in range(60)]
    for user in (*ahead, "ada"):
        await call("POST", f"/queue/join/{user}")
    deaf = await deaf_client(service, "/queue/events/ada")
    async with follow("ada") as stream:
        await stream.next()
        for place, user in enumerate(reversed(ahead)):
            await call("POST", f"/queue/leave/{user}")
            ticket = await stream.next()
            assert ticket is not None
            assert ticket["position"] == 60 - place
    came = await rest_of(deaf)
    assert 1 <= came.count(b"event: ticket") < 60


async def test_a_deadline_is_told_with_its_reason(
    call: Caller, follow: Follow, service: Service
) -> None:
    await call("POST", "/queue/join/ada")
    async with follow("ada") as stream:
        await stream.next()
        service.clock.advance_ms(300_000)
        await service.tick()
        last = await stream.next()
        assert await stream.next() is None
    assert last is not None
    assert (last["status"], last["reason"]) == ("disconnected", "draft_timeout")


async def test_a_turn_that_is_over_is_told_once(call: Caller, follow: Follow) -> None:
    await call("POST", "/queue/join/ada")
    await call("POST", "/queue/leave/ada")
    async with follow("ada") as stream:
        last = await stream.next()
        assert await stream.next() is None
    assert last is not None
    assert last["status"] == "disconnected"


@pytest.mark.usefixtures("pings_often")
async def test_being_attached_is_presence(
    call: Caller, follow: Follow, service: Service, redis: Redis
) -> None:
    await service.capacity(0)
    await call("POST", "/queue/join/ada")
    assert await presence_ms(redis) == []
    async with follow("ada") as stream:
        await stream.next()
        for _ in range(3):
            service.clock.advance_ms(50_000)
            async with asyncio.timeout(DEADLINE_S):
                while await presence_ms(redis) != [service.clock.now_ms() + 60_000]:
                    await stream.ping()
    service.clock.advance_ms(61_000)
    await service.tick()
    assert (await call("GET", "/queue/status/ada")).json["queue_length"] == 0


@pytest.mark.usefixtures("pings_often")
async def test_a_flood_of_news_does_not_cost_the_presence(
    call: Caller, follow: Follow, service: Service, redis: Redis
) -> None:
    await service.capacity(0)
    await call("POST", "/queue/join/ada")
    async with follow("ada") as stream:
        await stream.next()
        service.clock.advance_ms(50_000)
        renewed = [service.clock.now_ms() + 60_000.0]
        async with asyncio.timeout(DEADLINE_S):
            while await presence_ms(redis) != renewed:
                await redis.publish("vestibule:{default}:changed", '{"moved":["ada"]}')
                await asyncio.sleep(0.02)


async def test_a_stream_survives_the_loss_of_its_redis_connection(
    call: Caller, follow: Follow, service: Service, redis: Redis
) -> None:
    await call("POST", "/queue/join/ada")
    async with follow("ada") as stream:
        await stream.next()
        await redis.client_kill_filter(_type="pubsub")
        await call("POST", "/queue/confirm/ada")
        ticket = await stream.next()
        assert ticket is not None
        assert ticket["status"] == "active"
        await call("POST", "/queue/leave/ada")
        last = await stream.next()
        assert last is not None
        assert last["status"] == "disconnected"


async def test_streams_end_when_the_service_stops(
    served: Served, service: Service, call: Caller
) -> None:
    await call("POST", "/queue/join/ada")
    async with AsyncExitStack() as running:
        other = await running.enter_async_context(served())
        async with service.http.get(
            f"{other.url}/queue/events/ada", headers={"Authorization": f"Bearer {call.key}"}
        ) as response:
            stream = Events(response)
            await stream.next()
            async with asyncio.timeout(DEADLINE_S):
                await running.aclose()
            assert await stream.next() is None


async def test_nobody_without_a_ticket_is_followed(call: Caller) -> None:
    reply = await call("GET", "/queue/events/ada")
    assert (reply.status, reply.json["code"]) == (404, "ticket_unknown")


async def test_a_user_token_in_the_query_opens_the_stream_and_is_never_logged(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with served() as service:
        call = caller_of(service)
        token = (await call("POST", "/queue/join/ada")).json["token"]
        async with following(call.with_key(None), "ada", f"?token={token}") as stream:
            assert await stream.next() is not None
        refused = await call.with_key(None)("GET", f"/queue/events/bob?token={token}")
        assert refused.status == 403
    assert caplog.records
    assert token not in caplog.text


async def test_no_other_key_is_taken_from_the_query(call: Caller, service: Service) -> None:
    await call("POST", "/queue/join/ada")
    path = f"/queue/events/ada?token={service.service_key}"
    assert (await call.with_key(None)("GET", path)).status == 401
