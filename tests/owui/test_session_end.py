"""Near the end of a session and after it: what the user is told, and what a late round of tools
may still do."""

import asyncio
from typing import Any

import pytest

from admission.domain import DEFAULT_POOL
from tests.owui.conftest import Pages, WebUI, answers_are_told, until

FIRST = "You are 1st in line"


class Outage:
    """While it is on, admission tells nobody's status."""

    def __init__(self, webui: WebUI, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on, self.met = True, 0
        plugin, ask = webui.plugin, webui.plugin.Admission.ask

        async def unreliable(admission: Any, verb: str, **body: str | bool) -> Any:
            if self.on and verb == "status":
                self.met += 1
                raise plugin.Away(verb)
            return await ask(admission, verb, **body)

        monkeypatch.setattr(plugin.Admission, "ask", unreliable)


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


async def test_an_admission_that_is_away_for_a_moment_hides_no_end(
    webui: WebUI, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(webui, monkeypatch)
    pages.open("ann")
    await webui.sessions_last(1)
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.ends()
    await until(lambda: outage.met > 0)
    outage.on = False
    await ann.sees("Time left in your session: less than a minute")
    outage.on, outage.met = True, 0
    webui.service.clock.advance_ms(1_001)
    await webui.service.tick()
    await until(lambda: outage.met > 0)
    outage.on = False
    await ann.sees("Your session is over. Your next message waits for a new turn.")


async def test_after_an_outage_beyond_the_end_only_the_end_is_told(
    webui: WebUI, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(webui, monkeypatch)
    pages.open("ann")
    await webui.sessions_last(1)
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.ends()
    await until(lambda: outage.met > 0)
    webui.service.clock.advance_ms(1_001)
    await webui.service.tick()
    await asyncio.sleep(0.2)  # the tenth of the session that was left, by the plugin's own clock
    outage.on = False
    await ann.sees("Your session is over. Your next message waits for a new turn.")
    assert ann.toasts == ["Your session is over. Your next message waits for a new turn."]


async def test_an_outage_that_does_not_end_is_given_up(
    webui: WebUI, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webui.plugin, "READABLE_S", 0.1)
    Outage(webui, monkeypatch)
    pages.open("ann")
    await webui.sessions_last(1)
    ann = webui.chat("ann")
    await ann.is_answered()
    await ann.ends()
    await until(lambda: not webui.gate._endings._watching)
    assert ann.toasts == []


async def test_a_message_near_the_end_says_so_at_once(webui: WebUI, pages: Pages) -> None:
    pages.open("ann")
    await webui.sessions_last(1200)
    await webui.chat("ann").is_answered()
    webui.service.clock.advance_ms(1_090_000)
    late = webui.chat("ann")
    await late.is_answered()
    assert late.last == {
        "description": "Time left in your session: 2 minutes",
        "done": True,
        "hidden": False,
    }


async def near_the_end(webui: WebUI, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ann's session has 110 seconds left, and its time is looked at often."""
    monkeypatch.setattr(webui.plugin, "NEAR_S", 0.05)
    pages.open("ann")
    await webui.elsewhere.join("ann", auto_confirm=True)
    webui.service.clock.advance_ms(10_000)
    await webui.elsewhere.heartbeat("ann", client="m")
    webui.service.clock.advance_ms(1_080_000)


async def test_the_time_left_is_counted_down_and_a_page_that_opens_sees_it(
    webui: WebUI, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    await near_the_end(webui, pages, monkeypatch)
    late = webui.chat("ann")
    await late.sees("Time left in your session: 2 minutes")
    await until(lambda: bool(late.toasts))  # of the same time
    webui.service.clock.advance_ms(30_000)
    await until(lambda: any("1 minute" in event["data"]["description"] for event in pages.live))
    assert late.last["description"].endswith("2 minutes")  # is stored
    pages.open("ann")
    await late.sees("Time left in your session: 1 minute")


async def test_only_the_chat_that_was_used_last_tells_the_time(webui: WebUI, pages: Pages) -> None:
    pages.open("ann")
    await webui.chat("ann").is_answered()
    webui.service.clock.advance_ms(1_090_000)
    first = webui.chat("ann")
    await first.sees("Time left in your session: 2 minutes")
    last = webui.chat("ann")
    await last.is_answered()
    await until(lambda: bool(first.last["hidden"]))
    assert last.last["description"] == "Time left in your session: 2 minutes"


async def test_the_chat_used_before_says_nothing_more_while_it_is_put_away(
    webui: WebUI, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    await near_the_end(webui, pages, monkeypatch)
    first = webui.chat("ann")
    await until(lambda: bool(first.toasts))  # its time is counted down
    close = webui.plugin.Screen.close

    async def slowly(screen: Any, words: str = "") -> None:
        shown = screen.shown
        await close(screen, words)
        if shown:
            pages.open("ann")  # it is told what is shown
            await asyncio.sleep(0.3)

    monkeypatch.setattr(webui.plugin.Screen, "close", slowly)
    last = webui.chat("ann")
    await last.is_answered()
    assert first.last["hidden"]
    await last.sees("Time left in your session: 2 minutes")


async def test_a_session_that_is_ended_early_leaves_no_time_on_the_page(
    webui: WebUI, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webui.plugin, "NEAR_S", 0.05)
    await webui.sessions_last(1)
    chats = {}
    for user in ("ann", "bob"):
        pages.open(user)
        chats[user] = chat = webui.chat(user)
        await chat.is_answered()
        await chat.ends()
        await chat.sees("Time left")
        end = webui.service.store.cancel if user == "ann" else webui.service.store.leave
        await end(DEFAULT_POOL, user)
    await chats["ann"].sees("Your session is over. Your next message waits for a new turn.")
    await until(lambda: bool(chats["bob"].last["hidden"]))


async def test_who_is_put_back_in_line_is_told_of_the_turn(webui: WebUI, pages: Pages) -> None:
    await webui.service.store.configure(DEFAULT_POOL, {"requeue": True})
    await webui.sessions_last(1)
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    bob = webui.chat("bob", session_id="automation:1")
    await bob.sees(FIRST)
    await ann.ends()
    await ann.sees("Time left")
    webui.service.clock.advance_ms(1_001)
    await webui.service.tick()
    await bob.is_answered()
    await ann.sees(f"Your session is over. {FIRST}")
    await webui.session_ends(bob, "bob")
    await ann.sees("It is your turn.")
    again = webui.chat("ann")
    await again.is_answered()
    await ann.sees("Your turn came and you took it.")


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
    await answers_are_told(webui.gate)
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


async def test_an_answer_whose_next_round_waits_keeps_no_place_for_a_closed_page(
    webui: WebUI, pages: Pages
) -> None:
    await webui.sessions_last(20)
    page = pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    await asyncio.sleep(0.06)
    for passed_ms in (20_001, 120_001):  # its end, and the longest an answer may finish
        webui.service.clock.advance_ms(passed_ms)
        await webui.service.tick()
    await webui.service.capacity(0)
    late = asyncio.create_task(ann.next_round())
    await ann.sees("Your session is over. ")
    pages.close(page)
    await webui.is_not_attached("ann")
    webui.service.clock.advance_ms(60_001)
    await webui.service.tick()
    await asyncio.sleep(0.15)  # three beats
    assert (await webui.metrics())["waiting"] == 0
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
    await answers_are_told(webui.gate)
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
