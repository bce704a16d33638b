"""Which calls reach a worker, by what, and what callers hear of those that do not."""

import asyncio
import json

import pytest
from aiohttp import FormData, web

from admission.domain import DEFAULT_POOL
from admission.gateway import multipart, tasks
from tests.api.calls import caller_of, raw_call
from tests.conftest import DEADLINE_S, Service
from tests.gateway.conftest import Chatter, Start, make_ready
from tests.gateway.upstream import ANSWER, Upstream, chat
from tests.gateway.waiters import take_slot

GATED = [
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/rerank",
    "/v1/audio/speech",
    "/v1/chat/completions/render",
    "/v1/what-comes-next/v2",
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/embeddings",
]


@pytest.mark.parametrize("path", GATED)
async def test_whatever_a_worker_offers_is_gated_and_passed_byte_exact(
    service: Service, upstream: Upstream, ada: Chatter, path: str
) -> None:
    refused = await Chatter(caller_of(service), "bob").says(chat(), path)
    assert refused.status == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert not upstream.seen
    reply = await ada.says(chat(), path + "?a=%2F")
    assert (reply.status, reply.text.encode()) == (200, ANSWER)
    seen = upstream.seen[0]
    assert (seen.path, seen.body) == (path + "?a=%2F", chat())


async def test_counting_tokens_needs_no_turn_and_takes_none(
    service: Service, upstream: Upstream
) -> None:
    bob = Chatter(caller_of(service), "bob")
    reply = await bob.says(chat(), "/v1/messages/count_tokens")
    assert (reply.status, reply.text.encode()) == (200, ANSWER)
    assert (await bob.says(chat(), "/v1/messages")).status == 429


async def test_of_one_user_only_so_many_calls_count_tokens_at_once(
    service: Service, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "OF_USER_MAX", 0)
    reply = await Chatter(caller_of(service), "bob").says(chat(), "/v1/messages/count_tokens")
    assert (reply.status, reply.json["error"]["code"]) == (429, "too_many_counts")
    assert not upstream.seen


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../metrics",
        "/v1/..%2fmetrics",
        "/v1/%2e%2e/metrics",
        "/v1/x/.%2e/y",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/v1//load_lora_adapter",
        "/v1/load_lora_adapter/",
        "/v1/%2Fload_lora_adapter",
    ],
)
async def test_nobody_gets_past_v1_or_acts_as_the_operator(
    service: Service, upstream: Upstream, ada: Chatter, path: str
) -> None:
    body = chat()
    answer = await raw_call(
        service,
        b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Authorization: Bearer service-key\r\nX-OpenWebUI-User-Id: ada\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body),
    )
    assert answer.split()[1] in (b"403", b"404")
    assert b'"error"' in answer or b"no_such_path" in answer
    assert not upstream.seen


async def test_a_form_names_its_model_in_a_field(upstream: Upstream, ada: Chatter) -> None:
    form = FormData(quote_fields=False)
    form.add_field("file", b"\r\n--x\r\nmodel\x00" * 1000, filename="a.wav")
    form.add_field("model", "tiny")
    form.add_field("language", "fr")
    writer = form()
    body = await _bytes_of(writer)
    kind = {"Content-Type": writer.headers["Content-Type"]}
    reply = await ada.says(body, "/v1/audio/transcriptions", **kind)
    assert reply.status == 200
    assert upstream.seen[0].body == body
    assert upstream.seen[0].headers["Content-Type"] == kind["Content-Type"]


async def _bytes_of(payload: object) -> bytes:
    class Sink:
        def __init__(self) -> None:
            self.parts: list[bytes] = []

        async def write(self, data: bytes) -> None:
            self.parts.append(bytes(data))

    sink = Sink()
    await payload.write(sink)  # type: ignore[attr-defined]
    return b"".join(sink.parts)


@pytest.mark.parametrize(
    ("body", "kind", "found"),
    [
        (b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n--b--', "b", "tiny"),
        (b"--b\r\ncontent-disposition: form-data; name=model\r\n\r\n\r\n--b--", "b", ""),
        (b'--b\r\nContent-Disposition: form-data; name="models"\r\n\r\nx\r\n--b--', "b", None),
        (b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny', "b", None),
        (b"--b\r\n\r\nno head\r\n--b--", "b", None),
        (b"", "b", None),
        (b"--b--", "", None),
    ],
)
def test_a_field_is_found_or_not(body: bytes, kind: str, found: str | None) -> None:
    said = f"multipart/form-data; boundary={kind}" if kind else "multipart/form-data"
    assert multipart.field(body, said, "model") == found


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/embeddings", b"{}", 400, "invalid_request"),
        ("POST", "/v1/responses/compact", b"", 400, "invalid_request"),
        ("POST", "/v1/audio/transcriptions", b"[1]", 400, "invalid_request"),
        ("GET", "/v1/completions", None, 405, "method_not_allowed"),
        ("DELETE", "/v1/files/f1", None, 404, "no_such_path"),
        ("GET", "/v1/models/unknown", None, 404, "model_not_found"),
    ],
)
async def test_what_names_no_model_hears_so_as_openai_says_it(
    service: Service, upstream: Upstream, method: str, path: str, body: bytes | None,
    status: int, code: str,
) -> None:  # fmt: skip
    ada = {"X-OpenWebUI-User-Id": "ada"}
    reply = await caller_of(service)(method, path, data=body, headers=ada)
    assert (reply.status, reply.json["error"]["code"]) == (status, code)
    assert reply.json["error"]["message"]


async def test_one_model_is_looked_up_also_with_a_slash(
    service: Service, upstream: Upstream
) -> None:
    await make_ready(service, "w2", upstream.url, model="org/large")
    call = caller_of(service)
    for name in ("tiny", "org/large"):
        reply = await call("GET", f"/v1/models/{name}")
        assert (reply.status, reply.json["id"], reply.json["object"]) == (200, name, "model")
    assert (await call.with_key("nobody's")("GET", "/v1/models/tiny")).status == 401


# --- Ollama -----------------------------------------------------------------------------------


async def test_ollamas_lines_come_as_the_model_says_them(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    async def lines(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        await response.write(b'{"message":{"content":"a"},"done":false}\n')
        await upstream.go.wait()
        await response.write(b'{"done":true}\n')
        await response.write_eof()
        return response

    upstream.act = lines
    async with asyncio.timeout(DEADLINE_S), ada.streams("/api/chat") as response:
        assert json.loads(await response.content.readline())["done"] is False
        upstream.go.set()
        assert json.loads(await response.content.readline())["done"] is True


async def test_a_call_that_waits_hears_nothing_before_its_lines(
    service: Service, upstream: Upstream
) -> None:
    await take_slot(service)
    bob = Chatter(caller_of(service), "bob")
    asking = asyncio.create_task(
        bob.says(chat(stream=False), "/api/chat", **{"X-Vestibule-Wait": "60"})
    )
    await asyncio.sleep(0.1)
    await service.store.leave(DEFAULT_POOL, "first")
    assert (await asking).text.encode() == ANSWER


async def test_an_error_of_ours_is_as_ollama_says_one(service: Service, upstream: Upstream) -> None:
    reply = await Chatter(caller_of(service), "bob").says(chat(), "/api/chat")
    assert (reply.status, list(reply.json)) == (429, ["error"])
    assert isinstance(reply.json["error"], str)


async def test_a_name_without_a_tag_means_the_latest(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    await make_ready(service, "w2", upstream.url, model="llama3:latest")
    assert (await ada.says(b'{"name": "llama3"}', "/api/generate")).status == 200
    assert (await ada.says(b'{"name": "tiny"}', "/v1/completions")).status == 400


async def test_tags_are_the_directorys_and_show_is_asked_of_a_worker(
    service: Service, upstream: Upstream
) -> None:
    call = caller_of(service)
    tags = (await call("GET", "/api/tags")).json["models"]
    assert [model["model"] for model in tags] == ["tiny"]
    shown = await call("POST", "/api/show", {"model": "tiny"})
    assert (shown.status, shown.text.encode()) == (200, ANSWER)
    assert (await call("POST", "/api/show", {"model": "other"})).status == 404
    assert (await call.with_key("nobody's")("POST", "/api/show", {"model": "tiny"})).status == 401


async def test_what_is_loaded_and_the_version_are_all_workers(
    service: Service, start: Start
) -> None:
    call = caller_of(service)
    assert (await call("GET", "/api/ps")).json == {"models": []}
    assert (await call("GET", "/api/version")).status == 404
    for name, version in (("w1", "0.12.3"), ("w2", "0.9.10"), ("w3", None)):
        worker = await start(name)
        worker.gets = {
            "/api/ps": {"models": [{"name": name}]},
            "/api/version": {"version": version},
        }
    found = (await call("GET", "/api/ps")).json["models"]
    assert sorted(model["name"] for model in found) == ["w1", "w2", "w3"]
    assert (await call("GET", "/api/version")).json == {"version": "0.9.10"}
