"""The operations of the service, by a function; the same rules are tested in tests/contract."""

import gzip
import re
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
from aiohttp import web

from admission.api import elsewhere
from admission.app import ROUTES as SERVICE_ROUTES
from admission.functions import ROUTES, Functions
from admission.invocation import NotAnHttpEvent, given_back
from admission.settings import SettingsError
from admission.wire import BODY_BYTES_MAX
from tests.conftest import service_settings
from tests.contract.events import FORMS
from tests.functions.conftest import ADMIN, Asking, event

AGAIN = range(1, 38)  # seconds; the longest interval with its jitter


def paths(*tables: web.RouteTableDef) -> set[tuple[str, str]]:
    routes = chain.from_iterable(tables)
    return {(each.method, each.path) for each in routes if isinstance(each, web.RouteDef)}


def test_every_operation_of_the_service_is_here_or_said_to_be_elsewhere() -> None:
    served = paths(*ROUTES)
    prefixes = tuple(
        re.sub(r"\{.*", "", path) for method, path in paths(elsewhere.routes) if method == "*"
    )
    missing = {each for each in paths(*SERVICE_ROUTES) - served if not each[1].startswith(prefixes)}
    assert not missing
    assert not served & {each for each in served if each[1].startswith(prefixes)} - paths(
        elsewhere.routes
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_turn_from_join_to_leave_in_every_shape(ask: Asking, form: str) -> None:
    shape = FORMS[form].event
    joined = ask("POST", "/queue/join/ada", {"client": "c1"}, shape=shape)
    assert (joined.status, joined.json["status"]) == (200, "draft")
    confirmed = ask("POST", "/queue/confirm/ada", shape=shape)
    assert confirmed.json["status"] == "active"
    assert ask("POST", "/queue/heartbeat/ada", {}, shape=shape).status == 200
    seen = ask("GET", f"/queue/status/ada?ticket_id={joined.json['ticket_id']}", shape=shape)
    assert seen.json["ticket_id"] == joined.json["ticket_id"]
    assert ask("POST", "/queue/leave/ada", shape=shape).json["status"] == "disconnected"


@pytest.mark.parametrize("form", FORMS)
def test_a_user_id_with_every_letter_it_may_have(ask: Asking, form: str) -> None:
    shape = FORMS[form].event
    assert ask("POST", "/queue/join/a.b_c-d%40e%3Af%7Cg%2Bh", shape=shape).status == 200
    again = ask("GET", "/queue/status/a.b_c-d@e:f%7cg+h", shape=shape)
    assert again.json["user_id"] == "a.b_c-d@e:f|g+h"


def test_a_token_of_one_function_is_good_in_another(functions_of: Callable[..., Asking]) -> None:
    token = functions_of()("POST", "/queue/join/ada").json["token"]
    other = functions_of()
    assert other("GET", "/queue/status/ada", key=token).status == 200
    assert other("GET", "/queue/status/bob", key=token).status == 403


def test_ticket_answers_say_when_to_ask_again(ask: Asking) -> None:
    ask("POST", "/queue/join/ada", {"auto_confirm": True})
    for reply in (
        ask("POST", "/queue/join/bob"),
        ask("GET", "/queue/status/bob"),
        ask("POST", "/queue/heartbeat/ada"),
    ):
        assert int(reply.headers["retry-after"]) in AGAIN
    ask("POST", "/queue/leave/bob")
    over = ask("GET", "/queue/status/bob")
    assert over.json["status"] == "disconnected"
    assert "retry-after" not in over.headers


@pytest.mark.parametrize("transport", ["events", "ws"])
def test_who_would_follow_a_stream_is_told_to_poll_and_when(ask: Asking, transport: str) -> None:
    ask("POST", "/queue/join/ada", {"auto_confirm": True})
    token = ask("POST", "/queue/join/bob").json["token"]
    told = ask("GET", f"/queue/{transport}/bob?token={token}", key=None)
    assert (told.status, told.json["code"]) == (501, "no_streams_here")
    assert told.headers["content-type"].startswith("application/problem+json")
    poll = told.json["poll"]
    assert poll["path"] == "/queue/status/bob"
    assert 1.6 <= poll["after"] <= 2.4, "the first in the queue"
    assert int(told.headers["retry-after"]) in AGAIN
    assert told.json["ticket"]["position"] == 1
    assert ask("GET", f"/queue/{transport}/bob", key=None).status == 401
    assert ask("GET", f"/queue/{transport}/cy").status == 404


@pytest.mark.parametrize("path", ["/v1", "/v1/chat/completions", "/v1/models"])
def test_the_gateway_is_elsewhere_in_openais_envelope(ask: Asking, path: str) -> None:
    reply = ask("POST", path, {"model": "tiny"})
    assert (reply.status, reply.json["error"]["code"]) == (501, "no_streams_here")
    assert "GET /queue/status/USER" in reply.json["error"]["message"]
    assert "retry-after" not in reply.headers, "OpenAI's SDK would call again"


@pytest.mark.parametrize("path", ["/chat/stream", "/auth", "/wait/ada", "/docs", "/assets/x.css"])
def test_what_else_streams_or_is_a_page_is_elsewhere(ask: Asking, path: str) -> None:
    assert ask("GET", path).status == 501


def test_the_document_is_of_what_is_served(ask: Asking) -> None:
    paths_here = ask("GET", "/openapi.json", key=None).json["paths"]
    assert "/queue/join/{user_id}" in paths_here
    assert "/admin/pools/{pool}" in paths_here
    assert not [path for path in paths_here if path.startswith(("/v1", "/wait", "/queue/events"))]
    assert "/admin/usage" not in paths_here, "there is no database it could reach"


def test_usage_is_read_where_a_database_is_named(
    functions_of: Callable[..., Asking], tmp_path: object
) -> None:
    nowhere = functions_of()("GET", "/admin/usage", key=ADMIN)
    assert (nowhere.status, nowhere.json["code"]) == (501, "no_accounting_here")
    assert functions_of()("GET", "/admin/usage").status == 403
    named = functions_of(VESTIBULE_DATABASE_URL=f"sqlite:///{tmp_path}/usage.db")
    assert named("GET", "/admin/usage", key=ADMIN).status in (200, 503)
    for path in ("/admin/costs", "/admin/costs/now"):
        assert functions_of()("GET", path, key=ADMIN).status == 501
        assert named("GET", path, key=ADMIN).status in (200, 503)
    assert "/admin/usage" in named("GET", "/openapi.json").json["paths"]


def test_errors_are_problems_with_the_requests_id(ask: Asking) -> None:
    reply = ask("GET", "/queue/status/nobody", headers={"X-Request-Id": "r-1"})
    assert (reply.status, reply.json["code"]) == (404, "ticket_unknown")
    assert reply.headers["x-request-id"] == "r-1"
    assert ask("GET", "/nowhere").json["code"] == "no_such_path"
    wrong = ask("PATCH", "/queue/join/ada")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    unauthorized = ask("GET", "/queue/status/ada", key="no-such-key")
    assert (unauthorized.status, unauthorized.headers["www-authenticate"]) == (401, "Bearer")


def test_allowed_origins(functions_of: Callable[..., Asking]) -> None:
    ask = functions_of(VESTIBULE_ALLOWED_ORIGINS="https://app.example")
    asked = ask("OPTIONS", "/queue/join/ada", headers={"Origin": "https://app.example"}, key=None)
    assert asked.status == 204
    assert asked.headers["access-control-allow-origin"] == "https://app.example"
    other = ask("POST", "/queue/join/ada", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_rates_are_counted_by_the_address_that_aws_saw(
    functions_of: Callable[..., Asking],
) -> None:
    first = functions_of(VESTIBULE_RATE_ADDRESS="2/minute")
    second = functions_of(VESTIBULE_RATE_ADDRESS="2/minute")
    forged = {"X-Forwarded-For": "198.51.100.1"}
    statuses = [
        each("GET", "/queue/status/ada", key=None, headers=forged).status
        for each in (first, second, first)
    ]
    assert statuses == [401, 401, 429]
    assert second("GET", "/queue/status/ada").status == 404, "a service key is never counted"


def test_a_key_deleted_elsewhere_is_dead_at_the_next_invocation(
    functions_of: Callable[..., Asking],
) -> None:
    one, other = functions_of(), functions_of()
    made = one("POST", "/admin/keys", {"kind": "user", "user": "ada"}, key=ADMIN).json
    assert other("GET", "/queue/status/ada", key=made["key"]).status == 404, "known, no ticket"
    one("DELETE", f"/admin/keys/{made['id']}", key=ADMIN)
    assert other("GET", "/queue/status/ada", key=made["key"]).status == 401


def test_a_pool_made_elsewhere_is_known_within_a_second(
    functions_of: Callable[..., Asking], clock: object
) -> None:
    one, other = functions_of(), functions_of()
    other("GET", "/queue/metrics")
    one("PUT", "/admin/pools/extra", {"capacity": 1}, key=ADMIN)
    clock.advance_ms(1000)  # type: ignore[attr-defined]
    assert other("POST", "/queue/join/ada?pool=extra").status == 200


def test_bodies_are_bounded_also_unpacked(ask: Asking) -> None:
    large = b'{"client": "' + b"c" * BODY_BYTES_MAX + b'"}'
    assert ask("POST", "/queue/join/ada", data=large).status == 413
    packed = {"Content-Encoding": "gzip"}
    assert ask("POST", "/queue/join/ada", data=gzip.compress(large), headers=packed).status == 413
    small = gzip.compress(b'{"client": "c1"}')
    assert ask("POST", "/queue/join/ada", data=small, headers=packed).status == 200
    for broken in (small[:-9], b"no gzip"):
        reply = ask("POST", "/queue/join/ada", data=broken, headers=packed)
        assert (reply.status, reply.json["field"]) == (422, "body")
    brotli = ask("POST", "/queue/join/ada", data=b"x", headers={"Content-Encoding": "br"})
    assert brotli.status == 422


@pytest.mark.parametrize("body", ["?", "e30=\n", "é", "\ud800"])
def test_a_body_that_is_no_base64(ask: Asking, body: str) -> None:
    given = event("POST", "/queue/join/ada", {}) | {"body": body, "isBase64Encoded": True}
    assert ask.functions(given)["statusCode"] == 422


@pytest.mark.parametrize(
    "given",
    [
        {},
        [],
        {"Records": []},
        {"requestContext": {}, "rawPath": "/"},
        {"requestContext": {"http": {"method": None}}, "rawPath": "/healthz"},
        {"httpMethod": 5, "path": "/healthz"},
        event("POST", "/queue/join/ada") | {"body": {"auto_confirm": True}},
        event("POST", "/queue/join/ada") | {"body": 5},
    ],
)
def test_anything_but_a_call_is_refused(ask: Asking, given: Any) -> None:
    with pytest.raises(NotAnHttpEvent):
        ask.functions(given)


def test_settings_that_would_let_everybody_in_are_refused(empty: str) -> None:
    with pytest.raises(SettingsError, match="VESTIBULE_AUTH"):
        Functions(service_settings(VESTIBULE_AUTH="off", REDIS_URL=empty))
    with pytest.raises(SettingsError, match="REDIS_URL"):
        Functions(service_settings())


@pytest.mark.parametrize("form", FORMS)
def test_a_token_in_a_cookie_among_others(ask: Asking, form: str) -> None:
    token = ask("POST", "/queue/join/ada").json["token"]
    cookies = {"Cookie": f"a=1; vestibule_token={token}; b=2"}
    shape = FORMS[form].event
    told = ask("GET", "/queue/events/ada", key=None, headers=cookies, shape=shape)
    assert told.status == 501
    assert ask("GET", "/queue/events/ada", key=None, shape=shape).status == 401


@pytest.mark.parametrize("form", ["http-api-1.0", "rest-api"])
def test_a_header_that_came_twice_counts_twice(ask: Asking, form: str) -> None:
    """As HTTP/2 sends cookies: each in a header of its own."""
    token = ask("POST", "/queue/join/ada").json["token"]
    given = event("GET", "/queue/events/ada", key=None, shape=FORMS[form].event)
    cookies = ["a=1", f"vestibule_token={token}", "b=2"]
    given["headers"]["Cookie"], given["multiValueHeaders"]["Cookie"] = cookies[-1], cookies
    assert ask.functions(given)["statusCode"] == 501


def test_a_header_with_several_values_is_given_back_with_all() -> None:
    response = web.Response(headers=[("Vary", "Origin"), ("Vary", "Accept")])
    assert given_back(response, {"version": "2.0"})["headers"]["Vary"] == "Origin, Accept"
    old = given_back(response, {"httpMethod": "GET"})
    assert old["multiValueHeaders"]["Vary"] == ["Origin", "Accept"]
