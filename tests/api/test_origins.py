"""Which web pages may call (DESIGN section 5), and what every answer carries."""

from collections.abc import AsyncIterator

import pytest

from admission.settings import SettingsError, read_settings
from tests.api.calls import Caller, caller_of
from tests.api.conftest import Served

OURS, OTHER = "https://chat.example.org", "https://evil.example.org"
LEAVE = "Access-Control-Allow-Origin"


@pytest.fixture
async def page(served: Served) -> AsyncIterator[Caller]:
    """Calls a service that allows pages of one origin."""
    async with served(VESTIBULE_ALLOWED_ORIGINS=OURS) as service:
        yield caller_of(service)


async def test_a_page_of_an_allowed_origin_may_read_every_answer(page: Caller) -> None:
    await page("POST", "/queue/join/ada")
    for path in ("/queue/status/ada", "/queue/status/nobody", "/nowhere", "/v1/models"):
        reply = await page("GET", path, headers={"Origin": OURS})
        assert (reply.headers[LEAVE], reply.headers["Vary"]) == (OURS, "Origin")
        refused = await page("GET", path, headers={"Origin": OTHER})
        assert LEAVE not in refused.headers
        assert refused.headers["Vary"] == "Origin"  # no cache shows one's answer to the other
        assert "Access-Control-Allow-Credentials" not in reply.headers  # cookies are for our pages


async def test_streams_may_be_read_too_and_carry_the_request_id(page: Caller) -> None:
    await page("POST", "/queue/join/ada")
    headers = {"Origin": OURS, "X-Request-Id": "r-1"}
    async with page.open("GET", "/queue/events/ada", headers=headers) as response:
        assert (response.headers[LEAVE], response.headers["X-Request-Id"]) == (OURS, "r-1")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_the_browser_may_ask_before_it_calls(page: Caller, method: str) -> None:
    asking = {"Origin": OURS, "Access-Control-Request-Method": method}
    asked = await page.with_key(None)("OPTIONS", "/queue/join/ada", headers=asking)
    assert (asked.status, asked.headers[LEAVE]) == (204, OURS)
    assert method in asked.headers["Access-Control-Allow-Methods"]
    assert {"Authorization", "X-Vestibule-Wait"} <= set(
        asked.headers["Access-Control-Allow-Headers"].split(", ")
    )
    assert int(asked.headers["Access-Control-Max-Age"]) > 0
    assert (await page("OPTIONS", "/queue/join/ada", headers={"Origin": OTHER})).status == 405


async def test_a_page_may_read_when_to_try_again(page: Caller) -> None:
    headers = (await page("GET", "/healthz", headers={"Origin": OURS})).headers
    for told in ("Retry-After", "X-Should-Retry"):  # which SDKs in a page obey
        assert told in headers["Access-Control-Expose-Headers"]


async def test_what_varies_otherwise_still_does(page: Caller) -> None:
    reply = await page("GET", "/wait/ada", headers={"Origin": OURS})
    assert {"Accept-Language", "Origin"} <= set(reply.headers["Vary"].split(", "))


async def test_nobody_may_call_from_a_page_unless_it_is_allowed(call: Caller) -> None:
    reply = await call("GET", "/healthz", headers={"Origin": OURS})
    assert LEAVE not in reply.headers
    assert (await call("OPTIONS", "/healthz", headers={"Origin": OURS})).status == 405


@pytest.mark.parametrize("origin", ["*", "chat.example.org", "https://x/", "null", "ws://x"])
def test_an_origin_that_is_none_is_an_error_at_start(origin: str) -> None:
    with pytest.raises(SettingsError, match="VESTIBULE_ALLOWED_ORIGINS: .* is not an origin"):
        read_settings({"VESTIBULE_ALLOWED_ORIGINS": f"{OURS},{origin}"})


@pytest.mark.parametrize(("given", "kept"), [("r-1", True), ("a b", False), ("x" * 129, False)])
async def test_a_request_id_is_kept_when_it_is_one(page: Caller, given: str, kept: bool) -> None:
    reply = await page("GET", "/healthz", headers={"X-Request-Id": given})
    assert (reply.headers["X-Request-Id"] == given) is kept
    assert reply.headers["X-Request-Id"]
