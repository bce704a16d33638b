"""What each call leaves in the journal and of its caller's allowance, however it ended."""

import asyncio

import pytest
from aiohttp import ClientPayloadError, web

from admission.accounting.allowances import Grant
from admission.accounting.journal import Journal
from admission.accounting.record import Outcome, Record
from admission.domain import DEFAULT_POOL
from tests.api.calls import until
from tests.conftest import Service
from tests.gateway import canned
from tests.gateway.conftest import Chatter, Start, make_ready
from tests.gateway.upstream import Upstream, chat


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """What the journal was told."""
    told: list[Record] = []
    monkeypatch.setattr(Journal, "note", lambda self, record: told.append(record))
    return told


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of the calls that counted."""
    tokens: list[int] = []
    monkeypatch.setattr(Grant, "spend", lambda self, number: tokens.append(number))
    return tokens


async def the_only(records: list[Record]) -> Record:
    async def one() -> bool:
        return len(records) == 1

    await until(one)
    return records[0]


@pytest.mark.parametrize("streams", [False, True])
async def test_an_answer_is_accounted_for(
    service: Service, upstream: Upstream, ada: Chatter, records: list[Record], spent: list[int],
    streams: bool,
) -> None:  # fmt: skip
    upstream.act = canned.answer
    reply = await ada.says(chat(stream=streams))
    assert (reply.status, "usage" in reply.text) == (200, not streams)
    record = await the_only(records)
    assert record.outcome is Outcome.OK
    assert (record.user, record.model, record.pool, record.worker) == (
        "ada", "tiny", DEFAULT_POOL, "w1",
    )  # fmt: skip
    assert (record.kind, record.prompt_tokens, record.completion_tokens) == ("chat", 3, 2)
    assert not record.estimated
    assert record.first_token_ms is not None
    assert 0 <= record.queued_ms <= record.queued_ms + record.first_token_ms <= record.total_ms + 2
    assert spent == [5]


@pytest.mark.parametrize(
    ("status", "outcome"), [(400, Outcome.REFUSED), (500, Outcome.FAILED), (503, Outcome.FAILED)]
)
async def test_a_refused_call_costs_nothing(
    upstream: Upstream, ada: Chatter, records: list[Record], spent: list[int],
    status: int, outcome: Outcome,
) -> None:  # fmt: skip
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, body=b"{}")

    upstream.act = refuse
    assert (await ada.says(chat())).status == status
    record = await the_only(records)
    assert (record.outcome, record.prompt_tokens, record.completion_tokens) == (outcome, 0, 0)
    assert spent == []


async def test_what_never_reached_a_worker_leaves_nothing(
    service: Service, upstream: Upstream, ada: Chatter, records: list[Record], spent: list[int]
) -> None:
    ada.headers["X-OpenWebUI-User-Id"] = "bob"
    assert (await ada.says(chat())).status == 429
    ada.headers["X-OpenWebUI-User-Id"] = "ada"
    await make_ready(service, "w1", "http://127.0.0.1:1")
    assert (await ada.says(chat())).status == 503
    assert records == []
    assert spent == []


async def test_a_caller_who_goes_away_and_an_answer_that_breaks_off(
    upstream: Upstream, ada: Chatter, records: list[Record], spent: list[int]
) -> None:
    async with ada.streams() as response:
        await response.content.readany()
        response.close()
    assert (await the_only(records)).outcome is Outcome.CANCELLED
    records.clear()
    upstream.act = upstream.break_off
    upstream.go.set()
    async with ada.streams() as response:
        with pytest.raises(ClientPayloadError):
            await response.content.read()
    assert (await the_only(records)).outcome is Outcome.CUT
    assert len(spent) == 2


async def test_an_answer_whose_turn_ends_is_cut(
    service: Service, upstream: Upstream, ada: Chatter, records: list[Record], spent: list[int]
) -> None:
    async with ada.streams() as response:
        await response.content.readany()
        await service.store.cancel(DEFAULT_POOL, "ada")
        with pytest.raises(ClientPayloadError):
            await response.content.read()
    assert (await the_only(records)).outcome is Outcome.CUT
    assert len(spent) == 1


async def test_a_call_is_accounted_to_the_worker_that_answered(
    service: Service, start: Start, ada: Chatter, records: list[Record]
) -> None:
    async def full(_: web.Request) -> web.Response:
        return web.Response(status=503)

    first, _ = await start("w1"), await start("w2")
    first.act = full
    answers = await asyncio.gather(*(ada.says(chat(), "/v1/score") for _ in range(4)))
    assert [answer.status for answer in answers] == [200] * 4
    assert {record.worker for record in records} == {"w2"}
    assert {record.outcome for record in records} == {Outcome.OK}


async def test_an_answer_without_the_hidden_event_is_as_long_as_it_says(
    upstream: Upstream, ada: Chatter, records: list[Record]
) -> None:
    """Its worker counted the bytes with it."""
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
    said = b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n'

    async def counted(_: web.Request) -> web.Response:
        body = said + usage + b"data: [DONE]\n\n"
        return web.Response(body=body, headers={"Content-Type": "text/event-stream"})

    upstream.act = counted
    reply = await ada.says(chat(stream=True))
    assert reply.text.encode() == said + b"data: [DONE]\n\n"
    assert (await the_only(records)).completion_tokens == 2
