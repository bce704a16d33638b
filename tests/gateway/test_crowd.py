"""More calls of one session than it may run at once, as of a page that asks five models, or of an
agent's helpers: who may wait is next when one of them ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from openai import RateLimitError
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, Status
from admission.gateway import gate, line
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
BEHIND = f": {words('en')['waiting']['others']}"


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
    await asyncio.gather(*running, return_exceptions=True)  # some were cut, with the session


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
    monkeypatch.setattr(line, "LOOK_S", 0.05)
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
        await sdk_says(service, 2, stream=False, **{"X-Vestibule-Wait": "1"})
    assert caught.value.code == "session_busy"
    assert caught.value.response.headers["X-Should-Retry"] == "false"


async def test_who_waits_longer_is_next(
    crowd: list[asyncio.Task[bytes]], service: Service, upstream: Upstream
) -> None:
    async with streaming(service, "ada") as first:
        await first.next()
        await asyncio.sleep(line.LOOK_S + 0.1)  # has looked once, and keeps its place
        async with streaming(service, "ada") as second:
            await second.next()
            crowd[0].cancel()
            assert "Your turn" in (await first.next() or "")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await second.next()


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
        assert await stream.next() == BEHIND
        await _session_ends(service)
        assert " in line" in (await stream.next() or "")
        assert await status_of(service, "ada") is Status.WAITING


async def test_also_one_that_waited_for_the_session_first(
    service: Service, upstream: Upstream
) -> None:
    await take_slot(service)
    async with AsyncExitStack() as stack:
        calls = AT_ONCE + 1
        all_ = [await stack.enter_async_context(streaming(service, "ada")) for _ in range(calls)]
        assert all([" 1st " in (await stream.next() or "") for stream in all_])
        await free_slot(service)
        said = {await stream.next(): stream for stream in all_}
        behind = said[BEHIND]  # the others run
        await _session_ends(service)
        assert " in line" in (await behind.next() or "")
        upstream.go.set()


async def _session_ends(service: Service) -> None:
    """Ada's, by its cap; the slot is bob's, at once or when what runs has finished."""
    service.clock.advance_ms(1000 * service.settings.session_duration - 1)
    await service.store.join(DEFAULT_POOL, "bob", ticket="b", auto_confirm=True)
    service.clock.advance_ms(1)
    await service.store.expire(DEFAULT_POOL)


async def test_when_the_user_leaves_it_does_not_join_again(
    crowd: list[asyncio.Task[bytes]], service: Service
) -> None:
    async with streaming(service, "ada") as stream:
        await stream.next()
        await service.store.leave(DEFAULT_POOL, "ada")
        assert data_of((await stream.rest())[-1])["error"]["code"] == "ticket_ended"
    assert await status_of(service, "ada") is Status.DISCONNECTED


async def test_only_so_many_calls_of_a_user_wait(
    crowd: list[asyncio.Task[bytes]], ada: Chatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "OF_USER_MAX", 0)
    reply = await ada.says(chat(), **WAITS)
    assert (reply.status, reply.json["error"]["code"]) == (429, "session_busy")
