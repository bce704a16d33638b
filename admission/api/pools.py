"""Pools: their numbers, who waits, and an admin's settings."""

from aiohttp import web

from admission import wire
from admission.api import access
from admission.auth import Kind
from admission.keys import DIRECTORY, STORE

PAGE = 100  # lines of the queue per reply, unless asked otherwise
PAGE_MAX = 1000

routes = web.RouteTableDef()


@routes.get("/queue/metrics")
async def metrics(request: web.Request) -> web.Response:
    access.must_be(request, Kind.SERVICE)
    pool = access.pool_for(request)
    return web.json_response(wire.metrics_view(pool, await request.app[STORE].metrics(pool)))


@routes.get("/queue/status")
async def queue(request: web.Request) -> web.Response:
    access.must_be(request, Kind.SERVICE)
    pool = access.pool_for(request)
    offset = wire.read_number(request, "offset", 0, 1_000_000_000)
    limit = wire.read_number(request, "limit", PAGE, PAGE_MAX)
    store = request.app[STORE]
    items = await store.waiting(pool, offset=offset, limit=limit) if limit else []
    return web.json_response(wire.queue_view(await store.metrics(pool), items))


@routes.get("/admin/pools")
async def pools(request: web.Request) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    store = request.app[STORE]
    views = [wire.pool_view(pool, await store.metrics(pool)) for pool in await store.pools()]
    return web.json_response({"pools": views})


@routes.put("/admin/pools/{pool}")
async def configure(request: web.Request) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    pool = wire.read_pool(request, request.match_info["pool"])
    body = await wire.read_body(request, wire.PoolBody)
    store = request.app[STORE]
    await store.configure(pool, body.changes())
    await request.app[DIRECTORY].refresh()
    return web.json_response(wire.pool_view(pool, await store.metrics(pool)))
