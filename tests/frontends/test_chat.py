"""`/chat/stream`: a turn, an answer and a conversation in one call, over real sockets."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web
from redis.asyncio import Redis

from admission.app import create_app
from admission.bad_http import Runner
from admission.clock import ManualClock
from admission.domain import Status, Ticket
from admission.store.connection import open_redis
from admission.store.redis_store import RedisStore
from admission.store.thread_store import ThreadStore
from tests.api.calls import caller_of, until
from tests.api.fleet import look_again
from tests.conftest import Service, service_settings
from tests.frontends.conftest import Model, Person, answer_in, delta, person
from tests.gateway.conftest import make_ready

SECRET = "a-prompt-nobody-may-log"


async def status_of(service: Service, user: str) -> Status | None:
    ticket = await service.store.status("default", user)
    return ticket.status if isinstance(ticket, Ticket) else None


async def test_an_answer_is_streamed_and_kept(service: Service, model: Model) -> None:
    ada = await person(service, "ada")
    events = await ada.says("hello")
    assert [event["type"] for event in events] == ["token"] * 3 + ["done"]
    assert answer_in(events) == "Héllo there"
    done = events[-1]
    assert (done["saved"], done["finish_reason"]) == (True, "stop")
    assert model.asked[0]["messages"] == [{"role": "user", "content": "hello"}]
    await ada.says("and you?", thread=done["thread"])
    assert model.asked[1]["messages"] == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Héllo there"},
        {"role": "user", "content": "and you?"},
    ]


async def test_tokens_come_as_the_model_says_them(service: Service, model: Model) -> None:
    model.hold_at = 1
    ada = await person(service, "ada")
    async with ada.chats("hello") as chat:
        assert (await chat.next() or {})["content"] == "Hé"
        model.upstream.go.set()
        assert answer_in(await chat.rest()) == "llo there"


async def test_the_session_stays_for_the_next_message(service: Service, model: Model) -> None:
    ada = await person(service, "ada")
    await ada.says("hello")
    assert await status_of(service, "ada") is Status.ACTIVE


async def test_sources_are_passed_on(service: Service, model: Model) -> None:
    model.chunks.insert(0, b'data: {"sources": [{"name": "a.pdf"}]}\n\n')
    events = await (await person(service, "ada")).says("hello")
    assert events[0] == {"type": "sources", "sources": [{"name": "a.pdf"}]}


async def test_chunks_cut_anywhere_are_read_whole(service: Service, model: Model) -> None:
    whole = b"".join(model.chunks)
    model.chunks = [whole[n : n + 7] for n in range(0, len(whole), 7)]
    assert answer_in(await (await person(service, "ada")).says("hello")) == "Héllo there"


async def test_who_waits_is_told_each_new_place_and_then_answered(
    service: Service, model: Model
) -> None:
    await service.store.join("default", "first", ticket="t1", auto_confirm=True)
    await service.store.join("default", "second", ticket="t2", client="c")
    ada = await person(service, "ada")
    headers = {"Accept-Language": "fr"}
    async with ada.chats("hello", headers=headers) as chat:
        told = await chat.next() or {}
        assert (told["type"], told["position"]) == ("queue", 2)
        assert told["message"].startswith("Position 2 dans la file, environ 40 minutes")
        await service.store.leave("default", "second", client="c")
        assert (await chat.next() or {})["position"] == 1
        await service.store.leave("default", "first")
        events = await chat.rest()
    assert [event["type"] for event in events] == ["token"] * 3 + ["done"]


async def test_an_offered_slot_is_taken_by_a_message(service: Service, model: Model) -> None:
    ada = await person(service, "ada")
    await service.store.join("default", "ada", ticket="t1")
    assert await status_of(service, "ada") is Status.DRAFT
    assert answer_in(await ada.says("hello")) == "Héllo there"


async def test_a_class_that_only_other_pools_have_keeps_nobody_out(
    service: Service, model: Model
) -> None:
    admin = caller_of(service, service.admin_key)
    await admin("PUT", "/admin/priorities/ada", {"priority": "vip"})
    ada = await person(service, "ada")
    assert answer_in(await ada.says("hello")) == "Héllo there"


async def test_closing_while_waiting_leaves_the_queue(service: Service, model: Model) -> None:
    await service.store.join("default", "first", ticket="t1", auto_confirm=True)
    ada = await person(service, "ada")
    async with ada.chats("hello") as chat:
        await chat.next()
        chat.response.close()

    async def gone() -> bool:
        return await status_of(service, "ada") is Status.DISCONNECTED

    await until(gone)


async def test_closing_one_of_two_waiting_chats_keeps_the_place(
    service: Service, model: Model
) -> None:
    await service.store.join("default", "first", ticket="t1", auto_confirm=True)
    ada = await person(service, "ada")
    async with ada.chats("one") as other:
        await other.next()
        async with ada.chats("two") as chat:
            await chat.next()
            chat.response.close()
        await asyncio.gather(*(service.store.status("default", "ada") for _ in range(20)))
        assert await status_of(service, "ada") is Status.WAITING
        await service.store.leave("default", "first")
        assert answer_in(await other.rest()) == "Héllo there"


async def test_closing_while_answering_ends_the_workers_answer_and_keeps_the_session(
    service: Service, model: Model
) -> None:
    model.hold_at = 1
    ada = await person(service, "ada")
    async with ada.chats("hello") as chat:
        await chat.next()
        chat.response.close()
        async with asyncio.timeout(10):
            await model.upstream.canceled.wait()
    assert await status_of(service, "ada") is Status.ACTIVE


async def test_a_turn_that_ends_while_waiting_is_said(service: Service, model: Model) -> None:
    await service.store.join("default", "first", ticket="t1", auto_confirm=True)
    ada = await person(service, "ada")
    async with ada.chats("hello") as chat:
        await chat.next()
        await service.store.leave("default", "ada")
        events = await chat.rest()
    assert [(e["type"], e["code"]) for e in events] == [("error", "ticket_ended")]


async def test_an_answer_that_breaks_off_is_an_error_and_not_kept(
    service: Service, model: Model
) -> None:
    model.chunks = model.chunks[:1]
    ada = await person(service, "ada")
    events = await ada.says("hello")
    assert [event["type"] for event in events] == ["token", "error"]
    assert events[-1]["code"] == "bad_gateway"
    assert (await ada.call("GET", "/chat/threads")).json["total"] == 0


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (400, '{"error": {"message": "too long"}}', "model_refused"),
        (500, "{}", "bad_gateway"),
        (200, "data: {nonsense\n\n", "bad_gateway"),
        (200, 'data: {"error": {"message": "no"}}\n\n', "bad_gateway"),
    ],
)
async def test_before_the_first_byte_an_error_is_a_proper_one(
    service: Service, model: Model, status: int, text: str, code: str
) -> None:
    async def act(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, content_type="text/event-stream")

    model.upstream.act = act
    ada = await person(service, "ada")
    reply = await ada.call("POST", "/chat/stream", {"message": "hello"})
    assert (reply.status, reply.kind, reply.json["code"]) == (502, "application/problem+json", code)


async def test_no_turn_can_be_had(service: Service, model: Model) -> None:
    ada = await person(service, "ada")
    await service.store.configure("default", {"paused": True})
    reply = await ada.call("POST", "/chat/stream", {"message": "hello"})
    assert (reply.status, reply.json["code"]) == (503, "pool_paused")


async def test_too_many_answers_of_one_session_at_once(service: Service, model: Model) -> None:
    model.hold_at = 0
    ada = await person(service, "ada")
    tasks = [asyncio.create_task(ada.says("hello")) for _ in range(4)]

    async def four() -> bool:
        return len(model.upstream.seen) == 4

    await until(four)
    reply = await ada.call("POST", "/chat/stream", {"message": "hello"})
    assert (reply.status, reply.json["code"]) == (429, "session_busy")
    model.upstream.go.set()
    assert all(answer_in(events) for events in await asyncio.gather(*tasks))


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "message"),
        ({"message": ""}, 422, "message"),
        ({"message": "x" * 32_769}, 422, "message"),
        ({"message": "x", "thread": "a b"}, 422, "thread"),
        ({"message": "x", "thread": "nobody"}, 404, "thread"),
        ({"message": "x", "model": "huge"}, 404, "model"),
        ({"message": "x", "more": 1}, 422, "more"),
        ({"message": "x", "user_id": "a/b"}, 422, "user_id"),
    ],
)
async def test_bad_input_names_the_field_and_joins_nothing(
    service: Service, model: Model, body: dict[str, object], status: int, field: str
) -> None:
    call = (await person(service, "ada")).call
    before = await service.store.status("default", "ada")
    reply = await call("POST", "/chat/stream", body)
    assert (reply.status, reply.fields) == (status, {field})
    assert await service.store.status("default", "ada") == before


async def test_without_a_ready_worker_nobody_joins(service: Service) -> None:
    reply = await (await person(service, "ada")).call("POST", "/chat/stream", {"message": "x"})
    assert (reply.status, reply.json["code"]) == (503, "no_ready_worker")


async def test_who_may_chat_for_whom(service: Service, model: Model) -> None:
    ada, trusted = await person(service, "ada"), Person(caller_of(service), "")
    for call, body, status in (
        (trusted.call.with_key(None), {}, 401),
        (trusted.call.with_key("worker-token"), {}, 403),
        (ada.call, {"user_id": "bob"}, 403),
        (trusted.call, {}, 422),
    ):
        assert (await call("POST", "/chat/stream", {"message": "x", **body})).status == status
    events = await trusted.says("x", user_id="bob")
    assert answer_in(events)
    assert await status_of(service, "bob") is Status.ACTIVE


async def test_no_word_of_a_conversation_reaches_a_log(
    service: Service, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    model.chunks = [delta(SECRET), b"data: {" + SECRET.encode() + b"\n\n"]
    ada = await person(service, "ada")
    await ada.says(SECRET)
    model.chunks = [delta(SECRET), b"data: [DONE]\n\n"]
    await ada.says(SECRET)
    assert "ticket_moved" in caplog.text
    assert SECRET not in caplog.text


@asynccontextmanager
async def another(
    redis: Redis, clock: ManualClock, conversations: ThreadStore | None = None
) -> AsyncIterator[tuple[Service, Runner]]:
    """One more service on the same Redis, and what stops it."""
    settings = service_settings()
    store = RedisStore(redis, clock, settings.pool_policy(needs_worker=False))
    app = await create_app(settings, store, conversations)
    runner = Runner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with ClientSession(url) as http:
        yield Service(url, settings, store, clock, http), runner
    await runner.cleanup()


async def test_without_memory_the_answer_still_streams(
    redis: Redis, clock: ManualClock, model: Model
) -> None:
    away = open_redis("unix:///nowhere/redis.sock")
    async with away, another(redis, clock, ThreadStore(away, clock)) as (forgetful, _):
        await make_ready(forgetful, "w1", model.upstream.url)
        ada = await person(forgetful, "ada")
        cases: list[dict[str, str]] = [{}, {"thread": "t1"}]
        for fields in cases:
            events = await ada.says("hello", **fields)
            assert answer_in(events) == "Héllo there"
            assert events[-1]["saved"] is False
        assert (await ada.call("GET", "/chat/threads")).status == 503


async def test_in_a_request_pool_each_message_has_its_own_slot(
    service: Service, model: Model
) -> None:
    await service.store.configure("default", {"kind": "request", "capacity": 1})
    ada, bob = await person_of_requests(service, "ada"), await person_of_requests(service, "bob")
    model.hold_at = 1
    async with ada.chats("one") as first, bob.chats("two") as second:
        assert (await first.next() or {})["type"] == "token"
        assert (await second.next() or {})["type"] == "queue"
        model.upstream.go.set()
        assert answer_in(await first.rest()) == "llo there"
        assert answer_in(await second.rest()) == "Héllo there"
    assert (await service.store.metrics("default")).active == 0


async def person_of_requests(service: Service, name: str) -> Person:
    """Somebody with a token, in a request pool."""
    await look_again(service)
    trusted = caller_of(service)
    joined = await trusted("POST", f"/queue/join/{name}", {"request_id": "r"})
    await trusted("POST", f"/queue/leave/{name}")
    return Person(caller_of(service, joined.json["token"]), name)


async def test_a_service_that_stops_keeps_the_place(
    service: Service, redis: Redis, clock: ManualClock, model: Model
) -> None:
    await service.store.join("default", "first", ticket="t1", auto_confirm=True)
    ada = await person(service, "ada")
    async with another(redis, clock) as (other, runner):
        await make_ready(other, "w1", model.upstream.url)
        there = Person(caller_of(other, ada.call.key), "ada")
        async with there.chats("hello") as chat:
            assert (await chat.next() or {})["type"] == "queue"
            stopping = asyncio.create_task(runner.cleanup())
            events = await chat.rest()
            await stopping
    assert [(e["type"], e["code"]) for e in events] == [("error", "closing")]
    assert await status_of(service, "ada") is Status.WAITING


async def test_closing_while_joining_leaves_that_request_and_no_other(
    service: Service, model: Model, redis: Redis
) -> None:
    await service.store.configure("default", {"kind": "request", "capacity": 0})
    ada = await person_of_requests(service, "ada")
    await redis.client_pause(500)
    chats = [asyncio.create_task(ada.says(message)) for message in ("one", "two")]
    await asyncio.sleep(0.2)  # both joins are under way
    chats[0].cancel()

    async def one_waits() -> bool:
        return (await service.store.metrics("default")).waiting == 1

    await until(one_waits)
    await service.store.set_capacity("default", 1)
    assert answer_in(await chats[1]) == "Héllo there"
