"""A ticket's changes over a WebSocket: what the event stream tells, by other means."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSCloseCode, WSMsgType, WSServerHandshakeError
from redis.asyncio import Redis

from tests.api.calls import Caller, caller_of, until
from tests.api.conftest import Served
from tests.api.test_events import following, presence_ms
from tests.conftest import DEADLINE_S, Service


@asynccontextmanager
async def socket_of(
    service: Service, user: str, query: str = "", **headers: str
) -> AsyncIterator[ClientWebSocketResponse]:
    given = headers or {"Authorization": f"Bearer {service.service_key}"}
    url = f"{service.url}/queue/ws/{user}{query}"
    async with service.http.ws_connect(url, headers=given) as socket:
        yield socket


async def view(socket: ClientWebSocketResponse) -> dict[str, Any]:
    """The next view; fails when the connection ends instead."""
    message: dict[str, Any] = await socket.receive_json(timeout=DEADLINE_S)
    return message


async def closed_with(socket: ClientWebSocketResponse) -> int | None:
    """The code with which the service closes; nothing may come before."""
    message = await socket.receive(timeout=DEADLINE_S)
    assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED), message
    return socket.close_code


async def refused(service: Service, user: str, query: str = "", **headers: str) -> int:
    with pytest.raises(WSServerHandshakeError) as caught:
        async with socket_of(service, user, query, **headers):
            pass
    return caught.value.status


async def test_each_change_comes_once_and_the_end_closes(call: Caller, service: Service) -> None:
    await call("POST", "/queue/join/ada")
    await call("POST", "/queue/join/bob")
    seen = []
    async with socket_of(service, "bob") as socket:
        for path in (None, "leave/ada", "confirm/bob", "leave/bob"):
            if path:
                await call("POST", f"/queue/{path}")
            ticket = await view(socket)
            seen.append((ticket["status"], ticket["position"], ticket["reason"]))
        assert await closed_with(socket) == WSCloseCode.OK
    assert seen == [
        ("waiting", 1, None),
        ("draft", None, None),
        ("active", None, None),
        ("disconnected", None, "left"),
    ]


async def test_the_views_are_those_of_the_event_stream(call: Caller, service: Service) -> None:
    await service.capacity(0)
    for user in ("ada", "bob"):
        await call("POST", f"/queue/join/{user}")
    async with socket_of(service, "bob") as socket, following(call, "bob") as stream:
        assert await view(socket) == await stream.next()
        await call("POST", "/queue/leave/ada")
        ticket = await view(socket)
        assert ticket == await stream.next()
    assert ticket["position"] == 1


@pytest.mark.usefixtures("pings_often")
async def test_being_connected_is_presence(call: Caller, service: Service, redis: Redis) -> None:
    await service.capacity(0)
    await call("POST", "/queue/join/ada")
    async with socket_of(service, "ada") as socket:
        await view(socket)
        for _ in range(3):
            service.clock.advance_ms(50_000)
            renewed = [service.clock.now_ms() + 60_000.0]

            async def is_renewed(wanted: list[float] = renewed) -> bool:
                return await presence_ms(redis) == wanted

            await until(is_renewed)
    service.clock.advance_ms(60_000)
    await service.tick()
    assert (await call("GET", "/queue/status/ada")).json["queue_length"] == 0


async def test_what_a_client_says_changes_nothing(call: Caller, service: Service) -> None:
    await call("POST", "/queue/join/ada")
    async with socket_of(service, "ada") as socket:
        await view(socket)
        for said in ('{"type":"heartbeat"}', "leave", "[" * 1_000):
            await socket.send_str(said)
        await socket.send_bytes(b"\x00\xff")
        await call("POST", "/queue/confirm/ada")
        assert (await view(socket))["status"] == "active"


async def test_a_client_that_says_too_much_is_closed(call: Caller, service: Service) -> None:
    await call("POST", "/queue/join/ada")
    async with socket_of(service, "ada") as socket:
        await view(socket)
        await socket.send_str("x" * 2_000)
        assert await closed_with(socket) == WSCloseCode.MESSAGE_TOO_BIG
    assert (await call("GET", "/queue/status/ada")).json["status"] == "draft"


async def test_connections_close_when_the_service_stops(
    served: Served, service: Service, call: Caller
) -> None:
    await call("POST", "/queue/join/ada")
    async with AsyncExitStack() as running:
        other = await running.enter_async_context(served())
        url, key = f"{other.url}/queue/ws/ada", {"Authorization": f"Bearer {call.key}"}
        async with service.http.ws_connect(url, headers=key) as socket:
            await view(socket)
            stopping = asyncio.create_task(running.aclose())
            assert await closed_with(socket) == WSCloseCode.GOING_AWAY
            async with asyncio.timeout(DEADLINE_S):
                await stopping


async def test_a_client_that_goes_away_leaves_nothing_behind(
    call: Caller, service: Service
) -> None:
    await call("POST", "/queue/join/ada")
    for _ in range(3):
        async with socket_of(service, "ada") as socket:
            await view(socket)
    async with socket_of(service, "ada") as socket:
        assert (await view(socket))["status"] == "draft"


async def test_only_who_may_act_for_the_user_is_let_in(served: Served) -> None:
    async with served() as service:
        call = caller_of(service)
        token = (await call("POST", "/queue/join/ada")).json["token"]
        await call("POST", "/queue/join/bob")
        async with socket_of(service, "ada", f"?token={token}", Nothing="") as socket:
            assert (await view(socket))["user_id"] == "ada"
        assert await refused(service, "bob", f"?token={token}", Nothing="") == 403
        assert await refused(service, "ada", Nothing="") == 401
        assert await refused(service, "ada", f"?token={service.service_key}", Nothing="") == 401
        assert await refused(service, "nobody") == 404


async def test_a_cookie_is_enough_only_for_a_page_of_ours(served: Served) -> None:
    async with served() as service:
        token = (await caller_of(service)("POST", "/queue/join/ada")).json["token"]
        cookie = f"vestibule_token={token}"
        assert await refused(service, "ada", Cookie=cookie) == 403
        assert await refused(service, "ada", Cookie=cookie, Origin="https://evil.example") == 403
        async with socket_of(service, "ada", Cookie=cookie, Origin=service.url) as socket:
            assert (await view(socket))["user_id"] == "ada"


async def test_a_plain_call_is_told_what_is_missing(call: Caller) -> None:
    await call("POST", "/queue/join/ada")
    reply = await call("GET", "/queue/ws/ada")
    assert (reply.status, reply.kind) == (400, "application/problem+json")
