"""What a worker keeps of an answer, by its id: read again, followed, cancelled, deleted.

Such a call names no model and computes nothing, so it takes no turn. Nobody here remembers which
worker has the response: the workers that may get requests are asked one after the other, and the
first that knows it answers. vLLM 0.33 keeps responses only with VLLM_ENABLE_RESPONSES_API_STORE=1,
in memory and for good; it has no DELETE and no input items.
"""

import asyncio
import logging

from aiohttp import ClientConnectionResetError, ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from admission import logs
from admission.domain import Worker
from admission.errors import AdmissionError, NoWorker
from admission.gateway import pick
from admission.gateway.call import read_whole
from admission.gateway.connection import Answer
from admission.gateway.headers import to_caller, to_worker
from admission.gateway.relay import abort
from admission.gateway.upstream import bad_gateway, send, silent
from admission.keys import CONNECTIONS, DIRECTORY, GATEKEEPER, SETTINGS
from admission.small_answer import read_small

ASK_TIMEOUT_S = 10.0  # all look into their memory: one that hangs must not hide the others
# It has no such response; no such method (vLLM's DELETE); no such API (vLLM's embedding models).
NOT_HERE = frozenset({404, 405, 501})

log = logging.getLogger(__name__)

routes = web.RouteTableDef()


@routes.get("/v1/responses/{response:[A-Za-z0-9_-]+}", allow_head=False)
@routes.delete("/v1/responses/{response:[A-Za-z0-9_-]+}")
@routes.get("/v1/responses/{response:[A-Za-z0-9_-]+}/input_items", allow_head=False)
@routes.post("/v1/responses/{response:[A-Za-z0-9_-]+}/cancel")
async def stored(request: web.Request) -> web.StreamResponse:
    """The answer of the worker that has the response, also a stream of its events.

    Raises:
        Unauthorized, Forbidden, AdmissionError: who calls, and for whom, as of any call.
        NoWorker: nobody is ready; or none of those that answered has it, and not all did.
        BadGateway, Silent: the same, and this is what one of them did.
    """
    gatekeeper = request.app[GATEKEEPER]
    gatekeeper.user_of(gatekeeper.caller(request.headers), request.headers)
    body = await read_whole(request, request.app[SETTINGS])
    asked, refusals = 0, []
    failure: AdmissionError | None = None
    for attempt in pick.in_turn(request.app[DIRECTORY]):
        asked += 1
        try:
            with attempt as worker:
                async with await _ask(request, worker, body) as answer:
                    if answer.status not in NOT_HERE:
                        return await _pass_on(request, worker, answer)
                    refusals.append(await _whole(worker, answer))
        except AdmissionError as error:  # another may have it
            failure = error
    if failure:
        raise failure
    if not asked:
        raise NoWorker("No worker is ready.")
    if len(refusals) < asked:  # "not found" would be more than anybody knows
        raise NoWorker("Not every worker could be asked for this response, and no other has it.")
    return refusals[-1]


async def _ask(request: web.Request, worker: Worker, body: bytes) -> Answer:
    """Its answer's head. Raises Unreachable, Saturated, BadGateway, Silent."""
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            answer = await send(
                request.app[CONNECTIONS],
                worker,
                request.method,
                request.rel_url.raw_path_qs,
                headers=to_worker(request, worker),
                body=body,
            )
    except TimeoutError as error:
        raise silent(worker, error) from None
    pick.answers(request.app[DIRECTORY], worker)
    return answer


async def _whole(worker: Worker, answer: Answer) -> web.Response:
    """A worker's word that it has no such thing. Raises BadGateway."""
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            said = await read_small(answer)
    except (ClientError, HttpProcessingError, TimeoutError, ValueError) as error:
        raise bad_gateway(worker, error) from None
    return web.Response(status=answer.status, body=said, headers=to_caller(answer.headers))


async def _pass_on(request: web.Request, worker: Worker, answer: Answer) -> web.StreamResponse:
    """Byte by byte, as the bytes come. Raises BadGateway before its first."""
    response = web.StreamResponse(status=answer.status, headers=to_caller(answer.headers))
    try:
        await response.prepare(request)
    except ValueError:  # a header that may not be sent
        raise bad_gateway(worker, "header") from None
    try:
        async for piece in answer:
            await response.write(piece)
        await response.write_eof()
    except ClientConnectionResetError:
        pass  # the caller is gone
    except (ClientError, HttpProcessingError, TimeoutError) as error:
        cause = type(error).__name__
        logs.event(log, "answer_cut", logging.WARNING, worker_id=worker.worker_id, error=cause)
        abort(request)
    return response
