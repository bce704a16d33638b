"""The document describes this very service: its routes, its bodies, its answers."""

import re
from html.parser import HTMLParser

from aiohttp import web

from admission.api.docs import routes as docs_routes
from admission.app import ROUTES
from admission.openapi import LARGER, VIEWS, document
from admission.operations import OPERATIONS
from tests.api.calls import caller_of
from tests.conftest import Service

DOCUMENT = document("1")


def test_every_route_of_the_application_is_in_the_document_and_no_other() -> None:
    served = {
        (route.method, re.sub(r":[^}]*}", "}", route.path))  # without what a part may look like
        for routes in ROUTES
        for route in routes
        if isinstance(route, web.RouteDef)
    }
    described = {
        (method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    assert described == served
    assert docs_routes in ROUTES


def test_no_operation_is_in_the_table_twice() -> None:
    pairs = [(each.method, each.path) for group in OPERATIONS.values() for each in group]
    assert len(pairs) == len(set(pairs))


def test_every_reference_leads_somewhere() -> None:
    named = set(re.findall(r"'#/components/schemas/(\w+)'", str(DOCUMENT)))
    assert named <= set(DOCUMENT["components"]["schemas"])
    assert {*VIEWS, *LARGER} <= named, "a view nobody answers with"


def test_every_operation_has_errors_security_and_a_name_of_its_own() -> None:
    names = set()
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            names.add(operation["operationId"])
            assert "400" in operation["responses"]
            if operation["security"]:
                assert {"401", "403", "503"} <= set(operation["responses"])
    assert len(names) == sum(map(len, DOCUMENT["paths"].values()))


async def test_the_document_and_its_page_are_served(service: Service) -> None:
    anybody = caller_of(service).with_key(None)
    made = await anybody("GET", "/openapi.json")
    assert made.json["paths"] == DOCUMENT["paths"]
    page = await anybody("GET", "/docs")
    assert page.kind == "text/html"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for path in DOCUMENT["paths"]:
        assert f"<code>{path}</code>" in page.text
    found = _Links()
    found.feed(page.text)
    assert {link[1:] for link in found.links if link.startswith("#")} <= found.ids
    assert not [link for link in found.links if "//" in link]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value or "")
            if name == "id":
                self.ids.add(value or "")
