"""The client for other frontends (``admission.client``): a whole turn, by a stream and by polls."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import (
    ClientConnectionError,
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    TCPConnector,
)

from admission.client import Client, Ticket, TurnOver
from admission.errors import AdmissionError
from infra.doctor import views
from infra.doctor.room import Room
from infra.doctor.rule import Broken, Rules, Skipped, expect, own

rules = Rules()
TURN_S = 50.0  # until the turn comes; by polls after two of them, some seconds apart
STATES = ["waiting", "draft", "active"]


@rules("The client's block begins when the turn has come and ends with a leave; a stream tells each"
       " change.", own(capacity=1))  # fmt: skip
async def a_client_has_its_whole_turn_by_a_stream(room: Room) -> None:
    user = room.user("looks")
    await room.join(user)
    async with room.service.open("GET", room.path("events", user)) as answer:
        if answer.status == 501:
            raise Skipped("nothing is streamed here (501): callers poll")
    await room.ask("leave", user)
    await _whole_turn(room, room.deployment.client())


@rules("The same where no stream passes: callers are told when to ask again.", own(capacity=1))
async def a_client_has_its_whole_turn_by_polls(room: Room) -> None:
    async with _without_streams() as http:
        await _whole_turn(room, room.deployment.client(http))


async def _whole_turn(room: Room, client: Client) -> None:
    """Join, wait with updates, confirm, leave."""
    first, user = room.user("first"), room.user("next")
    before = await room.metrics()
    await room.join(first, auto_confirm=True)
    told: list[Ticket] = []

    async def update(ticket: Ticket) -> None:
        told.append(ticket)
        if len(told) == 1:
            expect("the place that the client tells", ticket.position, 1)
            await room.ask("leave", first)

    try:
        async with client.turn(
            user, pool=room.pool, on_update=update, wait_s=TURN_S, auto_confirm=False
        ) as turn:
            seen = await room.status(user)
            expect("the state in the block", seen["status"], "active")
            expect("the ticket", turn.ticket.ticket_id, seen["ticket_id"])
            expect("the deadline", turn.deadline, views.instant(seen["expires_at"]))
    except AdmissionError as error:
        raise Broken("the client's turn", "a whole one", f"{error.status} {error.code}") from error
    except TurnOver as over:
        raise Broken("the client's turn", "a whole one", f"its end: {over}") from over
    except TimeoutError:
        raise Broken("the client's wait", f"a turn within {TURN_S} s", told[-1:]) from None
    states = [ticket.status.value for ticket in told]
    expect("the states it tells", [state for state in STATES if state in states], STATES)
    expect("the ticket's id in all of them", {one.ticket_id for one in told}, {seen["ticket_id"]})
    after, counts = await room.status(user), await room.metrics()
    expect("how it ended", (after["status"], after["reason"]), ("disconnected", "left"))
    expect("how many were admitted", counts["admitted_total"] - before["admitted_total"], 2)


@asynccontextmanager
async def _without_streams() -> AsyncIterator[ClientSession]:
    """Calls as through a proxy that passes no stream."""

    async def passed(request: ClientRequest, on: ClientHandlerType) -> ClientResponse:
        if "/queue/events/" in request.url.path:
            raise ClientConnectionError("no stream passes here")
        return await on(request)

    connector = TCPConnector(force_close=True)
    async with ClientSession(connector=connector, middlewares=(passed,)) as http:
        yield http
