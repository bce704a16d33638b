"""What a chat makes of admission's replies that are no ticket."""

import asyncio

import pytest

from tests.owui.conftest import WebUI
from tests.owui.wire import Wire

FIRST = "You are 1st in line"


@pytest.mark.parametrize("status", [408, 429, 502])
async def test_a_service_in_trouble_is_away(
    webui: WebUI, wire: Wire, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    wire.answers["join"] = (status, "{}")
    assert "cannot be reached" in await webui.chat("ann").refusal()
    assert "admission_away refused=True" in caplog.text
    assert f"status {status}" in caplog.text


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_what_only_the_administrator_can_mend_is_logged_for_them(
    webui: WebUI, wire: Wire, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    wire.answers["join"] = (status, "{}")
    assert "tell your administrator" in await webui.chat("ann").refusal()
    assert f"status={status}" in caplog.text
    assert "is service_key right?" in caplog.text
    assert webui.service.service_key not in caplog.text


async def test_a_draft_that_another_frontend_takes_in_the_same_instant_is_no_error(
    webui: WebUI, wire: Wire
) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    await webui.elsewhere.join("bob")  # from now on a turn is offered, not given
    wire.answers["confirm"] = (409, '{"code": "confirm_too_late"}')
    asked = asyncio.create_task(wire.has(1, "confirm"))
    await webui.session_ends(ann, "ann")
    await asked
    await webui.elsewhere.confirm("bob")
    await bob.is_answered()
