"""A session is trusted for a second: what that saves, what it never hides, what Redis is told."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientPayloadError, ServerDisconnectedError, web
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.directory import Directory
from admission.domain import DEFAULT_POOL, Change
from admission.gateway import memory
from admission.gateway.turn import Turns
from admission.outcomes import Kept, Passed
from admission.store.names import pool_key
from tests.api.calls import Caller, caller_of, until
from tests.api.conftest import served_at
from tests.conftest import Service
from tests.gateway.conftest import Chatter, make_ready
from tests.gateway.upstream import CHUNKS, Upstream, chat
from tests.gateway.waiters import free_slot


@pytest.fixture
async def second(
    valkey: str, clock: ManualClock, service: Service, upstream: Upstream
) -> AsyncIterator[Service]:
    """Another gateway process on the same Redis."""
    async with served_at(valkey, clock) as other:
        await make_ready(other, "w1", upstream.url)
        yield other


def at(service: Service, user: str = "ada") -> Chatter:
    return Chatter(caller_of(service), user)


async def test_requests_of_a_session_cost_no_call_each(
    service: Service, upstream: Upstream, ada: Chatter, asked: Counter[str]
) -> None:
    for _ in range(50):
        assert (await ada.says(chat())).status == 200
    assert asked["use"] == 1
    assert asked["keep"] + asked["done"] <= 10
    service.clock.advance_ms(1001)
    await ada.says(chat())
    assert asked["use"] + asked["keep"] > 1


async def test_what_was_not_told_yet_is_told_before_redis_is_asked(
    service: Service, upstream: Upstream, ada: Chatter, asked: Counter[str]
) -> None:
    """So one call is enough: it says that there is a session still."""
    await ada.says(chat())
    service.clock.advance_ms(1001)
    assert (await ada.says(chat())).status == 200
    assert asked["use"] == 1


async def test_use_from_memory_counts_as_use(
    service: Service, upstream: Upstream, ada: Chatter, redis: Redis
) -> None:
    await ada.says(chat())
    (ticket,) = await redis.zrange(pool_key(DEFAULT_POOL, "sessions"), 0, -1)
    assert isinstance(ticket, bytes)
    service.clock.advance_ms(900)
    await ada.says(chat())

    async def told() -> bool:
        idle_ms = await redis.zscore(pool_key(DEFAULT_POOL, "idle"), ticket)
        return idle_ms == service.clock.now_ms() + 300_000

    await until(told)


async def test_what_runs_is_told_and_given_back(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    await ada.says(chat())  # now the session is known here

    async def running() -> int:
        kept = await service.store.use(
            DEFAULT_POOL, "ada", request="probe", concurrency=1000, message=""
        )
        assert isinstance(kept, Passed)
        await service.store.done(DEFAULT_POOL, ticket=kept.ticket_id, request="probe")
        return kept.running - 1

    async def one() -> bool:
        return await running() == 1

    async def none() -> bool:
        return await running() == 0

    async with ada.streams() as response:
        await response.content.readany()
        await until(one)
        upstream.go.set()
        await response.content.read()
    await until(none)


async def test_memory_never_outlasts_the_session(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    assert (await ada.says(chat())).status == 200
    service.clock.advance_ms(1_200_000 - 900)
    assert (await ada.says(chat())).status == 200
    service.clock.advance_ms(900)
    assert (await ada.says(chat())).status == 429


@pytest.mark.parametrize("end", ["leave", "cancel"])
async def test_a_turn_that_ends_anywhere_ends_in_every_process(
    service: Service, second: Service, ada: Chatter, end: str
) -> None:
    for each in (service, second):
        assert (await at(each).says(chat())).status == 200
    await getattr(service.store, end)(DEFAULT_POOL, "ada")

    async def refused() -> bool:
        return (await at(second).says(chat())).status == 429

    async with asyncio.timeout(1):
        await until(refused)
    assert (await at(service).says(chat())).status == 429


async def test_a_removal_cuts_what_runs_in_another_process_within_a_second(
    service: Service, second: Service, upstream: Upstream, ada: Chatter
) -> None:
    async with at(second).streams() as response:
        await response.content.readany()
        await service.store.cancel(DEFAULT_POOL, "ada")
        async with asyncio.timeout(1):
            with pytest.raises((ClientPayloadError, ServerDisconnectedError)):
                await response.content.read()
            await upstream.canceled.wait()


async def test_an_answer_that_finishes_is_cut_by_a_removal_too(
    service: Service, second: Service, upstream: Upstream, ada: Chatter
) -> None:
    async with at(second).streams() as response:
        await response.content.readany()
        await service.store.leave(DEFAULT_POOL, "ada")
        await asyncio.sleep(0.1)  # the leave is heard there
        await service.store.cancel(DEFAULT_POOL, "ada")
        async with asyncio.timeout(1):
            with pytest.raises((ClientPayloadError, ServerDisconnectedError)):
                await response.content.read()


async def test_without_news_memory_ends_by_itself(
    valkey: str, redis: Redis, clock: ManualClock, upstream: Upstream, ada: Chatter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def deaf(self: Turns, change: Change) -> None:
        pass

    monkeypatch.setattr(Turns, "hear", deaf)
    async with served_at(valkey, clock) as second:
        await make_ready(second, "w1", upstream.url)
        assert (await at(second).says(chat())).status == 200
        await free_slot(second, "ada")
        clock.advance_ms(999)
        assert (await at(second).says(chat())).status == 200
        clock.advance_ms(2)
        assert (await at(second).says(chat())).status == 429


async def test_who_still_asks_redis_counts_among_what_runs(
    service: Service, upstream: Upstream, ada: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session just begun: its calls all ask, and the first answer lets others begin at once."""
    asked, all_ask, answered = Counter[str](), asyncio.Event(), asyncio.Event()
    use = service.store.use

    async def slowly(*args: Any, **given: Any) -> Any:
        asked["use"] += 1
        if asked["use"] == 4:
            all_ask.set()
        await (all_ask if asked["use"] == 1 else answered).wait()
        return await use(*args, **given)

    monkeypatch.setattr(service.store, "use", slowly)
    async with asyncio.TaskGroup() as group:
        read = [group.create_task(_status(ada)) for _ in range(4)]
        await until(lambda: _seen(upstream, 1))
        read += [group.create_task(_status(ada)) for _ in range(3)]
        await asyncio.sleep(memory.TELL_S / 2)  # whoever began meanwhile is not known to Redis
        answered.set()
        await until(lambda: _seen(upstream, 4))
        await asyncio.sleep(memory.TELL_S)
        assert len(upstream.seen) == 4
        upstream.go.set()
    assert Counter(each.result() for each in read) == {200: 4, 429: 3}


async def _status(user: Chatter) -> int:
    async with user.streams() as response:
        await response.content.read()
        return response.status


async def _seen(upstream: Upstream, number: int) -> bool:
    return len(upstream.seen) == number


async def test_two_processes_share_the_limit_but_for_a_second(
    service: Service, second: Service, upstream: Upstream, ada: Chatter
) -> None:
    async def read(where: Service) -> int:
        async with at(where).streams() as response:
            await response.content.read()
            return response.status

    here = [asyncio.create_task(read(service)) for _ in range(3)]

    def seen(number: int) -> Callable[[], Awaitable[bool]]:
        async def so_many() -> bool:
            return len(upstream.seen) == number

        return so_many

    await until(seen(3))
    await asyncio.sleep(memory.TELL_S + 2 * memory.ROUND_S)
    there = [asyncio.create_task(read(second))]
    await until(seen(4))
    service.clock.advance_ms(1001)  # nobody trusts what was seen before
    for each in (service, second):
        reply = await at(each).says(chat())
        assert (reply.status, reply.json["error"]["code"]) == (429, "session_busy")
    upstream.go.set()
    assert await asyncio.gather(*here, *there) == [200] * 4


async def test_what_ends_beside_another_process_is_told_at_once(
    service: Service,
    second: Service,
    upstream: Upstream,
    ada: Chatter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or who has four connections would be refused when one of them comes to the other process."""
    monkeypatch.setattr(memory, "GATHER_S", 1000.0)

    def so_many(number: int) -> Callable[[], Awaitable[bool]]:
        async def run() -> bool:
            kept = await service.store.keep(DEFAULT_POOL, "ada", running={})
            return isinstance(kept, Kept) and kept.running == number

        return run

    async with ada.streams() as here:
        await here.content.readany()
        await until(so_many(1))
        async with at(second).streams() as there:
            await there.content.readany()
            await until(so_many(2))
        await until(so_many(1))


async def test_an_answer_that_finishes_keeps_its_slot_until_it_ends_and_not_longer(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    call: Caller = caller_of(service)
    await ada.says(chat())  # from here on it begins from memory
    async with ada.streams(**{"X-Vestibule-Message": "m1"}) as response:
        await response.content.readany()
        await asyncio.sleep(memory.TELL_S + 2 * memory.ROUND_S)
        await call("POST", "/queue/leave/ada")
        bob = (await call("POST", "/queue/join/bob", {"auto_confirm": True})).json
        assert bob["status"] == "waiting"
        round_ = await ada.says(chat(), **{"X-Vestibule-Message": "m1"})
        assert round_.status == 200  # a tool round of the same message
        assert (await ada.says(chat(), **{"X-Vestibule-Message": "m2"})).status == 429
        upstream.go.set()
        assert (await response.content.read()).endswith(b"[DONE]\n\n")
    await call("POST", "/queue/leave/ada", {"client": "m1"})

    async def bobs_turn() -> bool:
        status: str = (await call("GET", "/queue/status/bob")).json["status"]
        return status == "active"

    await until(bobs_turn)


async def test_a_service_that_stops_tells_everything(
    valkey: str,
    redis: Redis,
    clock: ManualClock,
    upstream: Upstream,
    ada: Chatter,
    service: Service,
) -> None:
    async with served_at(valkey, clock) as second:
        await make_ready(second, "w1", upstream.url)
        for _ in range(3):
            assert (await at(second).says(chat())).status == 200
    last = await service.store.use(DEFAULT_POOL, "ada", request="r", message="", concurrency=1)
    assert isinstance(last, Passed)


async def test_who_is_not_in_use_is_forgotten(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    turns = Turns(service.store, Directory(service.store), 4)
    keeping = asyncio.create_task(turns.keep())
    sessions = turns._memory._sessions
    async with turns.hold(DEFAULT_POOL, "ada", message=""):
        assert len(sessions) == 1

    async def empty() -> bool:
        service.clock.advance_ms(1001)
        return not sessions

    await until(empty)
    keeping.cancel()


KILLED, USERS = 400, 8


async def test_clients_killed_at_any_moment_leave_nothing_running(
    service: Service, upstream: Upstream
) -> None:
    async def slowly(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in CHUNKS:
            await asyncio.sleep(0.01)
            await response.write(chunk)
        return response

    upstream.act = slowly
    await service.capacity(USERS)
    for number in range(USERS):
        await at(service, f"u{number}").join()
    rng, address, body = random.Random(5), urlsplit(service.url), chat(stream=True)
    turns = asyncio.Semaphore(16)

    async def killed(number: int) -> None:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer service-key\r\n"
            f"X-OpenWebUI-User-Id: u{number % USERS}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with turns:
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(head.encode() + body)
            await asyncio.sleep(rng.uniform(0, 0.06))
            writer.transport.abort()

    await asyncio.gather(*(killed(number) for number in range(KILLED)))

    async def nothing_runs() -> bool:
        running = []
        for number in range(USERS):
            kept = await service.store.keep(DEFAULT_POOL, f"u{number}", running={})
            assert isinstance(kept, Kept)
            running.append(kept.running)
        return running == [0] * USERS

    await until(nothing_runs)
    assert upstream.seen
