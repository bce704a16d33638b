"""What a function does not serve: streams, the gateway and pages are the service's. Who would
follow a ticket's changes is told to ask for them, and when.
"""

from aiohttp import web

from admission import views, wire
from admission.api import access, tickets
from admission.asked import Asked
from admission.auth import Kind
from admission.errors import NotHere
from admission.keys import GATEKEEPER, STORE
from admission.outcomes import Unknown

routes = web.RouteTableDef()


@routes.get("/queue/events/{user_id}")
@routes.get("/queue/ws/{user_id}")
async def follow(request: Asked) -> web.Response:
    user, pool = wire.read_user(request), access.pool_for(request)
    request.app[GATEKEEPER].may_act_for(access.visitor(request), user)
    ticket_id = request.query.get("ticket_id", "")
    ticket = await request.app[STORE].status(pool, user, ticket=ticket_id)
    if isinstance(ticket, Unknown):
        raise tickets.unknown(user)
    view = {"ticket": views.ticket_view(ticket)}
    after_s = tickets.poll_after_s(request, ticket)
    if after_s is None:
        raise NotHere("A function gives no streams; this turn is over.", extra={**view})
    raise NotHere(
        f"A function gives no streams: ask GET /queue/status/{user} after {after_s:.1f} s, or POST"
        f" /queue/heartbeat/{user}, which keeps the place too. Each answer says when to ask again.",
        retry_after_s=tickets.whole_seconds(after_s),
        extra={"poll": {"path": f"/queue/status/{user}", "after": round(after_s, 3)}, **view},
    )


@routes.get("/admin/events")
async def fleet_events(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    raise NotHere("A function gives no streams: ask GET /admin/instances again.")


@routes.route("*", "/v1")
@routes.route("*", "/v1/{path:.*}")
@routes.route("*", "/api/{path:.*}")
@routes.route("*", "/auth")
@routes.route("*", "/auth/{path:.*}")
@routes.route("*", "/chat/stream")
async def relay(request: Asked) -> web.Response:
    raise NotHere(
        f"A function gives no streams and relays to no model: {request.path} is the service's. A"
        " turn can be taken here, by POST /queue/join/USER, and followed by GET /queue/status/USER"
        " at the intervals which its answers name in Retry-After."
    )


@routes.route("*", "/wait/{path:.*}")
@routes.route("*", "/assets/{path:.*}")
@routes.route("*", "/docs")
async def page(request: Asked) -> web.Response:
    raise NotHere(f"{request.path} is a page, which the service shows.", code="no_pages_here")
