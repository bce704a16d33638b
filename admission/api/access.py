"""What handlers ask first: who is calling, for which user and pool."""

from aiohttp import hdrs, web

from admission import proxies, wire
from admission.asked import Asked
from admission.auth import NOBODY, TOKEN_LIFE_S, Caller, Kind
from admission.errors import Forbidden, NotFound
from admission.keys import GATEKEEPER, ROSTER

TOKEN_COOKIE = "vestibule_token"
# EventSource, WebSocket and links cannot send a header; nothing else takes a token from the query.
TOKEN_IN_QUERY = ("/queue/events/", "/queue/ws/", "/wait/")


def caller(request: Asked) -> Caller:
    """Who is calling, by the Authorization header."""
    return request.app[GATEKEEPER].caller(request.headers)


def visitor(request: Asked) -> Caller:
    """Who is calling, perhaps from a page: by the Authorization header, else by the user token
    in the query, else by the one in the cookie.

    Raises:
        Forbidden: a write or a WebSocket that relies on the cookie, and not from a page of ours.
        Unauthorized: the token has expired.
    """
    gatekeeper = request.app[GATEKEEPER]
    if hdrs.AUTHORIZATION in request.headers:
        return gatekeeper.caller(request.headers)
    if request.path.startswith(TOKEN_IN_QUERY) and (token := request.query.get("token")):
        return gatekeeper.holder(token)
    token = request.cookies.get(TOKEN_COOKIE)
    if not token:
        return NOBODY
    changes = request.method not in (hdrs.METH_GET, hdrs.METH_HEAD)
    if (changes or hdrs.UPGRADE in request.headers) and not proxies.same_origin(request):
        raise Forbidden("A cookie alone is not enough here: the call must come from our own page.")
    return gatekeeper.holder(token)


def keep_token(request: Asked, response: web.StreamResponse, token: str) -> None:
    """Give a page the user token as a cookie, which no script and no other site gets to see."""
    response.set_cookie(
        TOKEN_COOKIE,
        token,
        max_age=TOKEN_LIFE_S,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=proxies.scheme(request) == "https",
    )


def user_for(request: Asked, who: Caller) -> str:
    """The user in the path, for whom the caller may act."""
    user = wire.read_user(request)
    request.app[GATEKEEPER].may_act_for(who, user)
    return user


def must_be(request: Asked, *kinds: Kind) -> Caller:
    """The caller, whose key is of one of ``kinds`` or an admin's."""
    who = caller(request)
    request.app[GATEKEEPER].must_be(who, *kinds)
    return who


def pool_for(request: Asked) -> str:
    """The pool in the query; one that exists."""
    return existing(request, wire.read_pool(request))


def existing(request: Asked, pool: str) -> str:
    """``pool``, when there is such a one.

    Raises:
        NotFound: names the field.
    """
    if not request.app[ROSTER].has_pool(pool):
        raise NotFound(f"pool: there is no pool {pool!r}", code="pool_unknown", field="pool")
    return pool
