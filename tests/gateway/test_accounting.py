"""What a call used is accounted for, and limits hold, on its way through the real gateway."""

import asyncio
import json

import msgspec
import pytest
from aiohttp import web

from admission.accounting import journal
from admission.accounting.record import Outcome, Record
from tests.accounting.shapes import SHAPES
from tests.api.calls import Caller, caller_of, until
from tests.conftest import Service
from tests.gateway.conftest import CHAT, Chatter
from tests.gateway.upstream import Upstream, chat

SHAPE = SHAPES["vLLM chat"]
ERROR = {"error": {"message": "no", "type": "x", "code": None, "param": None}}


@pytest.fixture(autouse=True)
def sent_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "EVERY_S", 0.02)


@pytest.fixture
def admin(service: Service) -> Caller:
    return caller_of(service, service.admin_key)


async def vllm(request: web.Request) -> web.StreamResponse:
    """The usage comes only when asked for."""
    asked = json.loads(await request.read()).get("stream_options")
    sent = SHAPE.sent if asked else SHAPE.sent.replace(SHAPE.hidden, b"")
    return web.Response(body=sent, headers={"Content-Type": SHAPE.media})


async def recorded(service: Service) -> Record:
    """The one record there is, as the scheduler will find it."""

    async def sent() -> bool:
        return await service.store.usage.length() > 0

    await until(sent)
    [(_, raw)] = await service.store.usage.oldest(10)
    return msgspec.msgpack.decode(raw, type=Record)


async def test_a_stream_is_counted_and_looks_as_if_nobody_had(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    upstream.act = vllm
    reply = await ada.says(chat(stream=True))
    assert reply.text.encode() == SHAPE.sent.replace(SHAPE.hidden, b"")
    record = await recorded(service)
    assert (record.prompt_tokens, record.completion_tokens, record.estimated) == (9, 3, False)
    assert (record.kind, record.user, record.model) == ("chat", "ada", "tiny")
    assert (record.pool, record.worker, record.outcome) == ("default", "w1", Outcome.OK)
    assert record.first_token_ms is not None
    assert record.total_ms >= record.first_token_ms >= 0
    assert "café" not in str(record)


async def test_who_asks_for_usage_gets_it(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    upstream.act = vllm
    body = chat(stream=True).replace(b"{", b'{"stream_options": {"include_usage": true}, ', 1)
    assert (await ada.says(body)).text.encode() == SHAPE.sent
    assert upstream.seen[-1].body == body


async def test_the_project_and_the_key_of_a_user_key(
    service: Service, upstream: Upstream, ada: Chatter, admin: Caller
) -> None:
    upstream.act = vllm
    await admin("PUT", "/admin/projects/bio", {})
    made = await admin("POST", "/admin/keys", {"kind": "user", "user": "ada", "project": "bio"})
    call = caller_of(service, made.json["key"])
    assert (await call("POST", CHAT, data=chat(stream=True))).status == 200
    record = await recorded(service)
    assert (record.project, record.key, record.user) == ("bio", made.json["id"], "ada")


@pytest.mark.parametrize(("status", "outcome"), [(400, Outcome.REFUSED), (500, Outcome.FAILED)])
async def test_what_the_model_server_refuses_costs_nothing(
    service: Service,
    upstream: Upstream,
    ada: Chatter,
    admin: Caller,
    status: int,
    outcome: Outcome,
) -> None:
    async def refuses(_: web.Request) -> web.Response:
        return web.json_response(ERROR, status=status)

    await admin("PUT", "/admin/limits/user", {"requests_per_minute": 1, "tokens_per_day": 1})
    upstream.act = refuses
    for _ in range(3):
        assert (await ada.says(chat())).status == status
    upstream.act = vllm
    assert (await ada.says(chat(stream=True))).status == 200
    refused = await ada.says(chat(stream=True))
    assert refused.status == 429
    entries = await _all(service, 4)
    assert [r.outcome for r in entries] == [outcome] * 3 + [Outcome.OK]
    assert [r.prompt_tokens for r in entries] == [0, 0, 0, 9]


async def _all(service: Service, count: int) -> list[Record]:
    async def sent() -> bool:
        return await service.store.usage.length() >= count

    await until(sent)
    return [
        msgspec.msgpack.decode(raw, type=Record) for _, raw in await service.store.usage.oldest(100)
    ]


async def test_a_budget_refuses_in_openais_words_before_a_turn_is_taken(
    service: Service, upstream: Upstream, ada: Chatter, admin: Caller
) -> None:
    await admin("PUT", "/admin/limits/user/ada", {"tokens_per_month": 10})
    upstream.act = vllm
    assert (await ada.says(chat(stream=True))).status == 200
    reply = await ada.says(chat(stream=True))
    assert reply.status == 429
    assert reply.json["error"]["code"] == "insufficient_quota"
    assert reply.json["error"]["type"] == "rate_limit_error"
    assert reply.json["error"]["limit"] == "tokens_per_month"
    assert int(reply.headers["Retry-After"]) > 0
    assert len(upstream.seen) == 1
    assert len(await _all(service, 1)) == 1
    await admin("DELETE", "/admin/limits/user/ada")
    assert (await ada.says(chat(stream=True))).status == 200


async def test_without_a_session_nothing_is_counted(
    service: Service, upstream: Upstream, ada: Chatter, admin: Caller
) -> None:
    await admin("PUT", "/admin/limits/user", {"requests_per_minute": 1})
    bob = Chatter(caller_of(service), "bob")
    for _ in range(3):
        assert (await bob.says(chat())).json["error"]["code"] == "no_session"
    await asyncio.sleep(0)
    assert await service.store.usage.length() == 0


async def test_a_caller_who_goes_away_pays_for_what_came(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    async with ada.streams() as response:
        await response.content.readany()
    record = await recorded(service)
    assert (record.outcome, record.estimated) == (Outcome.CANCELLED, True)
    assert record.prompt_tokens == 2  # "café é" has 6 characters


async def test_an_answer_that_breaks_off(
    service: Service, upstream: Upstream, ada: Chatter
) -> None:
    upstream.act = upstream.break_off
    upstream.go.set()
    with pytest.raises(Exception, match="payload|disconnected|closed|reset"):  # noqa: PT011
        await ada.says(chat(stream=True))
    assert (await recorded(service)).outcome == Outcome.CUT


async def test_the_chat_of_thin_frontends_is_counted_and_bounded(
    service: Service, upstream: Upstream, admin: Caller
) -> None:
    await admin("PUT", "/admin/limits/user/ada", {"tokens_per_day": 12})
    upstream.act = vllm
    call, body = caller_of(service), {"user_id": "ada", "message": "Hello"}
    reply = await call("POST", "/chat/stream", body)
    assert '"type": "done"' in reply.text
    assert json.loads(upstream.seen[-1].body)["stream_options"] == {"include_usage": True}
    record = await recorded(service)
    assert (record.kind, record.user, record.worker) == ("chat", "ada", "w1")
    assert (record.prompt_tokens, record.completion_tokens) == (9, 3)
    assert (record.outcome, record.estimated) == (Outcome.OK, False)
    refused = await call("POST", "/chat/stream", body)
    assert (refused.status, refused.json["code"]) == (429, "insufficient_quota")
    assert len(upstream.seen) == 1


async def test_a_chat_the_model_server_refuses_costs_nothing(
    service: Service, upstream: Upstream
) -> None:
    async def refuses(_: web.Request) -> web.Response:
        return web.json_response(ERROR, status=400)

    upstream.act = refuses
    await caller_of(service)("POST", "/chat/stream", {"user_id": "ada", "message": "Hello"})
    record = await recorded(service)
    assert (record.outcome, record.prompt_tokens) == (Outcome.REFUSED, 0)
