"""What passes between the caller and the worker: every byte, when it comes, and nothing of ours."""

import asyncio
import gzip
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from aiohttp import ClientError, ClientPayloadError, web

from tests.api.calls import Reply, caller_of, raw_call, until
from tests.api.fleet import beat, look_again, register
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import CHAT, Chatter, Start, make_ready
from tests.gateway.upstream import ANSWER, CHUNKS, Upstream, chat, listening


async def test_models_are_those_of_the_ready_workers(service: Service, upstream: Upstream) -> None:
    await make_ready(service, "w2", upstream.url, model="large")
    await make_ready(service, "w3", upstream.url, model="asleep", ready=False)
    reply = (await caller_of(service)("GET", "/v1/models")).json
    assert reply["object"] == "list"
    assert [model["id"] for model in reply["data"]] == ["large", "tiny"]
    assert {"id", "object", "created", "owned_by"} == set(reply["data"][0])


async def test_body_and_answer_pass_byte_exact(ada: Chatter, upstream: Upstream) -> None:
    reply = await ada.says(chat(), CHAT + "?verbose=1")
    assert upstream.seen[0].body == chat()
    assert upstream.seen[0].path == CHAT + "?verbose=1"
    assert (reply.status, reply.text.encode()) == (200, ANSWER)
    assert reply.headers["X-Of-The-Model"] == "w1"


async def test_a_packed_body_arrives_as_what_it_says(ada: Chatter, upstream: Upstream) -> None:
    await ada.says(gzip.compress(chat()), **{"Content-Encoding": "gzip"})
    seen = upstream.seen[0]
    assert (seen.body, seen.headers.get("Content-Encoding")) == (chat(), None)


async def test_headers_nobody_knows_are_kept_and_ours_are_not(
    ada: Chatter, upstream: Upstream
) -> None:
    given = {
        "X-Custom": "kept",
        "X-Request-Id": "r-1",
        "Cookie": "a=1",
        "X-Vestibule-Message": "m1",
        "X-Vestibule-Task": "title",
        "X-OpenWebUI-User-Email": "ada@example.org",
        "Connection": "close, X-Hop",
        "X-Hop": "1",
    }
    await ada.says(chat(), **given)
    seen = upstream.seen[0].headers
    assert (seen["X-Custom"], seen["X-Request-Id"]) == ("kept", "r-1")
    gone = {"authorization", *ada.headers, *given} - {"X-Custom", "X-Request-Id", "Connection"}
    assert not {name.lower() for name in gone} & {name.lower() for name in seen}


async def test_nothing_is_added_that_the_caller_did_not_say(
    service: Service, ada: Chatter, upstream: Upstream
) -> None:
    body = chat()
    await raw_call(
        service,
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Authorization: Bearer service-key\r\nX-OpenWebUI-User-Id: ada\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
    )
    seen = {name.lower() for name in upstream.seen[0].headers}
    assert seen == {"host", "x-request-id", "content-length"}


async def test_an_address_in_the_request_line_leads_nowhere_else(
    service: Service, ada: Chatter, upstream: Upstream
) -> None:
    body = chat()
    answer = await raw_call(
        service,
        b"POST http://evil.example/v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Authorization: Bearer service-key\r\nX-OpenWebUI-User-Id: ada\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
    )
    assert answer.startswith(b"HTTP/1.1 200")
    assert upstream.seen[0].path == CHAT


async def test_an_agent_is_called_with_its_upstream_key(service: Service, ada: Chatter) -> None:
    async with listening("agent") as agent:
        worker = caller_of(service, service.worker_token)
        secrets = (await register(worker, agent.url)).json
        await beat(worker.with_key(secrets["token"]))
        await look_again(service)
        assert (await ada.says(chat())).status == 200
    assert agent.seen[0].headers["Authorization"] == f"Bearer {secrets['upstream_key']}"


async def test_the_first_chunk_comes_before_the_last_is_sent(
    ada: Chatter, upstream: Upstream
) -> None:
    async with asyncio.timeout(DEADLINE_S), ada.streams() as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert await response.content.readany() == CHUNKS[0]
        assert not upstream.go.is_set()
        upstream.go.set()
        assert await response.content.read() == b"".join(CHUNKS[1:])


async def test_a_caller_who_goes_away_ends_the_answer_at_the_worker(
    ada: Chatter, upstream: Upstream
) -> None:
    async with ada.streams() as response:
        await response.content.readany()
        response.close()
        async with asyncio.timeout(2):
            await upstream.canceled.wait()


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
async def test_what_the_worker_refuses_is_passed_on_as_it_is(
    ada: Chatter, upstream: Upstream, status: int
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, body=b'{"x":  1}', headers={"Retry-After": "7"})

    upstream.act = refuse
    reply = await ada.says(chat())
    assert (reply.status, reply.text, reply.headers["Retry-After"]) == (status, '{"x":  1}', "7")


async def test_the_worker_does_not_decide_which_pages_may_read(
    ada: Chatter, upstream: Upstream
) -> None:
    async def generous(_: web.Request) -> web.Response:
        return web.Response(headers={"Access-Control-Allow-Origin": "*"})

    upstream.act = generous
    reply = await ada.says(chat(), Origin="https://evil.example.org")
    assert "Access-Control-Allow-Origin" not in reply.headers


async def test_half_an_answer_does_not_look_like_a_whole_one(
    ada: Chatter, upstream: Upstream
) -> None:
    upstream.act = upstream.break_off
    async with ada.streams() as response:
        await response.content.readany()
        upstream.go.set()
        with pytest.raises(ClientPayloadError):
            await response.content.read()


async def test_a_worker_that_breaks_off_before_its_answer_is_502(
    ada: Chatter, upstream: Upstream
) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    upstream.act = hang_up
    reply = await ada.says(chat())
    assert (reply.status, reply.json["error"]["code"]) == (502, "bad_gateway")


@pytest.mark.parametrize(
    "answer",
    [
        b"SECRET is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"SECRET" * 2000 + b"\r\n\r\n",
        b"HTTP/1.1 101 SECRET\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nSECRET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\n",
    ],
)
async def test_a_worker_that_breaks_http_is_502_and_its_words_are_not_logged(
    service: Service, ada: Chatter, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    async def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await make_ready(service, "w1", f"http://127.0.0.1:{port}")
    with suppress(ClientError):  # an answer whose head has gone out can only be cut
        assert (await ada.says(chat())).status in (204, 502)
    assert "SECRET" not in caplog.text
    server.close()
    await server.wait_closed()


async def test_the_worker_with_the_fewest_requests_gets_the_next(
    service: Service, start: Start, ada: Chatter
) -> None:
    workers = [await start(name) for name in ("w1", "w2", "w3")]
    busy = []
    for number in range(3):
        busy.append(asyncio.create_task(_streamed(ada)))
        await until(lambda so_far=number: _seen(workers, so_far + 1))  # type: ignore[misc]
    assert [len(worker.seen) for worker in workers] == [1, 1, 1]
    first_free = workers[1]  # whichever of the three answers it
    first_free.go.set()
    await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
    again = await ada.says(chat(), "/v1/score")
    assert again.headers["X-Of-The-Model"] == first_free.name
    for worker in workers:
        worker.go.set()
    await asyncio.gather(*busy)


async def _streamed(user: Chatter) -> bytes:
    """Of what belongs to no conversation, which would stay with its worker."""
    async with user.streams("/v1/score") as response:
        return await response.content.read()


async def _seen(workers: list[Upstream], number: int) -> bool:
    return sum(len(worker.seen) for worker in workers) >= number


async def test_a_worker_that_refuses_connections_is_passed_over(
    service: Service, start: Start, ada: Chatter
) -> None:
    await start("w2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    await make_ready(service, "w1", f"http://127.0.0.1:{port}")
    assert (await ada.says(chat())).headers["X-Of-The-Model"] == "w2"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that answers no attempt to connect: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(8)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for client in waiting:
            client.close()


async def test_a_worker_that_does_not_answer_a_connection_is_passed_over(
    service: Service, start: Start, ada: Chatter, black_hole: str
) -> None:
    await start("w2")
    await make_ready(service, "w1", black_hole)
    assert (await ada.says(chat())).headers["X-Of-The-Model"] == "w2"


async def test_no_worker_that_can_be_reached_is_503(service: Service, ada: Chatter) -> None:
    await make_ready(service, "w1", "http://127.0.0.1:1")
    reply: Reply = await ada.says(chat())
    assert (reply.status, reply.json["error"]["code"]) == (503, "no_ready_worker")
    assert int(reply.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("status", [301, 307, 308])
async def test_where_a_worker_would_send_its_callers_stays_inside(
    upstream: Upstream, ada: Chatter, status: int
) -> None:
    async def leads_elsewhere(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": "http://10.0.0.7:8000/v1/x"})

    upstream.act = leads_elsewhere
    reply = await ada.says(chat())
    assert (reply.status, reply.json["error"]["code"]) == (502, "bad_gateway")
    assert "10.0.0.7" not in f"{reply.headers}{reply.text}"
