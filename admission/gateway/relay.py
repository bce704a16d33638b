"""Passes a call to a worker and its answer back, byte by byte, as the bytes come.

Knows HTTP; nothing of turns. The body is never parsed here and never logged. Once the gateway has
told a waiting caller something, its answer goes on in that stream, and errors are told in it.
"""

import asyncio
import logging
from types import TracebackType

from aiohttp import ClientConnectionResetError, ClientError, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from admission import logs
from admission.accounting.allowances import Grant
from admission.accounting.meter import Meter
from admission.accounting.record import Outcome, Record
from admission.domain import Worker
from admission.errors import AdmissionError
from admission.gateway import pick
from admission.gateway.call import Call
from admission.gateway.connection import Answer
from admission.gateway.event_stream import EventStream
from admission.gateway.headers import to_caller, to_worker
from admission.gateway.upstream import bad_gateway, refusal, send
from admission.keys import ANSWER_BEGUN, CONNECTIONS, DIRECTORY, JOURNAL

log = logging.getLogger(__name__)


class _Sized(web.StreamResponse):
    """An answer whose length is known: its head goes out with its first bytes, in one packet.

    Of a stream the head goes ahead, as the first bytes may be long in coming (aiohttp 3.14).
    """

    _send_headers_immediately = False


class Exchange:
    """One call and its answer, whichever worker gives it; at the block's end it is accounted for.

    When the caller goes away the handler is cancelled, and with it the worker's answer.
    """

    def __init__(
        self,
        request: web.Request,
        call: Call,
        grant: Grant,
        began_s: float,
        told: EventStream | None = None,
    ) -> None:
        """``began_s``: when the call came, on the event loop's clock; its turn has come now.
        ``told``: what a caller who asked for a stream was told while it waited, if it began."""
        self._request, self._call, self._grant = request, call, grant
        self._app = request.app
        self._begun = told if told and told.begun else None
        self._meter = Meter(request.path, call.body, streams=call.streams)
        self._path = request.rel_url.raw_path_qs
        self._now_s = asyncio.get_running_loop().time
        self._began_s, self._turn_s = began_s, self._now_s()
        self._first_s: float | None = None  # when the answer's first piece came
        self._worker: Worker | None = None  # whom it was sent to
        self._status: int | None = None  # of the answer
        self._outcome: Outcome | None = None
        self.failure: AdmissionError | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._worker is None:
            return
        tokens = self._meter.tokens
        if self._status is not None and self._status < 400:
            self._grant.spend(tokens.total)
        call, turn_s = self._call, self._turn_s
        first_s = self._first_s
        self._app[JOURNAL].note(
            Record(
                kind=self._meter.kind,
                user=call.user,
                key=call.who.key or "",
                project=call.who.project or "",
                model=call.model,
                pool=call.pool,
                worker=self._worker.worker_id,
                prompt_tokens=tokens.prompt,
                completion_tokens=tokens.completion,
                estimated=tokens.estimated,
                queued_ms=round(1000 * (turn_s - self._began_s)),
                first_token_ms=None if first_s is None else round(1000 * (first_s - turn_s)),
                total_ms=round(1000 * (self._now_s() - self._began_s)),
                outcome=self._ended(error),
            )
        )

    def _ended(self, error: BaseException | None) -> Outcome:
        status = self._status
        if status is not None and status >= 400:
            return Outcome.REFUSED if status < 500 else Outcome.FAILED
        if self._outcome is not None:
            return self._outcome
        if isinstance(error, asyncio.CancelledError):
            transport = self._request.transport
            gone = transport is None or transport.is_closing()
            return Outcome.CANCELLED if gone else Outcome.CUT
        return Outcome.FAILED if self._first_s is None else Outcome.CUT

    async def relay(self, worker: Worker) -> web.StreamResponse:
        """Bring the call to this worker and its answer to the caller.

        Raises:
            Unreachable, Saturated: another worker may be asked.
            BadGateway, Silent: before its answer began.
            ModelRefused: instead of its answer, in a stream that has begun.
        """
        request, meter = self._request, self._meter
        headers = to_worker(request, worker)
        if self._begun or hdrs.ACCEPT_ENCODING in headers:
            headers[hdrs.ACCEPT_ENCODING] = "identity"  # what is packed cannot be metered
        self._worker, self._status = worker, None
        try:
            upstream = await send(
                self._app[CONNECTIONS],
                worker,
                request.method,
                self._path,
                headers=headers,
                body=meter.body,
            )
        except pick.Unreachable as lost:
            # The call itself may be what kills workers: who is asked last does not say "none".
            self.failure = bad_gateway(worker, "lost") if lost.sent else None
            self._worker = worker if lost.sent else None
            raise
        async with upstream:
            pick.answers(self._app[DIRECTORY], worker)
            self._status = upstream.status
            meter.begin(upstream.status, upstream.headers.get(hdrs.CONTENT_TYPE, ""))
            if self._begun:
                return await self._go_on(upstream, self._begun, worker)
            return await self._copy(upstream, await self._begin(upstream, worker), worker)

    async def _begin(self, upstream: Answer, worker: Worker) -> web.StreamResponse:
        """The head of the answer, on its way."""
        headers = to_caller(upstream.headers)
        if self._meter.hides:
            headers.pop(hdrs.CONTENT_LENGTH, None)
        kind = _Sized if hdrs.CONTENT_LENGTH in headers else web.StreamResponse
        # Its reason phrase stays behind: any bytes may stand there.
        response = kind(status=upstream.status, headers=headers)
        try:
            await response.prepare(self._request)
        except ValueError:  # a header that may not be sent
            raise bad_gateway(worker, "header") from None
        self._request[ANSWER_BEGUN] = True
        return response

    async def _go_on(
        self, upstream: Answer, told: EventStream, worker: Worker
    ) -> web.StreamResponse:
        """The worker's events after ours."""
        if upstream.status != 200:
            raise await refusal(worker, upstream)
        if upstream.content_type != "text/event-stream":
            raise bad_gateway(worker, "no_stream")
        self._request[ANSWER_BEGUN] = True
        return await self._copy(upstream, told, worker)

    async def _copy(
        self,
        upstream: Answer,
        response: web.StreamResponse | EventStream,
        worker: Worker,
    ) -> web.StreamResponse:
        feed, write = self._meter.feed, response.write
        try:
            async for chunk in upstream:
                if self._first_s is None:
                    self._first_s = self._now_s()
                shown = feed(chunk)
                if shown:
                    await write(shown)
            rest = self._meter.end()
            if rest:
                await write(rest)
            self._outcome = Outcome.OK
            return await _end(response)
        except ClientConnectionResetError:  # the caller is gone: only writing says so
            self._outcome = Outcome.CANCELLED
        except (ClientError, HttpProcessingError, TimeoutError) as error:
            logs.event(
                log,
                "answer_cut",
                logging.WARNING,
                worker_id=worker.worker_id,
                error=type(error).__name__,
            )
            self._outcome = Outcome.CUT
            abort(self._request)
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
