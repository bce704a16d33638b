"""The waiting page over HTTP: works without scripts, better with them.

The token of the link becomes a cookie at once, so that it stays in no history and no log; what a
page changes goes by forms, which need the cookie and our own origin. Every answer is a page, also
the refusals.
"""

from collections.abc import Awaitable, Callable
from functools import wraps

from aiohttp import hdrs, web

from admission import joins, wire
from admission.api import access
from admission.auth import Caller, Kind
from admission.domain import DEFAULT_POOL, POOL_NAME
from admission.errors import AdmissionError, Conflict, NotFound, Unavailable
from admission.keys import GATEKEEPER, SETTINGS, STORE
from admission.outcomes import Alive, Ended, NotConfirmed, Unknown
from admission.pages import ASSETS, waiting
from admission.pages.waiting import Reader
from admission.pages.words import choose

ASSET_AGE_S = 31_536_000  # their addresses change with their content
# Nothing from elsewhere, nothing inline, in nobody's frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    # Not no-referrer: under that a browser sends the forms with `Origin: null` (Fetch, "append a
    # request Origin header"), and a write by cookie needs our own. To others nothing is told.
    "Referrer-Policy": "same-origin",
}

routes = web.RouteTableDef()
Handler = Callable[[web.Request, Reader], Awaitable[web.StreamResponse]]


def page(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler whose refusals are pages too."""

    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        reader = _reader(request)
        try:
            return await handler(request, reader)
        except AdmissionError as error:
            return _problem(request, reader, error)

    return answer


@routes.get("/wait/{user_id}")
@page
async def wait(request: web.Request, reader: Reader) -> web.StreamResponse:
    user = wire.read_user(request)
    if "token" in request.query:
        return _without_token(request)
    who = access.visitor(request)
    if who.kind is Kind.NONE and request.headers.get("Sec-Fetch-Site") == "cross-site":
        # A strict cookie does not come along from another site's link; from our own page it does.
        return _html(waiting.moment_page(reader))
    request.app[GATEKEEPER].may_act_for(who, user)
    pool = access.pool_for(request)
    match await request.app[STORE].heartbeat(pool, user):  # being on the page is presence
        case Alive(ticket) | Ended(ticket):
            grace_s = request.app[SETTINGS].presence_grace
            response = _html(waiting.ticket_page(reader, ticket, grace_s))
        case Unknown():
            response = _html(waiting.unknown_page(reader), status=404)
    _renew(request, response, who)
    return response


@routes.post("/wait/{user_id}/join")
@page
async def join(request: web.Request, reader: Reader) -> web.StreamResponse:
    user, who = _owner(request)
    await joins.join(request, who, access.pool_for(request), user, wire.JoinBody())
    raise web.HTTPSeeOther(reader.link())


@routes.post("/wait/{user_id}/confirm")
@page
async def confirm(request: web.Request, reader: Reader) -> web.StreamResponse:
    user, _ = _owner(request)
    ticket = request.query.get("ticket", "")
    match await request.app[STORE].confirm(access.pool_for(request), user, ticket=ticket):
        case NotConfirmed("waiting", _):
            raise Conflict("No slot is offered yet.", code="still_waiting")
        case NotConfirmed():
            raise NotFound("This turn is over.", code="ticket_ended")
    raise web.HTTPSeeOther(reader.link())


@routes.post("/wait/{user_id}/leave")
@page
async def leave(request: web.Request, reader: Reader) -> web.StreamResponse:
    user, _ = _owner(request)
    ticket = request.query.get("ticket", "")
    await request.app[STORE].leave(access.pool_for(request), user, ticket=ticket)
    raise web.HTTPSeeOther(reader.link())


@routes.get("/assets/{name}")
async def assets(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in ASSETS:
        raise web.HTTPNotFound
    content, _ = waiting.asset(name)
    headers = {
        "Cache-Control": f"public, max-age={ASSET_AGE_S}, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    return web.Response(body=content, content_type=ASSETS[name], charset="utf-8", headers=headers)


def _reader(request: web.Request) -> Reader:
    chosen = request.query.get("lang")
    language = choose(chosen, request.headers.get(hdrs.ACCEPT_LANGUAGE, ""))
    pool = request.query.get("pool", DEFAULT_POOL)
    return Reader(
        request.match_info["user_id"],
        pool if POOL_NAME.fullmatch(pool) else DEFAULT_POOL,
        language,
        chosen == language,
    )


def _owner(request: web.Request) -> tuple[str, Caller]:
    """The user in the path, and the caller, who may act for them."""
    who = access.visitor(request)
    return access.user_for(request, who), who


def _without_token(request: web.Request) -> web.Response:
    """The token becomes a cookie; the same address without it is where the page is.

    Raises:
        Unauthorized, Forbidden: not this user's token.
    """
    token = request.query["token"]
    who = request.app[GATEKEEPER].holder(token)
    request.app[GATEKEEPER].may_act_for(who, wire.read_user(request))
    response = web.Response(status=303, headers={**PAGE_HEADERS, "Referrer-Policy": "no-referrer"})
    response.headers[hdrs.LOCATION] = str(request.rel_url.without_query_params("token"))
    access.keep_token(request, response, token)
    return response


def _renew(request: web.Request, response: web.StreamResponse, who: Caller) -> None:
    token = request.app[GATEKEEPER].renewal_for(who)
    if token:
        access.keep_token(request, response, token)


def _html(text: str, status: int = 200) -> web.Response:
    headers = {**PAGE_HEADERS, "Vary": "Accept-Language, Cookie"}
    return web.Response(text=text, status=status, content_type="text/html", headers=headers)


def _problem(request: web.Request, reader: Reader, error: AdmissionError) -> web.Response:
    back = error.status in (404, 409) and error.code != "pool_unknown"
    away = isinstance(error, Unavailable) and request.method == hdrs.METH_GET
    response = _html(
        waiting.problem_page(reader, error.code, back=back, retry=away), status=error.status
    )
    if error.retry_after_s is not None:
        response.headers[hdrs.RETRY_AFTER] = str(error.retry_after_s)
    if error.status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    return response
