"""Chats and conversations alternate between two instances, one is killed: the users notice nothing.

Of what ran through the killed one an answer that was half told is lost, and a call that waited; to
ask again finds the same session, the same place, the same conversation.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from aiohttp import ClientError, ClientResponse
from msgspec import msgpack
from redis.asyncio import Redis

from admission.client import Client
from tests.api.calls import Reply
from tests.api.stream import Events
from tests.client.conftest import soon  # noqa: F401 - the client's pauses are short here, too
from tests.client.watch import Person, person
from tests.frontends.conftest import WORDS, answer_in
from tests.frontends.conftest import Person as Writer
from tests.gateway.conftest import CHAT, Chatter
from tests.gateway.waiters import WAITS
from tests.scale.pair import SERVICE_KEY, Pair, pair
from tests.scale.servers import until

SLOTS = 4
ANSWER = "".join(WORDS)
LEASE_S = 30.0  # of an answer that nobody renews (DESIGN section 4)
DEE = {"X-OpenWebUI-User-Id": "dee", **WAITS}
STAYS = ("ticket_id", "status", "position", "expires_at", "joined_at")


@pytest.fixture
async def two(valkey: str, redis: Redis) -> AsyncIterator[Pair]:
    async with pair(valkey, capacity=SLOTS) as made:
        yield made


def says(words: str) -> bytes:
    body = {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": words}]}
    return json.dumps(body).encode()


def said(stream_text: str) -> str:
    """The words of a streamed answer."""
    chunks = [json.loads(data) for data in re.findall(r"^data: (\{.*\})", stream_text, re.M)]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    return "".join(delta.get("content", "") for delta in deltas)


async def next_in(events: Events, status: str) -> dict[str, Any]:
    """The next ticket in this state; others may be told before it."""
    while (ticket := await events.next()) and ticket["status"] != status:
        pass
    assert ticket is not None
    return ticket


async def requests_of(two: Pair, redis: Redis, user: str) -> int:
    """How many run in the user's session, as Redis was told."""
    ticket = (await two.view(user))["ticket_id"]
    facts: Any = await redis.hget("vestibule:{default}:tickets", ticket)
    return len(msgpack.decode(facts).get("uses", ()))


class Evening:
    """Who is here. Four have the slots: ada by the client, gus by the gateway, tess by
    ``/chat/stream``, flo a draft; bob (the client), cy (REST and a stream) and dee (a call that
    waits in its connection) wait in this order."""

    users = ("ada", "gus", "tess", "flo", "bob", "cy", "dee")

    def __init__(self, two: Pair) -> None:
        self.two = two
        self.gus, self.tess = Chatter(two.call, "gus"), Writer(two.call, "tess")
        self.gus.headers["X-OpenWebUI-Chat-Id"] = "c1"
        self.thread = ""
        self.ada: Person
        self.bob: Person
        self.cy_stream: ClientResponse
        self.cy: Events
        self.dee: ClientResponse
        self.asks_again: asyncio.Task[Reply]  # dee
        self.running: list[ClientResponse] = []  # gus' answers: by the victim, by the survivor
        self.before: dict[str, dict[str, Any]]

    async def begins(self, stack: AsyncExitStack, redis: Redis) -> None:
        """All come. What has a connection for long has it to the one that will be killed."""
        enter, two = stack.enter_async_context, self.two
        client = await enter(Client(two.url, SERVICE_KEY))
        self.ada = await enter(person(client, "ada"))
        await self.ada.has_it()
        await self.gus.join()
        await self.chats(rounds=4)
        self.thread = (await self.writes("one"))["thread"]
        await self.writes("two")
        assert (await two.call("POST", "/queue/join/flo")).json["status"] == "draft"
        self.bob = await enter(person(client, "bob"))
        await self.bob.waits()
        await two.call("POST", "/queue/join/cy")
        self.cy_stream = await enter(two.at_victim.open("GET", "/queue/events/cy"))
        self.cy = Events(self.cy_stream)
        assert await self.cy.next()
        self.dee = await enter(two.at_victim.open("POST", CHAT, data=says("dee"), headers=DEE))
        for model in two.models:
            model.hold_at = 1
        for call in (two.at_victim, two.at_survivor):
            opened = call.open("POST", CHAT, data=says("gus"), headers=self.gus.headers)
            self.running.append(await enter(opened))
            assert await self.running[-1].content.readany()
        await until(partial(self._is_settled, redis), "an instance has not told what it runs")
        self.before = await self.all_views()
        places = [self.before[user]["position"] for user in self.users]
        assert places == [None] * SLOTS + [1, 2, 3]

    async def _is_settled(self, redis: Redis) -> bool:
        """Both have renewed ada's session, and told Redis of gus' answers and of tess' ends."""
        beats = self.two.each_answered("POST /queue/heartbeat/ada")
        runs = [await requests_of(self.two, redis, user) for user in ("gus", "tess")]
        return (len(beats), runs) == (2, [2, 0])

    async def says_dee(self) -> Reply:
        return await self.two.call("POST", CHAT, data=says("dee"), headers=DEE)

    async def chats(self, rounds: int) -> None:
        """gus talks, and each answer is whole."""
        for _ in range(rounds):
            reply = await self.gus.says(says("gus"))
            assert (reply.status, said(reply.text)) == (200, ANSWER)

    async def writes(self, message: str) -> dict[str, Any]:
        """tess goes on with her conversation; how it ended."""
        known = {"thread": self.thread} if self.thread else {}
        events = await self.tess.says(message, user_id="tess", **known)
        assert answer_in(events) == ANSWER
        assert (events[-1]["type"], events[-1]["saved"]) == ("done", True)
        return events[-1]

    def workers_of(self, words: str) -> set[str]:
        """Those that were asked with these words last."""
        asked = {model.upstream.name: model.asked for model in self.two.models}
        return {
            name
            for name, bodies in asked.items()
            if any(body["messages"][-1]["content"] == words for body in bodies)
        }

    async def all_views(self) -> dict[str, dict[str, Any]]:
        """What the survivor says of each, as far as it must not change."""
        views = {user: await self.two.view(user) for user in self.users}
        return {user: {name: view[name] for name in STAYS} for user, view in views.items()}


async def _what_was_cut_is_asked_for_again(evening: Evening, stack: AsyncExitStack) -> None:
    two, (cut, kept) = evening.two, evening.running
    for lost in (cut.content, evening.cy_stream.content, evening.dee.content):
        with pytest.raises(ClientError):  # none of them looks whole
            await lost.read()
    for model in two.models:
        model.upstream.go.set()
    assert ANSWER.endswith(said((await kept.content.read()).decode()))

    seen = evening.cy.ids[-1]
    stream = two.call.open("GET", "/queue/events/cy", headers={"Last-Event-ID": str(seen)})
    evening.cy = Events(await stack.enter_async_context(stream))
    ticket = await evening.cy.next() or {}
    assert (ticket["status"], ticket["position"]) == ("waiting", 2)
    assert evening.cy.ids[-1] > seen
    evening.asks_again = asyncio.create_task(evening.says_dee())
    await until(partial(_has_answered, two, "GET /queue/events/bob"), "bob's stream is not back")


async def _has_answered(two: Pair, call: str) -> bool:
    return "survivor" in two.each_answered(call)


async def _all_goes_on(evening: Evening) -> None:
    two = evening.two
    beats = len(two.balancer.answered("POST /queue/heartbeat/ada"))
    await evening.chats(rounds=3)
    assert (await evening.writes("three"))["thread"] == evening.thread
    kept = await two.call("GET", f"/chat/threads/{evening.thread}?user_id=tess")
    words = [each["content"] for each in kept.json["messages"]]
    assert words == ["one", ANSWER, "two", ANSWER, "three", ANSWER]
    assert evening.workers_of("three") == evening.workers_of("one")

    async def renewed() -> bool:
        return len(two.balancer.answered("POST /queue/heartbeat/ada")) > beats

    await until(renewed, "ada's session is not renewed")
    assert evening.ada.statuses == ["active"]


async def _the_line_moves(evening: Evening) -> None:
    two, before = evening.two, evening.before
    confirmed = (await two.call("POST", "/queue/confirm/flo")).json
    assert (confirmed["status"], confirmed["ticket_id"]) == ("active", before["flo"]["ticket_id"])
    await evening.ada.ends()
    turn = await evening.bob.has_it()
    assert turn.ticket.ticket_id == before["bob"]["ticket_id"]
    assert {ticket.position for ticket in evening.bob.told} == {1, None}
    await two.call("POST", "/queue/leave/tess")
    offered = await next_in(evening.cy, "draft")
    assert offered["ticket_id"] == before["cy"]["ticket_id"]
    await two.counts(SLOTS)
    await two.call("POST", "/queue/confirm/cy", {"ticket_id": offered["ticket_id"]})
    await next_in(evening.cy, "active")
    await two.call("POST", "/queue/leave/flo")
    answered = await evening.asks_again
    assert (answered.status, said(answered.text)) == (200, ANSWER)
    assert (await two.view("dee"))["ticket_id"] == before["dee"]["ticket_id"]
    counts = await two.counts(SLOTS)
    assert (counts["active"], counts["admitted_total"]) == (SLOTS, len(evening.users))


async def _nothing_is_left(evening: Evening, redis: Redis) -> None:
    """But the dead one's half an answer: a lease that nobody renews."""
    two = evening.two
    await evening.bob.ends()
    for user in ("cy", "dee", "gus"):
        assert (await two.call("POST", f"/queue/leave/{user}")).status == 200

    async def empty() -> bool:
        counts = await two.counts(SLOTS)
        return [counts[each] for each in ("active", "draft", "waiting", "finishing")] == [
            0,
            0,
            0,
            1,
        ]

    await until(empty, "somebody holds a slot")
    lease: Any = await redis.zrange("vestibule:{default}:finishing", 0, -1, withscores=True)
    seconds, _ = await redis.time()
    assert lease[0][1] / 1000 - int(seconds) <= LEASE_S + 1


@pytest.mark.long
async def test_one_of_two_is_killed_and_nobody_notices(two: Pair, redis: Redis) -> None:
    async with AsyncExitStack() as stack:
        evening = Evening(two)
        await evening.begins(stack, redis)
        for path in ("/queue/heartbeat/ada", CHAT, "/chat/stream"):
            assert two.each_answered(f"POST {path}") == ["survivor", "victim"]
        assert two.each_answered("GET /queue/events/") == ["victim"]
        worker = evening.workers_of("gus")
        assert len(worker) == 1

        await two.kill_one()

        assert await evening.all_views() == evening.before
        await _what_was_cut_is_asked_for_again(evening, stack)
        await _all_goes_on(evening)
        assert evening.workers_of("gus") == worker
        assert await evening.all_views() == evening.before
        await _the_line_moves(evening)
        await _nothing_is_left(evening, redis)


@pytest.mark.soak
async def test_half_an_answer_holds_its_slot_for_half_a_minute(valkey: str, redis: Redis) -> None:
    async with pair(valkey, capacity=1) as two:
        gus = Chatter(two.at_victim, "gus")
        await gus.join()
        for model in two.models:
            model.hold_at = 1
        async with gus.streams() as answer:
            assert await answer.content.readany()

            async def told() -> bool:
                return await requests_of(two, redis, "gus") == 1

            await until(told, "the instance has not told what it runs")
            await two.call("POST", "/queue/join/dee", {"auto_confirm": True})
            await two.kill_one()
            await two.call("POST", "/queue/leave/gus")
            async with asyncio.timeout(LEASE_S + 2):
                while (await two.call("POST", "/queue/heartbeat/dee")).json["status"] != "active":
                    assert (await two.counts(1))["finishing"] == 1
                    await asyncio.sleep(0.5)
