"""What wraps every request: an id, errors as problem+json (or OpenAI's envelope), allowed origins.

No traceback leaves the process; what we did not foresee is logged and answered with 500.
"""

import logging
import random
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import hdrs, web

from admission import logs, proxies, views
from admission.api import access
from admission.asked import Asked
from admission.auth import NOBODY
from admission.errors import AdmissionError, BadInput, NotFound
from admission.keys import GATEKEEPER, RATES, REQUEST_ID, SETTINGS

REQUEST_ID_HEADER = "X-Request-Id"
ALLOWED_HEADERS = (
    "Authorization, Content-Type, X-Request-Id, X-Vestibule-Wait, X-Vestibule-Message,"
    " X-Vestibule-Ticket, Idempotency-Key, Last-Event-ID"
)
PREFLIGHT_AGE_S = 600  # how long a browser need not ask again; Chrome allows two hours at most
# What machines call at their own pace: workers' reports, and whoever watches this process.
NOT_COUNTED = ("/workers/", "/healthz", "/readyz")
_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._\-]{1,128}")

Call = TypeVar("Call", bound=Asked)
Handler = Callable[[Call], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


def error_response(request: Asked, error: AdmissionError) -> web.Response:
    """Render an error as the caller of this path expects it."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.final:
        headers["X-Should-Retry"] = "false"
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if _is_openai(request):
        return web.json_response(views.openai_error(error), status=error.status, headers=headers)
    if request.path.startswith("/api/"):  # as Ollama says it
        return web.json_response({"error": error.detail}, status=error.status, headers=headers)
    return web.json_response(
        views.problem(error),
        status=error.status,
        headers=headers,
        content_type="application/problem+json",
    )


@web.middleware
async def request_id(request: Call, handler: Handler[Call]) -> web.StreamResponse:
    """Keep the caller's request id, or make one."""
    given = request.headers.get(REQUEST_ID_HEADER, "")
    identity = given if _REQUEST_ID_FORM.fullmatch(given) else f"{random.getrandbits(128):032x}"
    request[REQUEST_ID] = identity
    return await handler(request)


@web.middleware
async def errors(request: Call, handler: Handler[Call]) -> web.StreamResponse:
    """Turn everything a handler raises into an answer."""
    try:
        return await handler(request)
    except AdmissionError as error:
        return error_response(request, error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = error_response(request, _of_framework(error, request))
        if response.status == 405:
            response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        return response
    except web.RequestPayloadError:  # not encoded as its headers say
        return error_response(request, BadInput("body: cannot be unpacked", field="body"))
    except ConnectionResetError:
        return web.Response()  # the caller is gone; nobody gets this
    except Exception:  # noqa: BLE001 - the outermost place; the cause goes to the log
        path = request.rel_url.raw_path  # encoded, and without the query, which may hold a token
        log.exception("request_failed method=%s path=%s", request.method, path)
        return error_response(request, AdmissionError("An error of ours; it was logged."))


@web.middleware
async def newest_keys(request: Call, handler: Handler[Call]) -> web.StreamResponse:
    """A key made a moment ago by another process works at once: what nobody here knows is looked
    for before the handler, and everything behind it, asks who calls."""
    given = request.headers.get(hdrs.AUTHORIZATION, "").rpartition(" ")[2]
    given = given or request.query.get("token") or request.cookies.get(access.TOKEN_COOKIE, "")
    if given:
        await request.app[GATEKEEPER].keyring.look_for(given)
    return await handler(request)


@web.middleware
async def rates(request: Call, handler: Handler[Call]) -> web.StreamResponse:
    """Refuse who calls too often, before anything is done for the call."""
    if not request.path.startswith(NOT_COUNTED):
        try:
            who = access.visitor(request)
        except AdmissionError:  # the handler, if it asks who calls, says so
            who = NOBODY
        await request.app[RATES].count(who, proxies.caller_address(request))
    return await handler(request)


@web.middleware
async def cross_origin(request: Call, handler: Handler[Call]) -> web.StreamResponse:
    """Answer what browsers ask before a page of an allowed origin calls."""
    if _allowed_origin(request) and request.method == hdrs.METH_OPTIONS:
        return web.Response(status=204)
    return await handler(request)


async def finish_headers(request: Asked, response: web.StreamResponse) -> None:
    """What every answer carries, a stream too, before its first byte: the request's id, and leave
    for pages of the allowed origins to read it; all others are left to the browser to refuse.

    No leave to send cookies: those are for our own pages alone (SameSite=Strict)."""
    response.headers.setdefault(REQUEST_ID_HEADER, request[REQUEST_ID])
    if not request.app[SETTINGS].allowed_origins:
        return
    # Also when this origin may not: a cache must not show its answer to one that may.
    varies = response.headers.get(hdrs.VARY)
    response.headers[hdrs.VARY] = f"{varies}, {hdrs.ORIGIN}" if varies else hdrs.ORIGIN
    origin = _allowed_origin(request)
    if origin:
        response.headers.update(
            {
                hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ALLOWED_HEADERS,
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST, PUT, DELETE",
                hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: "Retry-After, X-Request-Id, X-Should-Retry",
                hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_AGE_S),
            }
        )


def _allowed_origin(request: Asked) -> str | None:
    origin = request.headers.get(hdrs.ORIGIN)
    return origin if origin in request.app[SETTINGS].allowed_origins else None


def _is_openai(request: Asked) -> bool:
    return request.path == "/v1" or request.path.startswith("/v1/")


def _is_named(request: Asked) -> bool:
    """Is there a route of this very path, with another method?"""
    return any(each.canonical == request.path for each in request.app.router.resources())


def _of_framework(error: web.HTTPException, request: Asked) -> AdmissionError:
    if error.status == 405 and _is_openai(request) and not _is_named(request):
        return NotFound(
            f"{request.method} {request.path} is not passed on: it names no model, so no worker,"
            " and what a worker lists (files, batches) would be every user's.",
            code="no_such_path",
        )
    details = {
        404: f"There is nothing at {request.path}.",
        405: f"{request.method} is not for this path.",
        413: "The body is larger than allowed.",
    }
    codes = {404: "no_such_path", 405: "method_not_allowed", 413: "body_too_large"}
    detail = details.get(error.status, error.reason)
    mapped = AdmissionError(detail, code=codes.get(error.status, "bad_request"))
    mapped.status = error.status
    if error.status == 413:
        mapped.field = "body"
    if error.status >= 500:
        logs.event(log, "framework_error", logging.WARNING, status=error.status, path=request.path)
    return mapped
