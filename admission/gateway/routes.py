"""The endpoints under ``/v1``: whose turn it is, where to, and the answer."""

import logging
from contextlib import AsyncExitStack

from aiohttp import web

from admission import logs
from admission.auth import Kind
from admission.errors import AdmissionError, Busy, NoWorker
from admission.gateway import pick, tasks, turn
from admission.gateway.call import Call, read_call
from admission.gateway.event_stream import EventStream
from admission.gateway.notice import Notice
from admission.gateway.place import Place
from admission.gateway.relay import abort, relay
from admission.keys import ANSWER_BEGUN, DIRECTORY, GATEKEEPER, SETTINGS, STORE

log = logging.getLogger(__name__)
routes = web.RouteTableDef()


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
    call = await read_call(request)
    if not request.app[DIRECTORY].ready(call.model):
        raise NoWorker
    notice = Notice(request, streams=call.streams, on_page=call.on_page)
    try:
        return await (_task(request, call) if call.task else _chat(request, call, notice))
    except AdmissionError as error:
        if ANSWER_BEGUN in request:  # half of it has gone out
            abort(request)
            return web.Response()
        if notice.stream.begun:
            return await notice.refuse(error)
        raise


async def _task(request: web.Request, call: Call) -> web.StreamResponse:
    async with tasks.beside(request, call):
        return await _answer(request, call)
    raise AssertionError  # the block returns or raises


async def _chat(request: web.Request, call: Call, notice: Notice) -> web.StreamResponse:
    try:
        async with AsyncExitStack() as stack:
            await _take_turn(request, call, notice, stack)
            return await _answer(request, call, notice.stream)
    except turn.TurnLost:
        logs.event(log, "answer_outlived_session", user_id=call.user)
        raise Busy(
            "Your session ended before the model began to answer.", code="session_over"
        ) from None
    raise AssertionError  # the block returns or raises


async def _take_turn(
    request: web.Request, call: Call, notice: Notice, stack: AsyncExitStack
) -> None:
    """Until ``stack`` closes the call runs in its user's session, or in a lease of its own.

    A session is tried first: an answer may finish in one that is over, and needs no place then.
    """

    async def hold(lease: str = "") -> None:
        concurrency = request.app[SETTINGS].session_concurrency
        await stack.enter_async_context(
            turn.hold(
                request.app[STORE],
                call.pool,
                call.user,
                message=call.message,
                concurrency=concurrency,
                ticket=lease,
            )
        )

    leases = request.app[DIRECTORY].is_request_pool(call.pool)
    if not leases:
        try:
            return await hold()
        except turn.NoTurn:
            if not call.wait_s:
                raise
    adopted = call.ticket if leases else ""
    place = Place(request, call.who, call.pool, call.user, client=call.message, ticket=adopted)
    await stack.enter_async_context(place)
    await place.take(notice.tell, call.wait_s)
    await notice.come()
    return await hold(place.ticket)


async def _answer(
    request: web.Request, call: Call, told: EventStream | None = None
) -> web.StreamResponse:
    for attempt in pick.attempts(request.app[DIRECTORY], call.model):
        with attempt as worker:
            return await relay(request, call.body, worker, told)
    raise NoWorker
