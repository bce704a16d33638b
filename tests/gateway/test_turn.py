"""The gate: who may pass, how many at once, and what a running request does to its session."""

import asyncio

import pytest
from aiohttp import ClientPayloadError, ServerDisconnectedError, web
from redis.asyncio import Redis

from admission.directory import Directory
from admission.domain import DEFAULT_POOL
from admission.gateway import memory
from admission.gateway.turn import Turns
from admission.store.names import pool_key
from tests.api.calls import caller_of, contents, until
from tests.conftest import Service
from tests.gateway.conftest import Chatter, make_ready
from tests.gateway.upstream import Upstream, chat


async def test_without_a_turn_429_says_when_to_try_again_and_joins_nobody(
    service: Service, redis: Redis, upstream: Upstream
) -> None:
    before = await contents(redis)
    reply = await Chatter(caller_of(service), "bob").says(chat())
    assert (reply.status, reply.json["error"]["code"]) == (429, "no_session")
    assert reply.json["error"]["type"] == "rate_limit_error"
    assert int(reply.headers["Retry-After"]) >= 1
    assert await contents(redis) == before
    assert not upstream.seen


async def test_who_waits_is_told_place_and_estimate(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    bob = Chatter(caller_of(service), "bob")
    await bob.join()
    reply = await bob.says(chat())
    error = reply.json["error"]
    assert (reply.status, error["position"], error["estimated_wait"]) == (429, 1, 1200)
    assert reply.headers["Retry-After"] == "1200"
    assert "number 1" in error["message"]


async def test_a_draft_is_not_a_session_yet(service: Service, upstream: Upstream) -> None:
    call = caller_of(service)
    await call("POST", "/queue/join/bob")
    bob = Chatter(call, "bob")
    assert (await bob.says(chat())).status == 429
    await call("POST", "/queue/confirm/bob")
    assert (await bob.says(chat())).status == 200


async def test_past_its_deadline_a_session_is_over_without_a_tick(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    assert (await ada.says(chat())).status == 200
    service.clock.advance_ms(1_200_000)
    assert (await ada.says(chat())).status == 429


async def test_a_user_token_chats_as_its_user(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    call = caller_of(service)
    token = (await call("POST", "/queue/join/ada")).json["token"]
    other = Chatter(call.with_key(token), "bob")  # whatever the header says
    assert (await other.says(chat())).status == 200


async def test_as_many_requests_of_one_session_as_allowed(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    running = [asyncio.create_task(_read(ada)) for _ in range(4)]

    async def all_run() -> bool:
        return len(upstream.seen) == 4

    await until(all_run)
    reply = await ada.says(chat())
    assert (reply.status, reply.json["error"]["code"]) == (429, "session_busy")
    assert reply.headers["Retry-After"] == "1"
    upstream.go.set()
    await asyncio.gather(*running)
    assert (await ada.says(chat())).status == 200


async def _read(user: Chatter) -> bytes:
    async with user.streams() as response:
        return await response.content.read()


async def test_a_removed_session_cuts_the_answer_at_its_next_renewal(
    service: Service, upstream: Upstream, ada: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "RENEW_S", 0.05)
    async with ada.streams() as response:
        await response.content.readany()
        await service.store.cancel(DEFAULT_POOL, "ada")
        async with asyncio.timeout(2):
            with pytest.raises((ClientPayloadError, ServerDisconnectedError)):
                await response.content.read()
            await upstream.canceled.wait()


async def test_a_session_removed_before_the_answer_begins_is_told_so(
    service: Service, upstream: Upstream, ada: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def think(_: web.Request) -> web.Response:
        await upstream.go.wait()
        return web.Response()

    monkeypatch.setattr(memory, "RENEW_S", 0.05)
    upstream.act = think
    asking = asyncio.create_task(ada.says(chat()))
    await upstream.begun.wait()
    await service.store.cancel(DEFAULT_POOL, "ada")
    reply = await asyncio.wait_for(asking, 5)
    assert (reply.status, reply.json["error"]["code"]) == (429, "session_over")


async def test_leaving_lets_the_running_answer_finish_in_its_slot(
    service: Service, upstream: Upstream, ada: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "RENEW_S", 0.05)
    call = caller_of(service)
    async with ada.streams() as response:
        await response.content.readany()
        await call("POST", "/queue/leave/ada")
        bob = (await call("POST", "/queue/join/bob")).json
        assert bob["status"] == "waiting"
        assert (await call("GET", "/queue/metrics")).json["finishing"] == 1
        await asyncio.sleep(0.12)  # two renewals pass; what must not happen has no event
        upstream.go.set()
        assert (await response.content.read()).endswith(b"[DONE]\n\n")

    async def bob_is_next() -> bool:
        status: str = (await call("GET", "/queue/status/bob")).json["status"]
        return status == "draft"

    await until(bob_is_next)


async def test_a_running_request_counts_as_use(
    service: Service, redis: Redis, upstream: Upstream, ada: Chatter
) -> None:
    unused = pool_key(DEFAULT_POOL, "unused")
    assert await redis.zcard(unused) == 1
    await ada.says(chat())
    assert await redis.zcard(unused) == 0
    service.clock.advance_ms(61_000)
    await service.tick()
    assert (await caller_of(service)("GET", "/queue/status/ada")).json["status"] == "active"


async def test_use_is_renewed_while_the_answer_runs(
    service: Service,
    redis: Redis,
    upstream: Upstream,
    ada: Chatter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "RENEW_S", 0.02)
    (ticket,) = await redis.zrange(pool_key(DEFAULT_POOL, "sessions"), 0, -1)
    assert isinstance(ticket, bytes)
    async with ada.streams() as response:
        await response.content.readany()
        for _ in range(3):
            service.clock.advance_ms(20_000)

            async def renewed() -> bool:
                idle_ms = await redis.zscore(pool_key(DEFAULT_POOL, "idle"), ticket)
                return idle_ms == service.clock.now_ms() + 300_000

            await until(renewed)
        upstream.go.set()
        await response.content.read()


async def test_a_caller_who_goes_away_gives_the_place_back(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    for _ in range(5):
        async with ada.streams() as response:
            assert response.status == 200
            await response.content.readany()
            response.close()
            await upstream.canceled.wait()
            upstream.canceled.clear()

    async def passes() -> bool:
        upstream.go.set()
        return (await ada.says(chat())).status == 200

    await until(passes)


async def test_a_model_without_a_ready_worker_is_503(service: Service, ada: Chatter) -> None:
    await make_ready(service, "w1", "http://127.0.0.1:1", ready=False)
    reply = await ada.says(chat())
    assert (reply.status, reply.json["error"]["code"]) == (503, "no_ready_worker")
    assert reply.json["error"]["type"] == "server_error"
    assert int(reply.headers["Retry-After"]) >= 1


async def test_a_model_nobody_serves_is_404(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    reply = await ada.says(chat(model="gpt-4o"))
    assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found")
    assert reply.json["error"]["param"] == "model"


async def test_a_caller_gone_while_the_turn_is_taken_holds_nothing(
    service: Service, ada: Chatter
) -> None:
    async def take(turns: Turns) -> None:
        async with turns.hold(DEFAULT_POOL, "ada", message=""):
            pass

    for _ in range(20):
        turns = Turns(service.store, Directory(service.store), 1)
        dropped = asyncio.create_task(take(turns))
        await asyncio.sleep(0)  # it has sent its call, and waits for the answer
        dropped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dropped
        await turns.settled()
    # The one place there is would be taken.
    await take(Turns(service.store, Directory(service.store), 1))
