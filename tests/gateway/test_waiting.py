"""A call that waits its turn in the connection: how long, what it hears, and that it leaves."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientPayloadError, web
from openai import APIError, RateLimitError
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, Status
from admission.gateway import memory
from tests.api.calls import caller_of, contents
from tests.api.conftest import served_at
from tests.conftest import Service
from tests.frontends.conftest import Model
from tests.frontends.test_chat import another
from tests.gateway.conftest import Chatter, make_ready
from tests.gateway.upstream import CHUNKS, Upstream, chat, listening
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


@pytest.fixture
def limits() -> dict[str, float]:
    return {}


@pytest.fixture
async def patient(
    valkey: str, redis: Redis, clock: ManualClock, limits: dict[str, float]
) -> AsyncIterator[Service]:
    """A service with VESTIBULE_WHEN_FULL=wait and a ready worker."""
    changes = {"VESTIBULE_WHEN_FULL": "wait", "VESTIBULE_PRIORITIES": "vip=600"}
    async with served_at(valkey, clock, limits, **changes) as service, listening("w1") as worker:
        worker.go.set()
        await make_ready(service, "w1", worker.url)
        yield service


@pytest.mark.parametrize(("streams", "answer"), [(True, "Héllo there"), (False, "café")])
async def test_an_sdk_waits_its_turn_and_reads_the_answer(
    service: Service, upstream: Upstream, streams: bool, answer: str
) -> None:
    if streams:
        Model(upstream)  # chunks that an SDK can read
    await take_slot(service)
    asking = asyncio.create_task(sdk_says(service, stream=streams, **WAITS))
    await waiting(service, 1)
    await free_slot(service)
    assert await asking == answer


async def test_places_are_told_in_comments_and_then_the_answer_comes_byte_exact(
    service: Service, upstream: Upstream
) -> None:
    upstream.go.set()
    await take_slot(service)
    await service.store.join(DEFAULT_POOL, "second", ticket="t2", client="c")
    async with streaming(service, "ada", {"Accept-Language": "fr"}) as stream:
        assert stream.response.headers["Content-Type"] == "text/event-stream"
        assert stream.response.headers["X-Accel-Buffering"] == "no"
        assert (await stream.next() or "").startswith(": Position 2 dans la file, ")
        await service.store.leave(DEFAULT_POOL, "second", client="c")
        assert (await stream.next() or "").startswith(": Position 1 dans la file, ")
        await free_slot(service)
        assert (await stream.next() or "") == ": C’est à vous. Attente\u00a0: 1 s."
        assert await stream.response.content.read() == b"".join(CHUNKS)
    assert upstream.seen[0].body.endswith(chat(stream=True)[1:])
    assert await status_of(service, "ada") is Status.ACTIVE


async def test_an_answer_that_finishes_after_its_session_does_not_wait_and_another_does(
    service: Service, upstream: Upstream
) -> None:
    upstream.go.set()
    store, session_ms = service.store, service.settings.session_duration * 1000
    await store.join(DEFAULT_POOL, "ada", ticket="t1", auto_confirm=True, client="m1")
    await store.heartbeat(DEFAULT_POOL, "ada", client="m1")
    service.clock.advance_ms(session_ms - 1)
    await store.heartbeat(DEFAULT_POOL, "ada", client="m1")
    service.clock.advance_ms(1)
    async with streaming(service, "ada", {"X-Vestibule-Message": "m1"}) as stream:
        assert await stream.response.content.read() == b"".join(CHUNKS)
    assert await status_of(service, "ada") is Status.DISCONNECTED
    async with streaming(service, "ada", {"X-Vestibule-Message": "m2"}) as stream:
        await stream.next()
        assert await status_of(service, "ada") is Status.WAITING
    assert len(upstream.seen) == 1


@pytest.mark.usefixtures("pings_often")
async def test_who_waits_long_gets_signs_of_life(service: Service, upstream: Upstream) -> None:
    await take_slot(service)
    async with streaming(service, "ada") as stream:
        assert (await stream.next() or "").startswith(": You are 1st")
        assert await stream.next() == ": ping"


async def test_who_is_admitted_at_once_gets_the_models_own_head(
    ada: Chatter, upstream: Upstream
) -> None:
    reply = await ada.says(chat(), **WAITS)
    assert (reply.status, reply.headers["X-Of-The-Model"]) == (200, "w1")
    upstream.go.set()
    async with ada.streams(**WAITS) as response:
        assert await response.content.read() == b"".join(CHUNKS)


async def test_a_free_slot_is_taken_at_once(service: Service, upstream: Upstream) -> None:
    reply = await Chatter(caller_of(service), "bob").says(chat(), **WAITS)
    assert (reply.status, reply.headers["X-Of-The-Model"]) == (200, "w1")
    assert await status_of(service, "bob") is Status.ACTIVE


async def test_zero_does_not_wait_whatever_the_setting(patient: Service, redis: Redis) -> None:
    before = await contents(redis)
    reply = await Chatter(caller_of(patient), "bob").says(chat(), **{"X-Vestibule-Wait": "0"})
    assert (reply.status, reply.json["error"]["code"]) == (429, "no_session")
    assert await contents(redis) == before


async def test_a_service_may_let_everybody_wait(patient: Service) -> None:
    await take_slot(patient)
    asking = asyncio.create_task(Chatter(caller_of(patient), "bob").says(chat()))
    await waiting(patient, 1)
    await free_slot(patient)
    assert (await asking).status == 200


async def test_a_call_waits_in_its_users_class(patient: Service) -> None:
    admin = caller_of(patient, patient.admin_key)
    await admin("PUT", "/admin/priorities/ada", {"priority": "vip"})
    await take_slot(patient)
    await patient.store.join(DEFAULT_POOL, "bob", ticket="t2")
    async with streaming(patient, "ada", WAITS) as stream:
        assert (await stream.next() or "").startswith(": You are 1st ")


@pytest.mark.parametrize("streams", [True, False])
async def test_the_time_is_over_and_nothing_is_left_behind(
    service: Service, upstream: Upstream, streams: bool
) -> None:
    await take_slot(service)
    with pytest.raises(APIError if streams else RateLimitError) as caught:
        await sdk_says(service, stream=streams, **{"X-Vestibule-Wait": "1"})
    assert caught.value.code == "wait_over"
    assert "number 1" in caught.value.message
    assert isinstance(caught.value.body, dict)
    assert (caught.value.body["position"], caught.value.body["estimated_wait"]) == (1, 1200)
    if isinstance(caught.value, RateLimitError):
        assert caught.value.response.headers["Retry-After"] == "1200"
    await waiting(service, 0)
    assert await status_of(service, "ada") is Status.DISCONNECTED


@pytest.mark.parametrize("limits", [{"session_duration": 5}])
async def test_an_sdk_does_not_wait_again_by_itself(patient: Service) -> None:
    """It tries three times by default where it need not wait long before, and would be last in line
    each time."""
    await take_slot(patient)
    with pytest.raises(RateLimitError) as caught:
        await sdk_says(patient, 2, stream=False, **{"X-Vestibule-Wait": "1"})
    assert caught.value.code == "wait_over"
    assert int(caught.value.response.headers["Retry-After"]) == 5
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"


@pytest.mark.parametrize("limits", [{"wait_limit": 0.1}])
async def test_the_settings_limit_ends_the_wait(patient: Service) -> None:
    await take_slot(patient)
    reply = await Chatter(caller_of(patient), "bob").says(chat())
    assert (reply.status, reply.json["error"]["code"]) == (429, "wait_over")


@pytest.mark.parametrize("value", ["-1", "1.5", "soon", "3601", "1e3", "000000001"])
async def test_a_wait_that_cannot_be_is_400_and_joins_nobody(
    service: Service, upstream: Upstream, value: str
) -> None:
    reply = await Chatter(caller_of(service), "bob").says(chat(), **{"X-Vestibule-Wait": value})
    assert (reply.status, reply.json["error"]["param"]) == (400, "X-Vestibule-Wait")
    assert await status_of(service, "bob") is None


@pytest.mark.parametrize("header", ["X-Vestibule-Ticket", "X-Vestibule-Task"])
async def test_a_header_that_is_no_name_is_400(
    service: Service, upstream: Upstream, header: str
) -> None:
    reply = await Chatter(caller_of(service), "bob").says(chat(), **{header: "a b"})
    assert (reply.status, reply.json["error"]["param"]) == (400, header)


@pytest.mark.parametrize("streams", [True, False])
async def test_a_client_that_goes_away_leaves_the_queue(
    service: Service, upstream: Upstream, streams: bool
) -> None:
    await take_slot(service)
    bob = Chatter(caller_of(service), "bob")
    asking = asyncio.create_task(bob.says(chat(stream=streams), **WAITS))
    await waiting(service, 1)
    asking.cancel()
    await waiting(service, 0)
    assert await status_of(service, "bob") is Status.DISCONNECTED
    assert not upstream.seen


async def test_one_of_two_waiting_chats_goes_and_the_place_stays(
    service: Service, upstream: Upstream
) -> None:
    upstream.go.set()
    await take_slot(service)
    async with streaming(service, "ada", {"X-Vestibule-Message": "m1"}) as first:
        await first.next()
        async with streaming(service, "ada", {"X-Vestibule-Message": "m2"}) as second:
            await second.next()
            second.response.close()
        await asyncio.gather(*(service.store.status(DEFAULT_POOL, "ada") for _ in range(20)))
        assert await status_of(service, "ada") is Status.WAITING
        await free_slot(service)
        assert "data: [DONE]" in await first.rest()


async def test_a_call_joins_the_place_its_user_has_and_leaves_it_to_the_others(
    service: Service, upstream: Upstream
) -> None:
    await take_slot(service)
    await service.store.join(DEFAULT_POOL, "ada", ticket="t2", client="tab")
    await service.store.join(DEFAULT_POOL, "bob", ticket="t3", client="tab")
    reply = await Chatter(caller_of(service), "ada").says(chat(), **{"X-Vestibule-Wait": "1"})
    assert (reply.json["error"]["code"], reply.json["error"]["position"]) == ("wait_over", 1)
    assert await status_of(service, "ada") is Status.WAITING


async def test_an_offered_slot_is_taken(service: Service, upstream: Upstream) -> None:
    await service.store.join(DEFAULT_POOL, "bob", ticket="t1")
    assert await status_of(service, "bob") is Status.DRAFT
    reply = await Chatter(caller_of(service), "bob").says(chat(), **WAITS)
    assert reply.status == 200
    assert await status_of(service, "bob") is Status.ACTIVE


async def test_an_offer_that_comes_while_waiting_is_taken(
    service: Service, upstream: Upstream
) -> None:
    upstream.go.set()
    await take_slot(service)
    async with streaming(service, "ada") as stream:
        await stream.next()
        service.clock.advance_ms(61_000)  # its presence lapsed: a draft, no session
        await service.store.join(DEFAULT_POOL, "ada", ticket="t", client="tab")
        await free_slot(service)
        assert "data: [DONE]" in await stream.rest()
    assert await status_of(service, "ada") is Status.ACTIVE


async def test_a_turn_that_ends_while_waiting_is_said(service: Service, upstream: Upstream) -> None:
    await take_slot(service)
    async with streaming(service, "ada") as stream:
        await stream.next()
        await service.store.cancel(DEFAULT_POOL, "ada")
        (last,) = await stream.rest()
    assert data_of(last)["error"]["code"] == "ticket_ended"


async def _refuses(_: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "16385 tokens are too many"}}, status=400)


async def _fails(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="SECRET")


async def _does_not_stream(_: web.Request) -> web.StreamResponse:
    return web.json_response({"choices": []})


async def _hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        (_refuses, "model_refused", "16385 tokens are too many"),
        (_fails, "bad_gateway", "no answer"),
        (_does_not_stream, "bad_gateway", "no answer"),
        (_hangs_up, "bad_gateway", "no answer"),
    ],
)
async def test_after_the_stream_has_begun_an_error_is_told_in_it(
    service: Service, upstream: Upstream, act: object, code: str, said: str
) -> None:
    upstream.act = act  # type: ignore[assignment]
    await take_slot(service)
    async with streaming(service, "ada") as stream:
        await stream.next()  # who is freed before is refused with a status of HTTP
        await free_slot(service)
        error = data_of((await stream.rest())[-1])["error"]
    assert error["code"] == code
    assert said in error["message"]
    assert "SECRET" not in error["message"]


async def test_a_worker_that_went_away_meanwhile_is_told_in_the_stream(
    service: Service, upstream: Upstream
) -> None:
    await take_slot(service)
    async with streaming(service, "ada") as stream:
        await stream.next()
        await make_ready(service, "w1", upstream.url, ready=False)
        await free_slot(service)
        last = (await stream.rest())[-1]
    assert data_of(last)["error"]["code"] == "no_ready_worker"


async def test_a_session_that_ends_before_the_model_answers_is_told_in_the_stream(
    service: Service, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def think(_: web.Request) -> web.StreamResponse:
        await upstream.go.wait()
        return web.Response()

    monkeypatch.setattr(memory, "RENEW_S", 0.05)
    upstream.act = think
    await take_slot(service)
    async with streaming(service, "ada") as stream:
        await stream.next()
        await free_slot(service)
        await upstream.begun.wait()
        await service.store.cancel(DEFAULT_POOL, "ada")
        last = (await stream.rest())[-1]
    assert data_of(last)["error"]["code"] == "session_over"


async def test_a_service_that_stops_says_so_and_keeps_the_place(
    service: Service, redis: Redis, clock: ManualClock, upstream: Upstream
) -> None:
    await take_slot(service)
    async with another(redis, clock) as (other, runner):
        await make_ready(other, "w1", upstream.url)
        async with streaming(other, "ada") as stream:
            await stream.next()
            stopping = asyncio.create_task(runner.cleanup())
            last = (await stream.rest())[-1]
            await stopping
    assert data_of(last)["error"]["code"] == "closing"
    assert await status_of(service, "ada") is Status.WAITING


async def test_an_answer_that_breaks_off_after_a_wait_is_cut(
    service: Service, upstream: Upstream
) -> None:
    upstream.act = upstream.break_off
    await take_slot(service)
    async with streaming(service, "ada") as stream:
        await stream.next()
        await free_slot(service)
        await upstream.begun.wait()
        upstream.go.set()
        with pytest.raises(ClientPayloadError):
            await stream.rest()


async def test_an_answer_after_a_wait_comes_unpacked(service: Service, upstream: Upstream) -> None:
    """Its head, which would name the encoding, has gone out before."""
    upstream.go.set()
    await take_slot(service)
    async with streaming(service, "ada", {"Accept-Encoding": "gzip"}) as stream:
        await stream.next()
        await free_slot(service)
        await stream.rest()
    assert upstream.seen[0].headers["Accept-Encoding"] == "identity"
