"""Operations of a function whose libraries are only imported once somebody asks for them, and which
a function's package may be without.
"""

from importlib.metadata import version

from aiohttp import web

from admission.api import access, elsewhere
from admission.asked import Asked
from admission.auth import Kind
from admission.errors import NotHere
from admission.keys import LEDGER, SETTINGS

routes = web.RouteTableDef()


@routes.get("/openapi.json")
async def openapi(request: Asked) -> web.Response:
    """The operations that are served here."""
    from admission.openapi import document

    missing = {each.handler for each in elsewhere.routes if isinstance(each, web.RouteDef)}
    if request.app[SETTINGS].database_url is None:
        missing |= {usage, models, usage_of_project}
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


async def _of_ledger(request: Asked, operation: str) -> web.StreamResponse:
    """What ``api.usage`` answers, over a database that is opened for this call alone.

    Raises:
        NotHere: there is none that a function can reach, or its package cannot.
    """
    access.must_be(request, Kind.ADMIN)
    settings = request.app[SETTINGS]
    if settings.database_url is None:
        raise _no_accounting("VESTIBULE_DATABASE_URL names no database that it could reach")
    try:
        from admission.accounting.ledger import Ledger
        from admission.api import usage as served
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
