"""More calls of one session than it may run at once, as of a page that asks five models, or of an
agent's helpers: who may wait is next when one of them ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from openai import RateLimitError
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, Status
from admission.gateway import gate, memory
from admission.outcomes import Kept
from admission.pages.words import words
from tests.api.calls import until
from tests.conftest import Service
from tests.frontends.test_chat import another
from tests.gateway.conftest import Chatter, make_ready
from tests.gateway.test_page import ON_PAGE, next_status
from tests.gateway.upstream import CHUNKS, Upstream, chat
from tests.gateway.waiters import (
    WAITS,
    data_of,
    free_slot,
    sdk_says,
    status_of,
    streaming,
    take_slot,
    waiting,
)

AT_ONCE = 4  # VESTIBULE_SESSION_CONCURRENCY


@pytest.fixture
async def crowd(upstream: Upstream, ada: Chatter) -> AsyncIterator[list[asyncio.Task[bytes]]]:
    """As many answers of ada's session as may run; each ends when ``upstream.go`` is set."""

    async def read() -> bytes:
        async with ada.streams() as response:
            return await response.content.read()

    running = [asyncio.create_task(read()) for _ in range(AT_ONCE)]
    await until(lambda: _seen(upstream, AT_ONCE))
    yield running
    upstream.go.set()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*running)


async def _seen(upstream: Upstream, number: int) -> bool:
    return len(upstream.seen) == number


async def test_a_call_that_may_wait_is_next_when_another_ends(
    crowd: list[asyncio.Task[bytes]], upstream: Upstream, ada: Chatter
) -> None:
    asking = asyncio.create_task(ada.says(chat(), **WAITS))
    await asyncio.sleep(0.1)
    assert (len(upstream.seen), asking.done()) == (AT_ONCE, False)
    crowd[0].cancel()
    assert (await asking).status == 200
    assert len(upstream.seen) == AT_ONCE + 1


async def test_it_is_told_why_it_waits_and_then_answered(
    crowd: list[asyncio.Task[bytes]], service: Service, upstream: Upstream
) -> None:
    async with streaming(service, "ada", ON_PAGE) as stream:
        assert await next_status(stream) == {
            "description": words("en")["waiting"]["others"],
            "done": False,
        }
        upstream.go.set()
        assert (await next_status(stream))["done"] is True
        assert await stream.response.content.read() == b"".join(CHUNKS)


@pytest.mark.usefixtures("pings_often")
async def test_it_gets_signs_of_life(
    crowd: list[asyncio.Task[bytes]], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "TRUST_S", 0.05)  # which is how often it looks again
    async with streaming(service, "ada") as stream:
        await stream.next()
        assert await stream.next() == ": ping"


async def test_a_service_that_stops_says_so(
    crowd: list[asyncio.Task[bytes]],
    service: Service,
    redis: Redis,
    clock: ManualClock,
    upstream: Upstream,
) -> None:
    async with another(redis, clock) as (other, runner):
        await make_ready(other, "w1", upstream.url)
        await _told(service, "ada", AT_ONCE)
        async with streaming(other, "ada") as stream:
            await stream.next()
            stopping = asyncio.create_task(runner.cleanup())
            last = (await stream.rest())[-1]
            await stopping
    assert data_of(last)["error"]["code"] == "closing"


async def _told(service: Service, user: str, number: int) -> None:
    """Returns when Redis knows that so many of ``user``'s requests run."""

    async def so_many() -> bool:
        kept = await service.store.keep(DEFAULT_POOL, user, running={})
        return isinstance(kept, Kept) and kept.running == number

    await until(so_many)


@pytest.mark.parametrize("streams", [True, False])
async def test_its_time_is_over(
    crowd: list[asyncio.Task[bytes]], service: Service, streams: bool
) -> None:
    if streams:
        async with streaming(service, "ada", {"X-Vestibule-Wait": "1"}) as stream:
            *_, last = await stream.rest()
        assert data_of(last)["error"]["code"] == "session_busy"
        return
    with pytest.raises(RateLimitError) as caught:
        await sdk_says(service, stream=False, **{"X-Vestibule-Wait": "1"})
    assert caught.value.code == "session_busy"


async def test_of_all_that_wait_for_a_turn_the_first_run_and_the_others_follow(
    service: Service, upstream: Upstream
) -> None:
    await take_slot(service)
    asking = [asyncio.create_task(_read(service, f"m{n}")) for n in range(AT_ONCE + 2)]
    await waiting(service, 1)
    await free_slot(service)
    await until(lambda: _seen(upstream, AT_ONCE))
    upstream.go.set()
    assert all([b"[DONE]" in answer for answer in await asyncio.gather(*asking)])
    assert await status_of(service, "ada") is Status.ACTIVE


async def _read(service: Service, message: str) -> bytes:
    async with streaming(service, "ada", {"X-Vestibule-Message": message}) as stream:
        return await stream.response.content.read()


async def test_when_the_session_ends_meanwhile_it_waits_for_another(
    crowd: list[asyncio.Task[bytes]], service: Service
) -> None:
    async with streaming(service, "ada") as stream:
        assert await stream.next() == f": {words('en')['waiting']['others']}"
        await service.store.join(DEFAULT_POOL, "bob", ticket="b", auto_confirm=True)
        await service.store.leave(DEFAULT_POOL, "ada")
        assert " 2nd " in (await stream.next() or "")  # behind bob, once what runs has finished
        assert await status_of(service, "ada") is Status.WAITING


async def test_only_so_many_calls_of_a_user_wait(
    crowd: list[asyncio.Task[bytes]], ada: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "OF_USER_MAX", 0)
    reply = await ada.says(chat(), **WAITS)
    assert (reply.status, reply.json["error"]["code"]) == (429, "session_busy")
