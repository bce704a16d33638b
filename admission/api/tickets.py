"""A user's turn over REST: join, confirm, leave, heartbeat, status.

Every answer with a ticket says in ``Retry-After`` when to ask again, for those who poll.
"""

import random
from typing import Any

from aiohttp import hdrs, web

from admission import joins, polling, views, wire
from admission.api import access
from admission.asked import Asked
from admission.auth import Caller, Kind
from admission.domain import Ticket
from admission.errors import Conflict, NotFound
from admission.keys import GATEKEEPER, ROSTER, STORE
from admission.outcomes import (
    Alive,
    Confirmed,
    Ended,
    Left,
    NotConfirmed,
    Unknown,
)

routes = web.RouteTableDef()


@routes.post("/queue/join/{user_id}")
async def join(request: Asked) -> web.Response:
    who = access.caller(request)
    user = access.user_for(request, who)
    body = await wire.read_body(request, wire.JoinBody)
    pool = _pool_of_model(request, body.model) if body.model else access.pool_for(request)
    ticket = await joins.join(request, who, pool, user, body)
    token = request.app[GATEKEEPER].token_for(user, who.project)
    return _told(request, ticket, {**views.ticket_view(ticket), "token": token})


@routes.post("/queue/confirm/{user_id}")
async def confirm(request: Asked) -> web.Response:
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
            raise unknown(user)


@routes.post("/queue/leave/{user_id}")
async def leave(request: Asked) -> web.Response:
    who = access.caller(request)
    user = access.user_for(request, who)
    body = await wire.read_body(request, wire.LeaveBody)
    pool = access.pool_for(request)
    outcome = await request.app[STORE].leave(
        pool, user, client=body.client or "", ticket=body.ticket_id or ""
    )
    return _left(pool, user, outcome)


@routes.post("/queue/heartbeat/{user_id}")
async def heartbeat(request: Asked) -> web.Response:
    who = access.caller(request)
    user = access.user_for(request, who)
    body = await wire.read_body(request, wire.HeartbeatBody)
    pool = access.pool_for(request)
    outcome = await request.app[STORE].heartbeat(
        pool, user, client=body.client or "", ticket=body.ticket_id or ""
    )
    match outcome:
        case Alive(ticket):
            return _answer(request, who, ticket, finishing=ticket.finishing)
        case Ended(ticket):
            # An answer that may finish is not to wait for another turn.
            seen = {**_seen(ticket), "finishing": ticket.finishing}
            raise NotFound("This turn is over.", code="ticket_ended", extra=seen)
        case Unknown():
            raise unknown(user)


@routes.get("/queue/status/{user_id}")
async def status(request: Asked) -> web.Response:
    who = access.caller(request)
    user = access.user_for(request, who)
    ticket_id = request.query.get("ticket_id", "")
    match await request.app[STORE].status(access.pool_for(request), user, ticket=ticket_id):
        case Unknown():
            raise unknown(user)
        case Ticket() as ticket:
            return _answer(request, who, ticket)


@routes.post("/admin/queue/cancel/{user_id}")
async def cancel(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    user = wire.read_user(request)
    body = await wire.read_body(request, wire.CancelBody)
    pool = access.pool_for(request)
    outcome = await request.app[STORE].cancel(pool, user, ticket=body.ticket_id or "")
    return _left(pool, user, outcome)


def _pool_of_model(request: Asked, model: str) -> str:
    pool = request.app[ROSTER].pool_of(model)
    if pool is None:
        raise NotFound(f"model: no worker serves {model!r}", code="model_not_served", field="model")
    return pool


def _answer(request: Asked, who: Caller, ticket: Ticket, **more: bool) -> web.Response:
    view = {**views.ticket_view(ticket), **more}
    token = request.app[GATEKEEPER].renewal_for(who)
    return _told(request, ticket, {**view, "token": token} if token else view)


def _told(request: Asked, ticket: Ticket, view: dict[str, Any]) -> web.Response:
    response = views.answer(view)
    after_s = poll_after_s(request, ticket)
    if after_s is not None:
        response.headers[hdrs.RETRY_AFTER] = str(whole_seconds(after_s))
    return response


def poll_after_s(request: Asked, ticket: Ticket) -> float | None:
    """When to ask for this ticket again; None when nothing is to come."""
    return polling.again_s(ticket, request.app[ROSTER].policy(ticket.pool), random.random())


def whole_seconds(after_s: float) -> int:
    """As a header has it; up or down by chance, so that on average they are the same."""
    return max(1, int(after_s + random.random()))


def _left(pool: str, user: str, outcome: Left | Unknown) -> web.Response:
    if isinstance(outcome, Unknown):
        raise unknown(user)
    previous, status = outcome.previous, outcome.status
    return views.answer(
        {"user_id": user, "pool": pool, "previous_status": previous, "status": status}
    )


def _seen(ticket: Ticket) -> dict[str, Any]:
    return {"ticket": views.ticket_view(ticket)}


def unknown(user: str) -> NotFound:
    """There is no ticket of this user."""
    return NotFound(f"{user} has no ticket.", code="ticket_unknown")
