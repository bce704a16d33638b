"""Sessions that end otherwise than by running out: what their users are told."""

import pytest

from admission.domain import DEFAULT_POOL
from tests.owui.conftest import Chat, Pages, WebUI, until

LEFT = "Time left in your session: less than a minute"


async def test_who_left_before_the_end_is_told_nothing_of_it(webui: WebUI, pages: Pages) -> None:
    await webui.sessions_last(1)
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.ends()
    await ann.sees(LEFT)
    await webui.elsewhere.leave("ann")
    await until(lambda: not webui.gate._endings._watching)
    assert ann.toasts == [LEFT]


async def bob_follows_ann(webui: WebUI, pages: Pages) -> Chat:
    """Ann's session of a second is over, and its slot is bob's; her chat."""
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.ends()
    bob = webui.chat("bob", session_id="automation:1")
    await bob.sees("You are 1st in line")
    await ann.sees(LEFT)
    webui.service.clock.advance_ms(1_001)
    await webui.service.tick()
    await bob.is_answered()
    return ann


async def test_who_is_put_back_in_line_is_told_the_place(webui: WebUI, pages: Pages) -> None:
    await webui.service.store.configure(DEFAULT_POOL, {"requeue": True, "session_ms": 1000})
    ann = await bob_follows_ann(webui, pages)
    await ann.sees("Your session is over. You are 1st in line")
    toasts = [event["data"] for event in ann.events if event["type"] == "notification"]
    assert [toast["type"] for toast in toasts] == ["warning", "info"]


async def test_who_waits_already_with_another_message_is_told_there_only(
    webui: WebUI, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webui.plugin, "READ_AGAIN_S", 2.0)  # until the end is noticed
    await webui.sessions_last(1)
    ann = await bob_follows_ann(webui, pages)
    again = webui.chat("ann")
    await again.sees("Your session is over. You are 1st in line")
    assert webui.gate._endings._watching
    await until(lambda: not webui.gate._endings._watching)
    assert ann.last["hidden"]
    assert ann.toasts == [LEFT]
    assert not webui.gate._lobby.returns._chats
