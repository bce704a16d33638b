"""The endpoints under ``/v1``: who calls, may they, where to, and the answer."""

import logging
import re

import msgspec
from aiohttp import web

from admission import logs
from admission.auth import Kind
from admission.domain import Worker
from admission.errors import AdmissionError, BadInput, Busy, NotFound, NoWorker
from admission.gateway import pick, turn
from admission.gateway.relay import Unreachable, abort, relay
from admission.keys import ANSWER_BEGUN, DIRECTORY, GATEKEEPER, SETTINGS, STORE, UPSTREAM

MESSAGE_HEADER = "X-Vestibule-Message"
MODEL_CHARACTERS_MAX = 256

log = logging.getLogger(__name__)
routes = web.RouteTableDef()


class _Head(msgspec.Struct):
    """The one field the gateway reads; all others are skipped, not built."""

    model: str


_HEAD = msgspec.json.Decoder(_Head)


class _TooLarge(AdmissionError):
    status, code = 413, "body_too_large"


class _BadRequest(BadInput):
    status, code = 400, "invalid_request"


@routes.get("/v1/models")
async def models(request: web.Request) -> web.Response:
    gatekeeper = request.app[GATEKEEPER]
    gatekeeper.must_be(gatekeeper.caller(request.headers), Kind.SERVICE, Kind.USER)
    served = request.app[DIRECTORY].models()
    data = [
        {"id": model, "object": "model", "created": 0, "owned_by": "vestibule"} for model in served
    ]
    return web.json_response({"object": "list", "data": data})


@routes.post("/v1/chat/completions")
async def chat_completions(request: web.Request) -> web.StreamResponse:
    gatekeeper = request.app[GATEKEEPER]
    user = gatekeeper.user_of(gatekeeper.caller(request.headers), request.headers)
    body = await _read(request)
    model = _model_in(body)
    directory = request.app[DIRECTORY]
    pool = directory.pool_of(model)
    if pool is None:
        raise NotFound(f"The model {model!r} is not served.", code="model_not_found", field="model")
    if not directory.ready(model):
        raise NoWorker
    try:
        async with turn.hold(
            request.app[STORE],
            pool,
            user,
            message=_message(request),
            concurrency=request.app[SETTINGS].session_concurrency,
        ):
            return await _answer(request, body, model)
    except turn.TurnLost:
        logs.event(log, "answer_outlived_session", user_id=user)
        if ANSWER_BEGUN not in request:
            raise Busy(
                "Your session ended before the model began to answer.", code="session_over"
            ) from None
        abort(request)
        return web.Response()


def _message(request: web.Request) -> str:
    message = request.headers.get(MESSAGE_HEADER, "")
    if not re.fullmatch(r"[\x21-\x7e]{0,128}", message):
        raise _BadRequest(
            f"{MESSAGE_HEADER}: at most 128 characters without spaces", field=MESSAGE_HEADER
        )
    return message


async def _answer(request: web.Request, body: bytes, model: str) -> web.StreamResponse:
    directory = request.app[DIRECTORY]
    for worker in pick.in_order(directory.ready(model), directory.outstanding):
        try:
            return await _via(request, body, worker)
        except Unreachable:
            logs.event(log, "worker_unreachable", logging.WARNING, worker_id=worker.worker_id)
    raise NoWorker


async def _via(request: web.Request, body: bytes, worker: Worker) -> web.StreamResponse:
    outstanding = request.app[DIRECTORY].outstanding
    outstanding[worker.worker_id] += 1
    try:
        return await relay(request, body, worker, request.app[UPSTREAM])
    finally:
        outstanding[worker.worker_id] -= 1


async def _read(request: web.Request) -> bytes:
    """The body as it came; its own limit, as prompts are larger than any other body."""
    most = request.app[SETTINGS].body_bytes_max
    parts, size = [], 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > most:
            raise _TooLarge(f"The body is larger than {most} bytes.", field="body")
        parts.append(part)
    return b"".join(parts)


def _model_in(body: bytes) -> str:
    try:
        model = _HEAD.decode(body).model
    except msgspec.ValidationError as error:
        raise _BadRequest("model: a model's name is needed", field="model") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _BadRequest("body: not JSON", field="body") from error
    if not model or len(model) > MODEL_CHARACTERS_MAX:
        raise _BadRequest(f"model: 1 to {MODEL_CHARACTERS_MAX} characters", field="model")
    return model
