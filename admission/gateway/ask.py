"""Asks a model with a conversation, and reads the streamed answer piece by piece.

For callers who hold a turn (``turn.hold``) and are no OpenAI client. Nothing of it is ever logged.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientTimeout,
    ConnectionTimeoutError,
    web,
)
from aiohttp.http_exceptions import HttpProcessingError

from admission.domain import Worker
from admission.errors import NoWorker
from admission.gateway import pick
from admission.gateway.pick import Unreachable
from admission.gateway.relay import (
    CONNECT_TIMEOUT_S,
    SILENCE_S,
    BadGateway,
    bad_gateway,
    refusal,
)
from admission.keys import DIRECTORY, REQUEST_ID, UPSTREAM

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
    request: web.Request, model: str, messages: Sequence[dict[str, str]]
) -> AsyncGenerator[Piece, None]:
    """The answer's pieces, ``End`` last. Closing the iterator ends the worker's answer too.

    Raises:
        NoWorker: nobody could be asked.
        ModelRefused, BadGateway: before the first piece, or in the middle.
    """
    for attempt in pick.attempts(request.app[DIRECTORY], model):
        with attempt as worker:
            async with aclosing(_from(request, worker, model, messages)) as pieces:
                async for piece in pieces:
                    yield piece
            return
    raise NoWorker


async def _from(
    request: web.Request, worker: Worker, model: str, messages: Sequence[dict[str, str]]
) -> AsyncGenerator[Piece, None]:
    headers = {"Accept-Encoding": "identity", "X-Request-Id": request[REQUEST_ID]}
    if worker.upstream_key:
        headers["Authorization"] = f"Bearer {worker.upstream_key}"
    try:
        answer = await request.app[UPSTREAM].post(
            f"{worker.url}/v1/chat/completions",
            json={"model": model, "messages": list(messages), "stream": True},
            headers=headers,
            timeout=ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_S),
            allow_redirects=False,
        )
    except (ClientConnectorError, ConnectionTimeoutError) as error:
        raise Unreachable from error
    except (ClientError, TimeoutError) as error:
        raise bad_gateway(worker, error) from None
    async with answer:
        if answer.status != 200:
            raise await refusal(worker, answer)
        try:
            async with aclosing(_pieces(answer)) as pieces:
                async for piece in pieces:
                    yield piece
        except (ClientError, HttpProcessingError, TimeoutError, msgspec.MsgspecError) as error:
            raise bad_gateway(worker, error) from None


async def _pieces(answer: ClientResponse) -> AsyncGenerator[Piece, None]:
    reason = None
    async with aclosing(_lines(answer)) as lines:
        async for line in lines:
            name, _, value = line.partition(b":")
            if name != b"data":
                continue
            if value.strip() == b"[DONE]":
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
    yield End(reason)


async def _lines(answer: ClientResponse) -> AsyncGenerator[bytes, None]:
    rest = b""
    async for chunk in answer.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise BadGateway("The model server's answer cannot be read.")
        for line in lines:
            yield line
    yield rest
