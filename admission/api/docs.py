"""The description of this API: for machines as an OpenAPI document, for people as a page of it."""

from functools import cache
from importlib.metadata import version

from aiohttp import web

from admission.api.pages import PAGE_HEADERS
from admission.openapi import document
from admission.pages.waiting import templates

routes = web.RouteTableDef()


@routes.get("/openapi.json")
async def openapi(_: web.Request) -> web.Response:
    return web.json_response(document(version("vestibule")))


@routes.get("/docs")
async def docs(_: web.Request) -> web.Response:
    return web.Response(text=_page(), content_type="text/html", headers=PAGE_HEADERS)


@cache
def _page() -> str:
    made = document(version("vestibule"))
    title = f"{made['info']['title']} API"
    return templates.get_template("docs.html").render(
        lang="en", title=title, docs=True, document=made
    )
