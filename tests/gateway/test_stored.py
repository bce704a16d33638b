"""What a worker keeps of an answer is found by its id, whichever worker has it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from aiohttp import ClientPayloadError, web

from tests.api.calls import Caller, Reply, caller_of
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import Chatter, make_ready
from tests.gateway.shelf import MISSING, Shelf, shelf
from tests.gateway.upstream import CHUNKS, Act, Upstream, chat

Put = Callable[..., Awaitable[Shelf]]
BOB = {"X-OpenWebUI-User-Id": "bob"}  # who has no turn, and needs none
R1 = "/v1/responses/r1"
CALLS = [("GET", R1), ("DELETE", R1), ("GET", R1 + "/input_items"), ("POST", R1 + "/cancel")]


@pytest.fixture
async def put(service: Service) -> AsyncIterator[Put]:
    """Starts a worker that keeps the responses of these ids."""
    async with AsyncExitStack() as stack:

        async def begin(name: str, *kept: str) -> Shelf:
            return await stack.enter_async_context(shelf(service, name, *kept))

        yield begin


@pytest.fixture
def call(service: Service) -> Caller:
    return caller_of(service)


async def get(call: Caller, path: str = R1) -> Reply:
    async with asyncio.timeout(DEADLINE_S):
        return await call("GET", path, headers=BOB)


def says(status: int) -> Act:
    async def act(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="of mine")

    return act


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize("owner", ["w1", "w2"])
async def test_the_worker_that_has_it_answers_byte_exact(
    put: Put, call: Caller, method: str, path: str, owner: str
) -> None:
    shelves = {name: await put(name, *(["r1"] if name == owner else [])) for name in ("w1", "w2")}
    reply = await call(method, path + "?include=a%2Fb", headers={**BOB, "X-Request-Id": "id-1"})
    assert (reply.status, reply.headers["X-Of-The-Model"]) == (200, owner)
    assert reply.text.startswith('{\n   "')
    here = shelves[owner]
    assert here.seen == [(method, path + "?include=a%2Fb")]
    assert here.headers
    assert here.headers["X-Request-Id"] == "id-1"
    assert not {"Authorization", "X-OpenWebUI-User-Id"} & {*here.headers}


async def test_who_may_is_as_of_any_call(put: Put, call: Caller) -> None:
    worker = await put("w1", "r1")
    for method, path in CALLS:
        assert (await call.with_key("nobody's")(method, path)).status == 401
        nobody = await call(method, path)
        assert (nobody.status, nobody.json["error"]["code"]) == (400, "user_missing")
    assert not worker.seen


async def test_what_all_say_nobody_has_is_passed_on_as_the_last_says_it(
    put: Put, call: Caller
) -> None:
    shelves = [await put("w1"), await put("w2")]
    reply = await get(call)
    assert (reply.status, reply.text.encode()) == (404, MISSING)
    assert [len(each.seen) for each in shelves] == [1, 1]


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_worker_without_such_calls_hides_nothing(
    put: Put, call: Caller, status: int
) -> None:
    for name in ("w1", "w3"):
        (await put(name)).act = says(status)
    await put("w2", "r1")
    assert (await get(call)).status == 200
    assert (await get(call, "/v1/responses/r2")).status in (404, status)


@pytest.mark.parametrize("status", [400, 422, 500])
async def test_any_other_answer_is_the_owners(put: Put, call: Caller, status: int) -> None:
    """vLLM says 400 when what shall be cancelled does not run."""
    shelves = [await put("w1"), await put("w2")]
    for each in shelves:
        each.act = says(status)
    reply = await call("POST", R1 + "/cancel", headers=BOB)
    assert (reply.status, reply.text) == (status, "of mine")
    assert sum(len(each.seen) for each in shelves) == 1


# --- Workers that say nothing ---------------------------------------------------------------------


async def test_an_unreachable_worker_is_passed_over_and_not_taken_for_a_no(
    service: Service, put: Put, call: Caller
) -> None:
    await make_ready(service, "w1", "http://127.0.0.1:1")
    await put("w2", "r1")
    assert (await get(call)).status == 200
    for path in ("/v1/responses/r2", "/v1/responses/r3"):
        reply = await get(call, path)
        assert (reply.status, reply.json["error"]["code"]) == (503, "no_ready_worker")
        assert int(reply.headers["Retry-After"]) >= 1


async def test_a_full_worker_is_passed_over(put: Put, call: Caller) -> None:
    (await put("w1")).act = says(503)
    await put("w2", "r1")
    assert (await get(call)).status == 200
    assert (await get(call, "/v1/responses/r2")).status == 503


async def test_a_worker_that_hangs_hides_nothing(
    put: Put, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admission.gateway.stored.ASK_TIMEOUT_S", 0.2)

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    (await put("w1")).act = hang
    await put("w2", "r1")
    assert (await get(call)).status == 200
    reply = await get(call, "/v1/responses/r2")
    assert (reply.status, reply.json["error"]["code"]) == (504, "upstream_timeout")


async def test_an_endless_no_is_no_answer(put: Put, call: Caller) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=404)
        await response.prepare(request)
        while True:
            await response.write(bytes(65_536))

    (await put("w1")).act = endless
    reply = await get(call)
    assert (reply.status, reply.json["error"]["code"]) == (502, "bad_gateway")


async def test_without_a_worker_there_is_nobody_to_ask(call: Caller) -> None:
    reply = await get(call)
    assert (reply.status, reply.json["error"]["code"]) == (503, "no_ready_worker")


async def test_a_worker_that_cannot_be_reached_is_asked_last(
    service: Service, put: Put, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admission.gateway.trouble.REST_S", 60)
    monkeypatch.setattr("admission.gateway.trouble.REST_MAX_S", 60)
    with_it = [await put("w1", "r1"), await put("w2", "r1"), await put("w3", "r1")]
    first = await get(call)
    away = next(each for each in with_it if each.name == first.headers["X-Of-The-Model"])

    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    away.act = hang_up
    for _ in range(3):
        assert (await get(call)).status == 200
    assert len(away.seen) == 2


# --- Streams --------------------------------------------------------------------------------------


async def test_events_are_followed_as_they_come(put: Put, call: Caller) -> None:
    await put("w1")
    worker = await put("w2", "r1")
    path = R1 + "?stream=true&starting_after=3"
    async with asyncio.timeout(DEADLINE_S), call.open("GET", path, headers=BOB) as response:
        assert response.content_type == "text/event-stream"
        assert await response.content.readany() == CHUNKS[0]
        worker.go.set()
        assert await response.content.read() == b"".join(CHUNKS[1:])
    assert worker.seen == [("GET", path)]


async def test_who_goes_away_ends_the_workers_stream(put: Put, call: Caller) -> None:
    worker = await put("w1", "r1")
    async with call.open("GET", R1 + "?stream=true", headers=BOB) as response:
        await response.content.readany()
        response.close()
    async with asyncio.timeout(DEADLINE_S):
        await worker.canceled.wait()


async def test_half_a_stream_does_not_look_like_a_whole_one(put: Put, call: Caller) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(CHUNKS[0])
        assert request.transport is not None
        request.transport.abort()
        return response

    (await put("w1")).act = break_off
    async with call.open("GET", R1 + "?stream=true", headers=BOB) as response:
        with pytest.raises(ClientPayloadError):
            await response.content.read()


# --- What does not pass ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files"),
        ("GET", "/v1/batches"),
        ("GET", "/v1/files/f1/content"),
        ("DELETE", "/v1/files/f1"),
        ("GET", "/v1/chat/completions/c1"),
        ("PUT", R1),
        ("HEAD", R1),
    ],
)
async def test_what_names_neither_a_model_nor_a_response_is_told_why(
    put: Put, call: Caller, method: str, path: str
) -> None:
    worker = await put("w1", "r1")
    reply = await call(method, path, headers=BOB)
    assert reply.status == 404
    assert "Allow" not in reply.headers
    if method != "HEAD":
        error = reply.json["error"]
        assert (error["code"], error["type"]) == ("no_such_path", "invalid_request_error")
        assert f"{method} {path} is not passed on: it names no model" in error["message"]
    assert not worker.seen


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/a.b", R1 + "/", "/v1/responses/a.b"])
async def test_all_of_v1_speaks_as_openai_does(service: Service, call: Caller, path: str) -> None:
    reply = await call("GET", path)
    assert (reply.status, reply.kind) == (404, "application/json")
    assert reply.json["error"]["code"] == "no_such_path"


async def test_a_list_of_all_responses_is_not_for_this_path(call: Caller) -> None:
    reply = await call("GET", "/v1/responses", headers=BOB)
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")
    assert reply.json["error"]["code"] == "method_not_allowed"


RUNS_ON = chat()[:-1] + b', "background": true}'


async def test_what_would_run_on_after_its_turn_is_refused(
    upstream: Upstream, ada: Chatter
) -> None:
    reply = await ada.says(RUNS_ON, "/v1/responses")
    assert (reply.status, reply.json["error"]["param"]) == (400, "background")
    assert not upstream.seen
    not_so = RUNS_ON.replace(b"true}", b"false}")
    assert (await ada.says(not_so, "/v1/responses")).status == 200
    # Of a picture it is what stands behind.
    assert (await ada.says(RUNS_ON, "/v1/images/generations")).status == 200
