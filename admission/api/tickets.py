"""A user's turn over REST: join, confirm, leave, heartbeat, status."""

import uuid
from functools import partial
from typing import Any

from aiohttp import web

from admission import wire
from admission.api import access
from admission.auth import Caller, Kind
from admission.domain import DEFAULT_PRIORITY, Ticket
from admission.errors import BadInput, Conflict, Forbidden, NotFound, PoolPaused, QueueFull
from admission.keys import DIRECTORY, GATEKEEPER, STORE
from admission.outcomes import (
    Alive,
    Confirmed,
    Ended,
    Joined,
    Left,
    NotConfirmed,
    Refused,
    Unknown,
)

RETRY_FULL_S = 30  # a place may be free by then; nothing is promised

routes = web.RouteTableDef()


@routes.post("/queue/join/{user_id}")
async def join(request: web.Request) -> web.Response:
    who = access.caller(request)
    user = access.user_for(request, who)
    body = await wire.read_body(request, wire.JoinBody)
    pool = _pool_of_model(request, body.model) if body.model else access.pool_for(request)
    take = partial(
        request.app[STORE].join,
        pool,
        user,
        ticket=uuid.uuid4().hex,
        request=body.request_id or "",
        auto_confirm=body.auto_confirm,
        will_return=body.will_return,
        client=body.client or "",
    )
    own = request.app[GATEKEEPER].priority_of(who, user)
    outcome = await take(priority=_priority(who, own, body.priority))
    if outcome == Refused("unknown_class") and body.priority is None:
        outcome = await take()  # the user's class is one of other pools
    match outcome:
        case Joined(ticket):
            token = request.app[GATEKEEPER].token_for(user, who.project)
            return wire.answer({**wire.ticket_view(ticket), "token": token})
        case Refused("unknown_class"):
            raise BadInput(f"priority: pool {pool!r} has no such class", field="priority")
        case Refused("request_needed"):
            raise Conflict(
                "This pool gives a turn to each request: name it in request_id.",
                code="request_pool",
                field="request_id",
            )
        case Refused("full"):
            raise QueueFull(
                "The queue is full; nobody new can wait now.", retry_after_s=RETRY_FULL_S
            )
        case Refused():
            raise PoolPaused("This pool takes nobody new now.", retry_after_s=RETRY_FULL_S)


@routes.post("/queue/confirm/{user_id}")
async def confirm(request: web.Request) -> web.Response:
    who = access.caller(request)
    user = access.user_for(request, who)
    body = await wire.read_body(request, wire.ConfirmBody)
    pool = access.pool_for(request)
    outcome = await request.app[STORE].confirm(pool, user, ticket=body.ticket_id or "")
    match outcome:
        case Confirmed(ticket):
            return _answer(request, who, ticket)
        case NotConfirmed("ended", ticket):
            raise NotFound("This turn is over.", code="ticket_ended", extra=_seen(ticket))
        case NotConfirmed("stale", ticket):
            raise Conflict(
                "ticket_id: not this user's current ticket",
                code="ticket_stale",
                field="ticket_id",
                extra=_seen(ticket),
            )
        case NotConfirmed(_, ticket):
            raise Conflict("No slot is offered yet.", code="still_waiting", extra=_seen(ticket))
        case Unknown():
            raise _unknown(user)


@routes.post("/queue/leave/{user_id}")
async def leave(request: web.Request) -> web.Response:
    who = access.caller(request)
    user = access.user_for(request, who)
    body = await wire.read_body(request, wire.LeaveBody)
    pool = access.pool_for(request)
    outcome = await request.app[STORE].leave(
        pool, user, client=body.client or "", ticket=body.ticket_id or ""
    )
    match outcome:
        case Left(previous, status):
            return wire.answer(
                {"user_id": user, "pool": pool, "previous_status": previous, "status": status}
            )
        case Unknown():
            raise _unknown(user)


@routes.post("/queue/heartbeat/{user_id}")
async def heartbeat(request: web.Request) -> web.Response:
    who = access.caller(request)
    user = access.user_for(request, who)
    body = await wire.read_body(request, wire.HeartbeatBody)
    pool = access.pool_for(request)
    outcome = await request.app[STORE].heartbeat(
        pool, user, client=body.client or "", ticket=body.ticket_id or ""
    )
    match outcome:
        case Alive(ticket):
            return _answer(request, who, ticket)
        case Ended(ticket):
            raise NotFound("This turn is over.", code="ticket_ended", extra=_seen(ticket))
        case Unknown():
            raise _unknown(user)


@routes.get("/queue/status/{user_id}")
async def status(request: web.Request) -> web.Response:
    who = access.caller(request)
    user = access.user_for(request, who)
    ticket_id = request.query.get("ticket_id", "")
    match await request.app[STORE].status(access.pool_for(request), user, ticket=ticket_id):
        case Unknown():
            raise _unknown(user)
        case Ticket() as ticket:
            return _answer(request, who, ticket)


@routes.post("/admin/queue/cancel/{user_id}")
async def cancel(request: web.Request) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    user = wire.read_user(request)
    body = await wire.read_body(request, wire.CancelBody)
    pool = access.pool_for(request)
    match await request.app[STORE].cancel(pool, user, ticket=body.ticket_id or ""):
        case Left(previous, status):
            return wire.answer(
                {"user_id": user, "pool": pool, "previous_status": previous, "status": status}
            )
        case Unknown():
            raise _unknown(user)


def _priority(who: Caller, own: str | None, named: str | None) -> str:
    """The class of a new ticket: trusted callers may name any, others have the one that an admin
    gave the user or the key (``own``).

    Raises:
        Forbidden: a class that is not the caller's.
    """
    own = own or DEFAULT_PRIORITY
    if named in (None, own) or who.kind in (Kind.SERVICE, Kind.ADMIN):
        return named or own
    raise Forbidden(f"priority: yours is {own!r}", field="priority")


def _pool_of_model(request: web.Request, model: str) -> str:
    pool = request.app[DIRECTORY].pool_of(model)
    if pool is None:
        raise NotFound(f"model: no worker serves {model!r}", code="model_not_served", field="model")
    return pool


def _answer(request: web.Request, who: Caller, ticket: Ticket) -> web.Response:
    view = wire.ticket_view(ticket)
    token = request.app[GATEKEEPER].renewal_for(who)
    return wire.answer({**view, "token": token} if token else view)


def _seen(ticket: Ticket) -> dict[str, Any]:
    return {"ticket": wire.ticket_view(ticket)}


def _unknown(user: str) -> NotFound:
    return NotFound(f"{user} has no ticket.", code="ticket_unknown")
