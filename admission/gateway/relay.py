"""Passes a request to a worker and its answer back, byte by byte, as the bytes come.

Knows HTTP; nothing of turns. The body is never parsed here and never logged. Once the gateway has
told a waiting caller something, its answer goes on in that stream, and errors are told in it.
"""

import logging
from collections.abc import Mapping

import msgspec
from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    hdrs,
    web,
)
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict

from admission import logs
from admission.domain import Worker
from admission.errors import AdmissionError
from admission.gateway.event_stream import EventStream
from admission.gateway.pick import Unreachable
from admission.keys import ANSWER_BEGUN, REQUEST_ID, UPSTREAM

REFUSAL_BYTES_MAX = 1_048_576
REFUSAL_CHARACTERS_MAX = 500  # of what the model server says when it refuses
CONNECT_TIMEOUT_S = 2.0
SILENCE_S = 600.0  # a worker that says nothing for this long has died on us

# RFC 9110, section 7.6.1, and what must not go past the gateway: our keys and our own headers.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# The body was unpacked while it was read, so its encoding and length are no longer the caller's.
_OURS = frozenset(
    {"host", "authorization", "cookie", "content-encoding", "content-length", "expect"}
)
# What aiohttp's client would add of its own; a caller who names no encoding understands none.
_NOT_OF_THE_CALLER = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")

log = logging.getLogger(__name__)


class BadGateway(AdmissionError):
    """The worker broke off, or gave no answer that can be read."""

    status, code = 502, "bad_gateway"


class ModelRefused(AdmissionError):
    """The model server does not take this conversation: too long, for one."""

    status, code = 502, "model_refused"


async def relay(
    request: web.Request, body: bytes, worker: Worker, told: EventStream | None = None
) -> web.StreamResponse:
    """Send ``body`` to the worker and stream its answer to the caller.

    When the caller goes away the handler is cancelled, and with it the worker's answer.

    Args:
        told: what a caller who asked for a stream was told while it waited, if it has begun.

    Raises:
        Unreachable: before anything was sent.
        BadGateway: before its answer began.
        ModelRefused: instead of its answer, in a stream that has begun.
    """
    headers = _to_worker(request, worker)
    begun = told if told and told.begun else None
    if begun:  # its head, which could name an encoding, has gone out
        headers[hdrs.ACCEPT_ENCODING] = "identity"
    session: ClientSession = request.app[UPSTREAM]
    try:
        upstream = await session.request(
            request.method,
            f"{worker.url}{request.rel_url}",
            data=body,
            headers=headers,
            skip_auto_headers=_NOT_OF_THE_CALLER,
            timeout=ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_S),
            allow_redirects=False,
        )
    except (ClientConnectorError, ConnectionTimeoutError) as error:
        raise Unreachable from error
    except (ClientError, TimeoutError) as error:  # broken off, or not HTTP
        raise bad_gateway(worker, error) from None
    async with upstream:
        if upstream.status < 200:
            raise bad_gateway(worker, upstream.status)
        if begun:
            return await _go_on(request, upstream, begun, worker)
        # Its reason phrase stays behind: any bytes may stand there.
        response = web.StreamResponse(status=upstream.status, headers=_to_caller(upstream.headers))
        try:
            await response.prepare(request)
        except ValueError:  # a header that may not be sent
            raise bad_gateway(worker, "header") from None
        request[ANSWER_BEGUN] = True
        return await _copy(request, upstream, response, worker)


async def _go_on(
    request: web.Request, upstream: ClientResponse, told: EventStream, worker: Worker
) -> web.StreamResponse:
    """The worker's events after ours."""
    if upstream.status != 200:
        raise await refusal(worker, upstream)
    if upstream.content_type != "text/event-stream":
        raise bad_gateway(worker, "no_stream")
    request[ANSWER_BEGUN] = True
    return await _copy(request, upstream, told, worker)


async def refusal(worker: Worker, answer: ClientResponse) -> AdmissionError:
    """What the server says of a conversation it does not take goes to its owner, not to the log."""
    if not 400 <= answer.status < 500:
        return bad_gateway(worker, answer.status)
    try:
        said = msgspec.json.decode(await answer.content.read(REFUSAL_BYTES_MAX))
        message = str(said["error"]["message"])[:REFUSAL_CHARACTERS_MAX]
    except (ClientError, TimeoutError, msgspec.MsgspecError, KeyError, TypeError, RecursionError):
        message = f"it answered {answer.status}"
    return ModelRefused(f"The model server did not take this: {message}")


def bad_gateway(worker: Worker, cause: object) -> BadGateway:
    """Logs the cause by its type only: its text may quote an answer."""
    named = type(cause).__name__ if isinstance(cause, Exception) else cause
    logs.event(log, "bad_answer", logging.WARNING, worker_id=worker.worker_id, cause=named)
    return BadGateway("The model server gave no answer that can be passed on.")


async def _copy(
    request: web.Request,
    upstream: ClientResponse,
    response: web.StreamResponse | EventStream,
    worker: Worker,
) -> web.StreamResponse:
    try:
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
        return await _end(response)
    except (ClientError, HttpProcessingError, TimeoutError) as error:
        logs.event(
            log,
            "answer_cut",
            logging.WARNING,
            worker_id=worker.worker_id,
            error=type(error).__name__,
        )
        abort(request)
    return web.Response()  # nobody gets this


async def _end(response: web.StreamResponse | EventStream) -> web.StreamResponse:
    if isinstance(response, EventStream):
        return await response.end()
    await response.write_eof()
    return response


def abort(request: web.Request) -> None:
    """Cut the connection, so that half an answer does not look like a whole one."""
    if request.transport is not None:
        request.transport.abort()


def _to_worker(request: web.Request, worker: Worker) -> CIMultiDict[str]:
    headers = _passed_on(request.headers, _OURS)
    for name in list(headers):
        if name.lower().startswith(("x-vestibule-", "x-openwebui-")):
            headers.popall(name, None)
    headers["X-Request-Id"] = request[REQUEST_ID]
    if worker.upstream_key:
        headers[hdrs.AUTHORIZATION] = f"Bearer {worker.upstream_key}"
    return headers


def _to_caller(headers: Mapping[str, str]) -> CIMultiDict[str]:
    # vLLM lets every web page read its answers; here the allowed origins are a setting.
    kept = _passed_on(headers, frozenset())
    return CIMultiDict(
        (k, v) for k, v in kept.items() if not k.lower().startswith("access-control-")
    )


def _passed_on(headers: Mapping[str, str], dropped: frozenset[str]) -> CIMultiDict[str]:
    named = {part.strip().lower() for part in headers.get(hdrs.CONNECTION, "").split(",")}
    drop = _HOP_BY_HOP | dropped | named
    return CIMultiDict((k, v) for k, v in headers.items() if k.lower() not in drop)
