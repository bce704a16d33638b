"""The life of an answer, as admission hears of it: begun, renewed, whole."""

import asyncio

import pytest

from tests.owui.conftest import Chat, Json, Pages, WebUI, answers_are_told
from tests.owui.wire import AWAY, Wire

SESSION_S = 20


async def outlives_its_session(webui: WebUI, chat: Chat) -> None:
    """The session is over, and the answer may finish."""
    await chat.is_answered()
    webui.service.clock.advance_ms(SESSION_S * 1000 + 1)
    await webui.service.tick()
    assert (await webui.metrics())["finishing"] == 1


async def test_a_whole_answer_frees_the_slot_while_its_title_is_still_made(webui: WebUI) -> None:
    await webui.sessions_last(SESSION_S)
    ann = webui.chat("ann")
    await outlives_its_session(webui, ann)
    bob = webui.chat("bob")
    await bob.sees("You are 1st in line")
    assert await ann.is_whole() is ann.body
    await bob.is_answered()
    assert not ann.task.done()


async def test_an_answer_is_renewed_again_after_an_outage(webui: WebUI, wire: Wire) -> None:
    await webui.sessions_last(SESSION_S)
    ann = webui.chat("ann")
    await ann.is_answered()
    wire.answers["heartbeat"] = AWAY
    await wire.has(2, "heartbeat")
    del wire.answers["heartbeat"]
    await outlives_its_session(webui, ann)


async def test_an_answer_may_end_while_admission_is_away(webui: WebUI, wire: Wire) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    wire.answers["leave"] = AWAY
    assert await ann.ends() is ann.body
    await answers_are_told(webui.gate)
    assert wire.bodies("leave")[-1] == {"client": ann.message_id}
    await webui.chat("ann").is_answered()


async def test_the_end_of_an_answer_is_told_once(webui: WebUI, wire: Wire) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.is_whole()
    await answers_are_told(webui.gate)
    await ann.ends()
    await answers_are_told(webui.gate)
    told = [verb for verb, body in wire.asked if body.get("client") == ann.message_id]
    assert (told[-1], told.count("leave")) == ("leave", 1)


async def test_a_round_of_tools_is_not_held_up_while_admission_is_away(
    webui: WebUI, wire: Wire, pages: Pages
) -> None:
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    await wire.has(2, "heartbeat")  # it is fresh no longer
    wire.answers |= dict.fromkeys(("heartbeat", "join", "status", "events"), AWAY)
    assert await ann.next_round() is ann.body
    assert ann.events == []


async def test_stop_while_the_last_words_of_a_wait_are_written_leaves_them_whole(
    webui: WebUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, emit = asyncio.Event(), Chat._emit

    async def slowly(chat: Chat, event: Json) -> None:
        if event["data"]["done"]:
            writes.set()
            await asyncio.sleep(0.1)
        await emit(chat, event)

    monkeypatch.setattr(Chat, "_emit", slowly)
    await webui.sessions_last(SESSION_S)
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob")
    await bob.sees("You are 1st in line")
    await webui.session_ends(ann, "ann")
    await writes.wait()
    await bob.stop()
    assert bob.last["done"]
    assert bob.last["description"].startswith("Your turn. Waited ")
    webui.service.clock.advance_ms(SESSION_S * 1000 + 1)
    await webui.service.tick()
    assert (await webui.metrics())["finishing"] == 0  # there is no answer
