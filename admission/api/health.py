"""Is this process alive, and can it do its work."""

from aiohttp import web

from admission.asked import Asked
from admission.keys import ROSTER, STORE

routes = web.RouteTableDef()


@routes.get("/healthz")
async def healthz(_: Asked) -> web.Response:
    return web.json_response({"status": "alive"})


@routes.get("/readyz")
async def readyz(request: Asked) -> web.Response:
    """200 when Redis answers (it is given a script anew when it lost it); the body reports the
    workers."""
    await request.app[STORE].ping()
    return web.json_response({"status": "ready", "workers": request.app[ROSTER].count()})
