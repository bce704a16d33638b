"""Near the end of a session and after it: what the user is told, and what a late round of tools
may still do."""

import asyncio

import pytest

from tests.owui.conftest import Pages, WebUI, until

FIRST = "You are 1st in line"


async def test_the_time_left_and_the_end_are_told_in_the_last_chat(
    webui: WebUI, pages: Pages
) -> None:
    pages.open("ann")
    await webui.sessions_last(1)
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.ends()
    await ann.sees("Time left in your session: less than a minute")
    assert ann.toasts == ["Time left in your session: less than a minute"]
    webui.service.clock.advance_ms(1_001)
    await webui.service.tick()
    await ann.sees("Your session is over. Your next message waits for a new turn.")


async def test_a_message_near_the_end_says_so_at_once(webui: WebUI, pages: Pages) -> None:
    pages.open("ann")
    await webui.sessions_last(1200)
    await webui.chat("ann").is_answered()
    webui.service.clock.advance_ms(1_090_000)
    late = webui.chat("ann")
    await late.is_answered()
    assert late.last == {
        "description": "Time left in your session: 1 minute",
        "done": True,
        "hidden": False,
    }


async def test_a_user_need_not_be_told(webui: WebUI, pages: Pages) -> None:
    webui.set(show_time_left=False)
    await webui.sessions_last(1)
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    assert not webui.gate._endings._watching


async def test_after_the_end_the_next_message_says_why_it_waits(webui: WebUI, pages: Pages) -> None:
    await webui.sessions_last(20)
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.ends()
    await webui.gate._answers.all_over()
    webui.service.clock.advance_ms(20_001)
    bob = webui.chat("bob", session_id="automation:1")
    await bob.is_answered()
    again = webui.chat("ann")
    await again.sees(f"Your session is over. {FIRST}")


async def test_a_round_of_tools_waits_also_when_the_user_is_in_line_again(
    webui: WebUI, pages: Pages
) -> None:
    await webui.sessions_last(20)
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    await asyncio.sleep(0.06)
    webui.service.clock.advance_ms(20_001)
    await webui.service.tick()
    webui.service.clock.advance_ms(120_001)  # the longest an answer may finish
    await webui.service.tick()
    await webui.service.capacity(0)
    await webui.chat("ann").sees("Your session is over. ")
    late = asyncio.create_task(ann.next_round())
    await ann.sees(FIRST)
    assert not late.done()
    late.cancel()


async def test_a_session_that_ended_long_after_its_join_explains_the_line(
    webui: WebUI, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webui.plugin, "POOL_KNOWN_S", 0.0)
    await webui.sessions_last(20)
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.ends()
    await webui.gate._answers.all_over()
    webui.service.clock.advance_ms(20_001)
    await webui.service.capacity(0)
    await webui.chat("ann").sees("Your session is over. ")


async def test_a_round_of_tools_within_the_session_is_not_held_up(
    webui: WebUI, pages: Pages
) -> None:
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    await asyncio.sleep(0.06)  # no longer fresh: BEAT_S of these tests
    assert await ann.next_round() is ann.body
    assert ann.events == []


async def test_a_round_of_tools_that_may_finish_is_not_held_up(webui: WebUI, pages: Pages) -> None:
    await webui.sessions_last(20)
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    await asyncio.sleep(0.06)
    webui.service.clock.advance_ms(20_001)
    await webui.service.tick()
    assert (await webui.metrics())["finishing"] == 1
    assert await ann.next_round() is ann.body


async def test_a_round_of_tools_after_all_that_waits_as_a_new_message_would(
    webui: WebUI, pages: Pages
) -> None:
    await webui.sessions_last(20)
    pages.open("ann")
    pages.open("bob")
    ann = webui.chat("ann")
    await ann.is_answered()
    await asyncio.sleep(0.06)
    webui.service.clock.advance_ms(20_001)
    await webui.service.tick()
    webui.service.clock.advance_ms(120_001)  # the longest an answer may finish
    await webui.service.tick()
    bob = webui.chat("bob")
    await bob.is_answered()
    late = asyncio.create_task(ann.next_round())
    await ann.sees(f"Your session is over. {FIRST}")
    assert not late.done()
    await webui.session_ends(bob, "bob")
    assert await late is ann.body
    await until(lambda: ann.last["description"].startswith("Your turn. Waited "))
