"""What handlers ask first: who is calling, for which user and pool."""

from aiohttp import web

from admission import wire
from admission.auth import Caller, Kind
from admission.errors import NotFound
from admission.keys import DIRECTORY, GATEKEEPER


def caller(request: web.Request) -> Caller:
    """Who is calling, by the Authorization header."""
    return request.app[GATEKEEPER].caller(request.headers)


def user_for(request: web.Request, who: Caller) -> str:
    """The user in the path, for whom the caller may act."""
    user = wire.read_user(request)
    request.app[GATEKEEPER].may_act_for(who, user)
    return user


def must_be(request: web.Request, *kinds: Kind) -> Caller:
    """The caller, whose key is of one of ``kinds`` or an admin's."""
    who = caller(request)
    request.app[GATEKEEPER].must_be(who, *kinds)
    return who


def pool_for(request: web.Request) -> str:
    """The pool in the query; one that exists."""
    return existing(request, wire.read_pool(request))


def existing(request: web.Request, pool: str) -> str:
    """``pool``, when there is such a one.

    Raises:
        NotFound: names the field.
    """
    if not request.app[DIRECTORY].has_pool(pool):
        raise NotFound(f"pool: there is no pool {pool!r}", code="pool_unknown", field="pool")
    return pool
