"""Closed and reloaded pages while a chat waits: nobody's answer is computed, no place is stolen."""

import asyncio

import pytest

from tests.owui.conftest import Pages, WebUI, until

FIRST = "You are 1st in line"
GRACE_MS = 60_001


async def test_a_closed_page_loses_its_place_to_those_who_watch(webui: WebUI, pages: Pages) -> None:
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    sid = pages.open("bob")
    pages.open("cid")
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    cid = webui.chat("cid")
    await cid.sees("You are 2nd in line")
    pages.close(sid)
    await webui.is_not_attached("bob")
    webui.service.clock.advance_ms(GRACE_MS // 2)
    await webui.is_heard("cid")
    webui.service.clock.advance_ms(GRACE_MS // 2 + 1)
    await webui.service.tick()
    await until(lambda: cid_sees_first(pages))
    await webui.session_ends(ann, "ann")
    await cid.is_answered()
    assert not bob.answering.is_set()
    assert not bob.task.done()


def cid_sees_first(pages: Pages) -> bool:
    return any(event["data"].get("description", "").startswith(FIRST) for event in pages.live)


async def test_who_comes_back_in_time_has_the_old_place(webui: WebUI, pages: Pages) -> None:
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    sid = pages.open("bob")
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    ticket = (await webui.ticket("bob"))["ticket_id"]
    pages.close(sid)
    await webui.is_not_attached("bob")
    webui.service.clock.advance_ms(GRACE_MS)
    await webui.service.tick()
    assert (await webui.metrics())["waiting"] == 0
    pages.open("bob")
    await webui.waiting_are(1)
    assert (await webui.ticket("bob"))["ticket_id"] == ticket
    await webui.session_ends(ann, "ann")
    await bob.is_answered()


async def test_the_model_is_not_asked_for_a_page_that_was_closed_a_moment_ago(
    webui: WebUI, pages: Pages
) -> None:
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    sid = pages.open("bob")
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    pages.close(sid)
    await webui.is_not_attached("bob")
    await webui.session_ends(ann, "ann")  # within the grace: the slot is bob's
    await webui.becomes("bob", "active")
    assert not bob.answering.is_set()
    webui.service.clock.advance_ms(GRACE_MS)
    await webui.service.tick()
    assert "while you were away" in await bob.refusal()
    assert (await webui.metrics())["active"] == 0


async def test_a_page_that_is_loaded_again_sees_the_place_of_now(
    webui: WebUI, pages: Pages
) -> None:
    pages.open("ann")
    await webui.chat("ann").is_answered()
    pages.open("bob")
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    sid = pages.open("cid")
    cid = webui.chat("cid")
    await cid.sees("You are 2nd in line")
    await bob.stop()
    await until(lambda: cid_sees_first(pages))
    assert cid.last["description"].startswith("You are 2nd in line")  # is stored
    pages.close(sid)
    pages.open("cid")
    await cid.sees(FIRST)
    assert cid.last["done"] is False


async def test_an_app_without_a_socket_is_not_missed(webui: WebUI, pages: Pages) -> None:
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    await webui.session_ends(ann, "ann")
    await bob.is_answered()


async def test_another_page_of_the_same_user_is_presence(webui: WebUI, pages: Pages) -> None:
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    sid = pages.open("bob")
    pages.open("bob", chat="another")
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    pages.close(sid)
    await webui.session_ends(ann, "ann")
    await bob.is_answered()


async def test_nobody_watches_an_automation_and_it_waits_all_the_same(
    webui: WebUI, pages: Pages
) -> None:
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob", session_id="automation:7", automation_id="7")
    await bob.sees(FIRST)
    await webui.session_ends(ann, "ann")
    await bob.is_answered()


async def test_an_automation_does_not_come_back(webui: WebUI) -> None:
    webui.set(max_wait_s=1)
    await webui.chat("ann").is_answered()
    bob = webui.chat("bob", session_id="automation:7")
    assert await bob.refusal() == "Your turn did not come within 1 s. Please try again later."
    assert (await webui.ticket("bob"))["status"] == "disconnected"


async def test_where_sessions_cannot_be_seen_everybody_counts_as_present(
    webui: WebUI, pages: Pages
) -> None:
    del pages.module().__dict__["get_session_pool_batches"]
    pages.pool = None  # type: ignore[assignment]
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    await webui.session_ends(ann, "ann")
    await bob.is_answered()


async def test_a_channel_shows_the_place_as_its_text(webui: WebUI) -> None:
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob", session_id="channel:1", chat_id="channel:1")
    await until(lambda: bool(bob.events))
    assert bob.events[0]["type"] == "chat:completion"
    assert bob.events[0]["data"]["content"].startswith(FIRST)
    await webui.session_ends(ann, "ann")
    await bob.is_answered()
    assert bob.statuses == []


async def test_a_kept_place_is_offered_to_who_closed_the_page(webui: WebUI, pages: Pages) -> None:
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    sid = pages.open("bob")
    bob = webui.chat("bob", facts=webui.user_valves(keep_place=True))
    await bob.sees(FIRST)
    pages.close(sid)
    await bob.is_kept()
    webui.service.clock.advance_ms(GRACE_MS)
    await webui.session_ends(ann, "ann")
    await webui.becomes("bob", "draft")


async def test_a_kept_place_is_not_used_up_by_a_turn_right_after_the_page_was_closed(
    webui: WebUI, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webui.plugin, "ABSENT_S", 60.0)
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    sid = pages.open("bob")
    bob = webui.chat("bob", facts=webui.user_valves(keep_place=True))
    await bob.sees(FIRST)
    pages.close(sid)
    await webui.is_not_attached("bob")
    await asyncio.sleep(0.2)
    await webui.session_ends(ann, "ann")
    await webui.becomes("bob", "draft")
    webui.service.clock.advance_ms(GRACE_MS)
    await webui.service.tick()
    assert not bob.answering.is_set()
    pages.open("bob")
    await bob.is_answered()
