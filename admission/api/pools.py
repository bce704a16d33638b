"""Pools: their numbers, who waits, and an admin's settings."""

from aiohttp import web

from admission import views, wire
from admission.api import access
from admission.api.instances import serving
from admission.asked import Asked
from admission.auth import Kind
from admission.domain import DEFAULT_POOL
from admission.errors import Conflict
from admission.keys import ROSTER, STORE
from admission.outcomes import Occupied

PAGE = 100  # lines of the queue per reply, unless asked otherwise
PAGE_MAX = 1000

routes = web.RouteTableDef()


@routes.get("/queue/metrics")
async def metrics(request: Asked) -> web.Response:
    access.must_be(request, Kind.SERVICE)
    pool = access.pool_for(request)
    return web.json_response(views.metrics_view(pool, await request.app[STORE].metrics(pool)))


@routes.get("/queue/status")
async def queue(request: Asked) -> web.Response:
    access.must_be(request, Kind.SERVICE)
    pool = access.pool_for(request)
    offset = wire.read_number(request, "offset", 0, 1_000_000_000)
    limit = wire.read_number(request, "limit", PAGE, PAGE_MAX)
    store = request.app[STORE]
    items = await store.waiting(pool, offset=offset, limit=limit) if limit else []
    return web.json_response(views.queue_view(await store.metrics(pool), items))


@routes.get("/admin/pools")
async def pools(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    store = request.app[STORE]
    found = [views.pool_view(pool, await store.metrics(pool)) for pool in await store.pools()]
    return web.json_response({"pools": found})


@routes.put("/admin/pools/{pool}")
async def configure(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    pool = wire.read_pool(request, request.match_info["pool"])
    body = await wire.read_body(request, wire.PoolBody)
    store = request.app[STORE]
    changes = body.changes()
    if changes.keys() == {"paused"}:
        await store.pause(pool, changes["paused"])
    elif changes.keys() == {"capacity"}:
        await store.set_capacity(pool, changes["capacity"])
    elif isinstance(await store.configure(pool, changes), Occupied):
        raise Conflict(
            "kind: somebody waits or holds a slot in this pool", code="pool_occupied", field="kind"
        )
    await request.app[ROSTER].refresh()
    return web.json_response(views.pool_view(pool, await store.metrics(pool)))


@routes.delete("/admin/pools/{pool}")
async def close(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    pool = access.existing(request, wire.read_pool(request, request.match_info["pool"]))
    if pool == DEFAULT_POOL:
        raise Conflict("The default pool stays.", code="pool_default", field="pool")
    store = request.app[STORE]
    if machines := await serving(store.fleet, pool):
        raise Conflict(
            f"Machines serve this pool, or start for it: end them first ({', '.join(machines)}).",
            code="pool_has_machines",
            extra={"instances": machines},
        )
    if isinstance(await store.close_pool(pool), Occupied):
        raise Conflict("A worker serves this pool: release it first.", code="pool_staffed")
    await store.fleet.forget_decision(pool)
    await request.app[ROSTER].refresh()
    return web.json_response({"pool": pool, "closed": True})
