"""A ticket's changes as they happen: Server-Sent Events and WebSocket; else callers are to poll."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientResponse

from infra.doctor import views
from infra.doctor.deployment import Caller, Reply
from infra.doctor.room import Room
from infra.doctor.rule import SHUT, Broken, Rules, Skipped, expect, own

rules = Rules()
EVENT_S = 10.0  # until a change is told; it comes within a second


class _Events:
    """The events of one stream; ``ids`` of those seen so far."""

    def __init__(self, answer: ClientResponse) -> None:
        self._answer = answer
        self.ids: list[int] = []

    async def until(self, status: str) -> dict[str, Any]:
        """The next view in this state; places may be told before it."""
        while True:
            view = await self.next()
            if view is None or view["status"] == status:
                break
        if view is None:
            raise Broken("the event stream", f"an event with the status {status}", "the end")
        return view

    async def next(self) -> dict[str, Any] | None:
        """The next view, or None at the end of the stream."""
        try:
            async with asyncio.timeout(EVENT_S):
                return await self._next()
        except TimeoutError:
            raise Broken("the event stream", f"an event within {EVENT_S} s", "none") from None

    async def _next(self) -> dict[str, Any] | None:
        block: dict[str, str] = {}
        while line := (await self._answer.content.readline()).decode():
            name, _, value = line.rstrip("\n").partition(":")
            if line != "\n":
                block[name] = value.strip()
            elif "data" in block:
                expect("the name of an event", block.get("event"), "ticket")
                self.ids.append(int(block["id"]))
                found: dict[str, Any] = json.loads(block["data"])
                return found
            else:
                block = {}  # a comment
        return None


@asynccontextmanager
async def _events(room: Room, user: str, caller: Caller, query: str = "") -> AsyncIterator[_Events]:
    """The stream of a user who has a ticket."""
    path = room.path("events", user, query)
    async with caller.open("GET", path) as answer:
        if answer.status == 501:
            raise Skipped("nothing is streamed here (501): callers poll")
        if answer.status != 200 or answer.content_type != "text/event-stream":
            text = await answer.text()
            raise Broken(f"GET {path}", "200 text/event-stream", f"{answer.status} {text[:200]}")
        yield _Events(answer)


@rules("GET /queue/events: data = the full view, the snapshot first, then each change,"
       " disconnected last.", own(capacity=1))  # fmt: skip
async def each_change_is_told_and_the_end_last(room: Room) -> None:
    first, user = room.user("first"), room.user("second")
    await room.join(first)
    joined = await room.join(user)
    async with _events(room, user, room.service) as stream:
        snapshot = await stream.next()
        if snapshot is None:
            raise Broken("the event stream", "a snapshot", "the end")
        views.check_view("the snapshot", snapshot, views.TICKET)
        told = (snapshot["ticket_id"], snapshot["status"], snapshot["position"])
        expect("the snapshot", told, (joined["ticket_id"], "waiting", 1))
        await room.ask("leave", first)
        await stream.until("draft")
        await room.ask("confirm", user)
        await stream.until("active")
        await room.ask("leave", user)
        expect("the reason at the end", (await stream.until("disconnected"))["reason"], "left")
        expect("what comes after the end", await stream.next(), None)
        expect("the ids", stream.ids, sorted(set(stream.ids)))


@rules("EventSource takes a user token as ?token=; no key 401, another's token 403, no ticket 404.",
       SHUT)  # fmt: skip
async def a_stream_is_for_its_user(room: Room) -> None:
    user, other = room.user("ada"), room.user("bob")
    token = (await room.join(user))["token"]
    await room.join(other)
    async with _events(room, user, room.nobody, f"&token={token}") as stream:
        snapshot = await stream.next()
        expect("whose ticket it is", snapshot and snapshot["user_id"], user)
    none = await room.service("GET", room.path("events", room.user("none")))
    none.refused(404, "ticket_unknown")
    room.checks_users()
    (await room.nobody("GET", room.path("events", user))).refused(401)
    (await room.nobody("GET", room.path("events", other, f"&token={token}"))).refused(403)


@rules("GET /queue/ws/{user_id}: the same over WebSocket.", own(capacity=1))
async def a_websocket_tells_the_same(room: Room) -> None:
    first, user = room.user("first"), room.user("second")
    await room.join(first)
    await room.join(user)
    async with _socket(room, user) as told:
        expect("the snapshot", (await told())["status"], "waiting")
        await room.ask("leave", first)
        seen = await told()
        while seen["status"] == "waiting":
            seen = await told()
        expect("the next state", seen["status"], "draft")


@asynccontextmanager
async def _socket(room: Room, user: str) -> AsyncIterator[Any]:
    """Reads the views of a WebSocket one by one."""
    async with room.service.socket(room.path("ws", user)) as socket:

        async def told() -> dict[str, Any]:
            view: dict[str, Any] = await socket.receive_json(timeout=EVENT_S)
            return view

        yield told


@rules("Callers that would stream where nothing is streamed are told to poll, and when.", SHUT)
async def who_cannot_stream_is_told_to_poll(room: Room) -> None:
    user = room.user()
    await room.join(user)
    async with room.service.open("GET", room.path("events", user)) as answer:
        if answer.status == 200:
            raise Skipped("tickets are streamed here")
        text = await answer.text()
        reply = Reply("GET /queue/events", answer.status, answer.headers, text)
    problem = reply.refused(501, "no_streams_here")
    after = reply.headers.get("Retry-After", "")
    if not after.isdecimal() or "/queue/status/" not in problem["detail"]:
        raise Broken(reply.call, "Retry-After, and a detail that names /queue/status/", reply.shown)
