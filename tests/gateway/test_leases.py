"""Request pools at the gateway: each request in a lease of its own, or in one it was given."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from redis.asyncio import Redis

from admission.domain import DEFAULT_POOL, Status
from admission.gateway import lease, place
from admission.store.names import pool_key
from tests.api.calls import Caller, caller_of, until
from tests.api.fleet import look_again
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import CHAT, Chatter
from tests.gateway.upstream import CHUNKS, Upstream, chat
from tests.gateway.waiters import WAITS, status_of, streaming, waiting

Take = Callable[[str, str], Awaitable[str]]


@pytest.fixture(autouse=True)
async def one_slot(service: Service, upstream: Upstream) -> None:
    """The default pool gives its one slot to a request at a time."""
    await service.store.configure(DEFAULT_POOL, {"kind": "request", "capacity": 1})
    await look_again(service)


@pytest.fixture
def take(service: Service) -> Take:
    """Takes a lease, or a place for one, before the request; its ticket."""
    call = caller_of(service)

    async def taken(user: str, request: str) -> str:
        body = {"request_id": request, "auto_confirm": True}
        return str((await call("POST", f"/queue/join/{user}", body)).json["ticket_id"])

    return taken


@pytest.fixture
def bob(service: Service) -> Chatter:
    return Chatter(caller_of(service), "bob")


async def held(service: Service) -> tuple[int, int]:
    """How many leases are held, how many requests wait."""
    metrics = await service.store.metrics(DEFAULT_POOL)
    return metrics.active + metrics.draft, metrics.waiting


async def test_a_request_takes_a_free_slot_and_gives_it_back(
    service: Service, upstream: Upstream, bob: Chatter
) -> None:
    async with bob.streams() as response:
        await response.content.readany()
        assert await held(service) == (1, 0)
        upstream.go.set()
        await response.content.read()
    await until(lambda: _empty(service))


async def _empty(service: Service) -> bool:
    return await held(service) == (0, 0)


async def test_none_is_free_and_who_does_not_wait_leaves_nothing_behind(
    service: Service, upstream: Upstream, bob: Chatter, take: Take
) -> None:
    await take("ada", "r1")
    reply = await bob.says(chat())
    assert (reply.status, reply.json["error"]["code"]) == (429, "no_session")
    assert reply.json["error"]["position"] == 1
    assert int(reply.headers["Retry-After"]) >= 1
    assert await held(service) == (1, 0)
    assert not upstream.seen


async def test_a_request_waits_for_a_slot(service: Service, upstream: Upstream, take: Take) -> None:
    upstream.go.set()
    await take("ada", "r1")
    async with streaming(service, "bob") as stream:
        assert (await stream.next() or "").startswith(": You are 1st")
        await service.store.leave(DEFAULT_POOL, "ada")
        assert (await stream.next() or "").startswith(": Your turn.")
        assert await stream.response.content.read() == b"".join(CHUNKS)
    await until(lambda: _empty(service))


async def test_requests_of_one_message_have_leases_of_their_own(
    service: Service, upstream: Upstream, bob: Chatter
) -> None:
    await service.capacity(2)
    same = {"X-Vestibule-Message": "m1"}
    async with bob.streams(**same) as first:
        await first.content.readany()
        async with bob.streams(**same) as second:
            await second.content.readany()
            assert await held(service) == (2, 0)
            upstream.go.set()
            await second.content.read()
        assert await first.content.read() == b"".join(CHUNKS[1:])


async def test_a_lease_taken_before_is_adopted_and_given_back(
    service: Service, upstream: Upstream, bob: Chatter, take: Take
) -> None:
    ticket = await take("bob", "r1")
    async with bob.streams(**{"X-Vestibule-Ticket": ticket}) as response:
        await response.content.readany()
        assert await held(service) == (1, 0)
        again = await bob.says(chat(), **{"X-Vestibule-Ticket": ticket})
        assert (again.status, again.json["error"]["code"]) == (429, "session_busy")
        upstream.go.set()
        await response.content.read()
    await until(lambda: _empty(service))
    assert await status_of(service, "bob", ticket) is Status.DISCONNECTED


async def test_a_place_taken_before_is_waited_for(
    service: Service, upstream: Upstream, bob: Chatter, take: Take
) -> None:
    await take("ada", "r1")
    ticket = await take("bob", "r1")
    named = {"X-Vestibule-Ticket": ticket}
    refused = await bob.says(chat(), **named)
    assert (refused.status, refused.json["error"]["position"]) == (429, 1)
    over = await bob.says(chat(), **named, **{"X-Vestibule-Wait": "1"})
    assert over.json["error"]["code"] == "wait_over"
    assert await status_of(service, "bob", ticket) is Status.WAITING  # a refusal changes nothing
    asking = asyncio.create_task(bob.says(chat(), **named, **WAITS))
    await service.store.leave(DEFAULT_POOL, "ada")
    assert (await asking).status == 200
    await until(lambda: _empty(service))


async def test_a_client_that_goes_away_gives_up_the_place_it_adopted(
    service: Service, bob: Chatter, take: Take
) -> None:
    await take("ada", "r1")
    ticket = await take("bob", "r1")
    async with streaming(service, "bob", {"X-Vestibule-Ticket": ticket}) as stream:
        await stream.next()
        stream.response.close()
    await waiting(service, 0)
    assert await status_of(service, "bob", ticket) is Status.DISCONNECTED


async def test_nobody_adopts_what_is_not_theirs_or_over(
    service: Service, bob: Chatter, take: Take
) -> None:
    ticket = await take("ada", "r1")
    for named in (ticket, "unknown"):
        reply = await bob.says(chat(), **{"X-Vestibule-Ticket": named}, **WAITS)
        assert (reply.status, reply.json["error"]["code"]) == (429, "ticket_ended")
    assert await held(service) == (1, 0)
    await service.store.leave(DEFAULT_POOL, "ada")
    ada = Chatter(caller_of(service), "ada")
    reply = await ada.says(chat(), **{"X-Vestibule-Ticket": ticket})
    assert reply.json["error"]["code"] == "ticket_ended"


async def test_a_long_answer_keeps_its_lease(
    service: Service,
    upstream: Upstream,
    bob: Chatter,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.02)
    async with bob.streams() as response:
        await response.content.readany()
        (ticket,) = await redis.zrange(pool_key(DEFAULT_POOL, "sessions"), 0, -1)
        assert isinstance(ticket, bytes)
        for _ in range(3):
            service.clock.advance_ms(20_000)

            async def renewed() -> bool:
                until_ms = await redis.zscore(pool_key(DEFAULT_POOL, "unused"), ticket)
                return until_ms == service.clock.now_ms() + 30_000

            await until(renewed)
        assert await held(service) == (1, 0)
        upstream.go.set()
        await response.content.read()


async def test_a_lease_taken_away_before_the_answer_is_called_a_turn(
    service: Service, upstream: Upstream, bob: Chatter
) -> None:
    async def think(_: web.Request) -> web.StreamResponse:
        await upstream.go.wait()
        return web.Response()

    upstream.act = think
    asking = asyncio.create_task(bob.says(chat()))
    await upstream.begun.wait()
    await service.store.cancel(DEFAULT_POOL, "bob")
    async with asyncio.timeout(1):  # long before the next renewal
        reply = await asking
    assert (reply.status, reply.json["error"]["code"]) == (429, "turn_over")
    assert "session" not in reply.json["error"]["message"]


async def test_so_many_calls_of_one_user_wait_at_most(
    service: Service, upstream: Upstream, take: Take, bob: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "OF_USER_MAX", 2)
    await take("ada", "r1")
    two = [asyncio.create_task(bob.says(chat(), **WAITS)) for _ in range(2)]
    await waiting(service, 2)
    reply = await bob.says(chat(), **WAITS)
    assert (reply.status, reply.json["error"]["code"]) == (429, "too_many_wait")
    await waiting(service, 2)
    await service.store.leave(DEFAULT_POOL, "ada")
    assert [answer.status for answer in await asyncio.gather(*two)] == [200, 200]
    assert (await bob.says(chat(), **WAITS)).status == 200


async def test_a_worker_that_cannot_be_reached_costs_no_lease(
    service: Service, upstream: Upstream, bob: Chatter
) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    upstream.act = hang_up
    assert (await bob.says(chat())).status == 502
    assert await held(service) == (0, 0)


async def test_a_session_pool_has_no_use_for_a_lease(service: Service, upstream: Upstream) -> None:
    await service.store.configure(DEFAULT_POOL, {"kind": "session"})
    await look_again(service)
    ada = Chatter(caller_of(service), "ada")
    await ada.join()
    assert (await ada.says(chat(), **{"X-Vestibule-Ticket": "whatever"})).status == 200


KILLED = 1000
AT_ONCE = 16


@pytest.mark.parametrize("waits", ["60", pytest.param("0", marks=pytest.mark.long)])
async def test_clients_killed_at_any_moment_leave_no_lease_behind(
    service: Service, upstream: Upstream, waits: str
) -> None:
    async def slowly(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in CHUNKS:
            await asyncio.sleep(0.002)
            await response.write(chunk)
        return response

    upstream.act = slowly
    await service.capacity(6)
    rng, address, body = random.Random(4), urlsplit(service.url), chat(stream=True)
    turns = asyncio.Semaphore(AT_ONCE)

    async def killed(number: int, moment: float | bytes) -> None:
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer service-key\r\n"
            f"X-OpenWebUI-User-Id: u{number % 20}\r\nX-Vestibule-Wait: {waits}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        async with turns:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(head.encode() + body)
            if isinstance(moment, bytes):
                await heard(reader, moment)
            else:
                await asyncio.sleep(moment)
            writer.transport.abort()

    def moment() -> float | bytes:
        """At once, somewhere in the middle, at the first word, or while the model answers."""
        early = (0.0, rng.uniform(0, 0.02), rng.uniform(0, 0.1), b"HTTP")
        return b"data: " if rng.random() < 0.05 else rng.choice(early)

    await asyncio.gather(*(killed(number, moment()) for number in range(KILLED)))
    await until(lambda: _empty(service))
    assert upstream.seen
    last: Caller = caller_of(service)
    assert (await Chatter(last, "last").says(chat())).status == 200


async def heard(reader: asyncio.StreamReader, word: bytes) -> None:
    """Returns when the answer has said so much, or that it is a refusal."""
    said = b""
    async with asyncio.timeout(DEADLINE_S):
        while word not in said and b'"error"' not in said:
            said += await reader.read(4096)
