"""Operations of a function whose libraries are only imported once somebody asks for them, and which
a function's package may be without.
"""

from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.metadata import version
from typing import cast

from aiohttp import web

from admission.api import access, elsewhere, instances
from admission.asked import Asked
from admission.auth import Kind
from admission.errors import BadInput, NotHere
from admission.keys import LEDGER, SETTINGS

Handler = Callable[[Asked], Awaitable[web.StreamResponse]]

routes = web.RouteTableDef()


@routes.get("/openapi.json")
async def openapi(request: Asked) -> web.Response:
    """The operations that are served here."""
    from admission.openapi import document

    missing = {each.handler for each in elsewhere.routes if isinstance(each, web.RouteDef)}
    if request.app[SETTINGS].database_url is None:
        missing |= {usage, models, usage_of_project, history, costs, costs_now}
    here = frozenset(
        (route.method, route.resource.canonical)
        for route in request.app.router.routes()
        if route.resource and route.handler not in missing
    )
    return web.json_response(document(version("vestibule"), here))


@routes.get("/admin/usage")
async def usage(request: Asked) -> web.StreamResponse:
    return await _of_ledger(request, "usage")


@routes.get("/admin/usage/models")
async def models(request: Asked) -> web.StreamResponse:
    return await _of_ledger(request, "models")


@routes.get("/admin/projects/{id}/usage")
async def usage_of_project(request: Asked) -> web.StreamResponse:
    return await _of_ledger(request, "usage_of_project")


@routes.get("/admin/history")
async def history(request: Asked) -> web.StreamResponse:
    return await _of_ledger(request, "history", "history")


@routes.get("/admin/costs")
async def costs(request: Asked) -> web.StreamResponse:
    return await _of_ledger(request, "costs", "costs")


@routes.get("/admin/costs/now")
async def costs_now(request: Asked) -> web.StreamResponse:
    return await _of_ledger(request, "now", "costs")


@routes.get("/admin/instances")
async def all_instances(request: Asked) -> web.StreamResponse:
    """
    Raises:
        BadInput: those that are archived are only in SQL, and there is none that it could reach.
    """
    if request.query.get("state") == "archived":
        if request.app[SETTINGS].database_url is None:
            access.must_be(request, Kind.ADMIN)
            raise BadInput(
                "state: those that are archived are in the accounting's database, and no"
                " VESTIBULE_DATABASE_URL names one to this function",
                code="no_accounting_here",
                field="state",
            )
        return await _of_ledger(request, "instances", "instances")
    return await cast(Handler, instances.instances)(request)


@routes.get("/admin/instances/{instance_id}")
async def instance(request: Asked) -> web.StreamResponse:
    if request.app[SETTINGS].database_url is None:
        return await cast(Handler, instances.instance)(request)
    return await _of_ledger(request, "instance", "instances")


async def _of_ledger(request: Asked, operation: str, module: str = "usage") -> web.StreamResponse:
    """What the service answers, over a database that is opened for this call alone.

    Raises:
        NotHere: there is none that a function can reach, or its package cannot.
    """
    access.must_be(request, Kind.ADMIN)
    settings = request.app[SETTINGS]
    if settings.database_url is None:
        raise _no_accounting("VESTIBULE_DATABASE_URL names no database that it could reach")
    try:
        from admission.accounting.ledger import Ledger

        served = import_module(f"admission.api.{module}")
    except ImportError as error:
        raise _no_accounting(f"its package is without {error.name}") from error
    request.app[LEDGER] = ledger = Ledger(settings.ledger_url(), writes=False)
    try:
        answer: web.StreamResponse = await getattr(served, operation)(request)
        return answer
    finally:
        ledger.close()


def _no_accounting(why: str) -> NotHere:
    return NotHere(f"This function does not read the accounting: {why}.", code="no_accounting_here")
