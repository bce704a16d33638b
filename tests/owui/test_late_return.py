"""Who comes back to a chat whose session came and went meanwhile."""

from tests.owui.conftest import Pages, WebUI

FIRST = "You are 1st in line"


async def test_a_session_that_came_and_went_is_followed_by_a_new_turn(
    webui: WebUI, pages: Pages
) -> None:
    await webui.sessions_last(20)
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    page = pages.open("bob")
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    pages.close(page)
    await webui.is_not_attached("bob")
    await webui.session_ends(ann, "ann")
    await webui.becomes("bob", "active")
    webui.service.clock.advance_ms(20_001)
    await webui.service.tick()
    assert (await webui.ticket("bob"))["reason"] == "session_timeout"
    assert not bob.answering.is_set()
    pages.open("bob")
    await bob.is_answered()
    assert (await webui.ticket("bob"))["status"] == "active"
