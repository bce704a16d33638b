"""The edge below the application: limits of each connection, and what a caller gets whose request
is not even HTTP: a problem, as for every other mistake.

aiohttp answers such requests below the application, in plain text, and logs them with a piece of
the line it could not read, which may be a key. It has no hook for that, hence the subclasses
(3.14: ``web_protocol.RequestHandler.handle_error``, ``web_runner.AppRunner._make_server``).
"""

import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, LineTooLong
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_server import Server

from admission import logs, views
from admission.errors import AdmissionError
from admission.keys import SETTINGS
from admission.slow_readers import Patient

log = logging.getLogger(__name__)


class Runner(web.AppRunner):
    """Runs the application within the limits of its settings, and answers what never reaches it."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        settings = app[SETTINGS]
        self._patience_s = settings.reader_timeout
        super().__init__(
            app,
            # Also a head that does not come ends by it (web_protocol.RequestHandler.start).
            keepalive_timeout=settings.keepalive_timeout,
            max_line_size=settings.head_bytes_max,
            max_field_size=settings.head_bytes_max,
            **options,
        )

    async def _make_server(self) -> Server:
        server = await super()._make_server()
        server.__class__ = _Server
        assert isinstance(server, _Server)
        server.patience_s = self._patience_s
        return server


class _Server(Server):
    patience_s: float

    def __call__(self) -> RequestHandler:
        protocol = _Protocol(self, loop=self._loop, **self._kwargs)
        protocol.patience_s = self.patience_s
        return protocol


class _Protocol(Patient):
    __slots__ = ()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:  # of the application, not of the bytes
            return super().handle_error(request, status, exc, message)
        logs.event(log, "bad_http", remote=request.remote, status=status, error=type(exc).__name__)
        if isinstance(exc, LineTooLong):
            error = AdmissionError(
                "A line of the request's head is longer than allowed (VESTIBULE_HEAD_BYTES_MAX).",
                code="head_too_large",
                field="headers",
            )
        elif isinstance(exc, ContentEncodingError):
            error = AdmissionError(
                "Content-Encoding: a body may come as it is, or packed by gzip or deflate.",
                code="bad_encoding",
                field="Content-Encoding",
            )
        else:
            error = AdmissionError("The request is not HTTP/1.1.", code="bad_http", field="request")
        error.status = status
        response = web.json_response(
            views.problem(error), status=status, content_type="application/problem+json"
        )
        response.force_close()
        return response
