"""Asks a model with a conversation, and reads the streamed answer piece by piece.

For callers who hold a turn (``turn.hold``) and are no OpenAI client. Nothing of it is ever logged.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from admission.accounting.bill import Bill
from admission.domain import Worker
from admission.errors import NoWorker
from admission.gateway import pick
from admission.gateway.connection import Answer
from admission.gateway.upstream import BadGateway, Full, bad_gateway, refusal, send
from admission.keys import CONNECTIONS, DIRECTORY, REQUEST_ID

PATH = "/v1/chat/completions"
LINE_BYTES_MAX = 1_048_576  # one event of an answer; sources may be long


@dataclass(frozen=True)
class Token:
    text: str


@dataclass(frozen=True)
class Sources:
    """What the answer rests on, as the upstream put it."""

    items: list[Any]


@dataclass(frozen=True)
class End:
    """The answer is whole; why it ends there ("stop", "length", …)."""

    finish_reason: str | None


Piece = Token | Sources | End


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    sources: list[Any] | None = None
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)


async def ask(
    request: web.Request,
    model: str,
    messages: Sequence[dict[str, str]],
    bill: Bill,
    conversation: str = "",
) -> AsyncGenerator[Piece, None]:
    """The answer's pieces, ``End`` last. Closing the iterator ends the worker's answer too.

    Args:
        bill: what it costs goes there.
        conversation: names what should stay with one worker; "" for nothing.

    Raises:
        NoWorker, Full: nobody could be asked, or all are full.
        ModelRefused, BadGateway: before the first piece, or in the middle.
    """
    asked = msgspec.json.encode({"model": model, "messages": messages, "stream": True})
    try:
        for attempt in pick.attempts(request.app[DIRECTORY], model, conversation):
            with attempt as worker:
                body = bill.ask(worker.worker_id, PATH, asked)
                async with aclosing(_from(request, worker, body, bill)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
    except pick.Saturated:
        raise Full from None
    raise NoWorker


async def _from(
    request: web.Request, worker: Worker, body: bytes, bill: Bill
) -> AsyncGenerator[Piece, None]:
    headers = {
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "X-Request-Id": request[REQUEST_ID],
    }
    if worker.upstream_key:
        headers["Authorization"] = f"Bearer {worker.upstream_key}"
    answer = await send(
        request.app[CONNECTIONS],
        worker,
        "POST",
        PATH,
        headers=headers,
        body=body,
    )
    async with answer:
        pick.answers(request.app[DIRECTORY], worker)
        bill.answered(answer.status, answer.content_type)
        if answer.status != 200:
            raise await refusal(worker, answer)
        try:
            async with aclosing(_pieces(answer, bill)) as pieces:
                async for piece in pieces:
                    yield piece
        except (ClientError, HttpProcessingError, TimeoutError, msgspec.MsgspecError) as error:
            raise bad_gateway(worker, error) from None


async def _pieces(answer: Answer, bill: Bill) -> AsyncGenerator[Piece, None]:
    reason = None
    async with aclosing(_lines(answer, bill)) as lines:
        async for line in lines:
            name, _, value = line.partition(b":")
            if name != b"data":
                continue
            if value.strip() == b"[DONE]":
                bill.whole()
                yield End(reason)
                return
            chunk = _CHUNK.decode(value)
            if chunk.error is not None:
                raise BadGateway("The model server broke off with an error.")
            if chunk.sources:
                yield Sources(chunk.sources)
            for choice in (chunk.choices or [])[:1]:
                reason = choice.finish_reason or reason
                if choice.delta and choice.delta.content:
                    yield Token(choice.delta.content)
    if reason is None:
        raise BadGateway("The model server broke off its answer.")
    bill.whole()
    yield End(reason)


async def _lines(answer: Answer, bill: Bill) -> AsyncGenerator[bytes, None]:
    rest = b""
    async for chunk in answer:
        *lines, rest = (rest + bill.feed(chunk)).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise BadGateway("The model server's answer cannot be read.")
        for line in lines:
            yield line
    for line in (rest + bill.rest()).split(b"\n"):
        yield line
