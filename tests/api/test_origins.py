"""Which web pages may call (DESIGN section 5), and what every answer carries."""

from collections.abc import AsyncIterator

import pytest

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


async def test_streams_may_be_read_too_and_carry_the_request_id(page: Caller) -> None:
    await page("POST", "/queue/join/ada")
    headers = {"Origin": OURS, "X-Request-Id": "r-1"}
    async with page.open("GET", "/queue/events/ada", headers=headers) as response:
        assert (response.headers[LEAVE], response.headers["X-Request-Id"]) == (OURS, "r-1")


async def test_the_browser_may_ask_before_it_calls(page: Caller) -> None:
    asked = await page("OPTIONS", "/queue/join/ada", headers={"Origin": OURS})
    assert (asked.status, asked.headers[LEAVE]) == (204, OURS)
    assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]
    assert (await page("OPTIONS", "/queue/join/ada", headers={"Origin": OTHER})).status == 405


@pytest.mark.parametrize(("given", "kept"), [("r-1", True), ("a b", False), ("x" * 129, False)])
async def test_a_request_id_is_kept_when_it_is_one(page: Caller, given: str, kept: bool) -> None:
    reply = await page("GET", "/healthz", headers={"X-Request-Id": given})
    assert (reply.headers["X-Request-Id"] == given) is kept
    assert reply.headers["X-Request-Id"]
