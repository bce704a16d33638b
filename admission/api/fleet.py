"""What the autoscaler decided last, for admins: why there are as many machines as there are."""

from aiohttp import web

from admission import views
from admission.api import access
from admission.asked import Asked
from admission.auth import Kind
from admission.decision_views import decided_view
from admission.keys import STORE

routes = web.RouteTableDef()


@routes.get("/admin/fleet")
async def fleet(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    found = await request.app[STORE].fleet.decisions()
    return views.answer({"pools": [decided_view(pool, each) for pool, each in found.items()]})
