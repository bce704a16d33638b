"""Who need not watch: the place is kept, the turn is told of, the next message takes it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from admission.domain import DEFAULT_POOL
from tests.owui.conftest import Chat, Pages, WebUI, until
from tests.owui.wire import AWAY, Wire

FIRST = "You are 1st in line"


@pytest.fixture
async def ann(webui: WebUI, pages: Pages) -> Chat:
    """Somebody who has the slot, while nobody else waits longer than a second."""
    pages.open("ann")
    ann = webui.chat("ann")
    await ann.is_answered()
    webui.set(max_wait_s=1)
    return ann


async def test_after_the_longest_wait_the_place_is_kept_and_the_next_message_takes_the_turn(
    webui: WebUI, pages: Pages, ann: Chat
) -> None:
    pages.open("bob")
    bob = webui.chat("bob")
    await bob.is_kept()
    assert bob.last["description"].startswith(FIRST)
    kept = await webui.ticket("bob")
    assert kept["status"] == "waiting"
    webui.service.clock.advance_ms(200_000)  # nobody watches, and nobody is skipped
    await webui.service.tick()
    await webui.session_ends(ann, "ann")
    await bob.sees("It is your turn. Time left to send your message: 5 minutes")
    await until(lambda: bob.toasts[1:] == [bob.last["description"]])
    assert (await webui.ticket("bob"))["status"] == "draft"
    again = webui.chat("bob")
    await again.is_answered()
    ticket = await webui.ticket("bob")
    assert (ticket["status"], ticket["ticket_id"]) == ("active", kept["ticket_id"])
    assert again.statuses == []
    await bob.sees("Your turn came and you took it.")


async def test_the_place_moves_in_the_chat_that_no_longer_waits(
    webui: WebUI, pages: Pages, ann: Chat
) -> None:
    webui.set(max_wait_s=2)
    pages.open("bob")
    pages.open("cid")
    bob = webui.chat("bob")
    await bob.sees(FIRST)
    cid = webui.chat("cid")
    await cid.is_kept()
    await bob.is_kept()
    await webui.elsewhere.leave("bob")
    await webui.service.tick()
    await until(lambda: any(_kept_first(event["data"]) for event in pages.live))


def _kept_first(data: dict[str, object]) -> bool:
    words = str(data.get("description"))
    return words.startswith(FIRST) and words.endswith("Your place is kept.")


async def test_a_page_that_opens_the_chat_again_sees_the_place_of_now(
    webui: WebUI, pages: Pages, ann: Chat
) -> None:
    webui.set(max_wait_s=2)
    pages.open("bob")
    await webui.chat("bob").sees(FIRST)
    left = pages.open("cid")
    cid = webui.chat("cid")
    await cid.is_kept()
    pages.close(left)
    stored = cid.statuses
    await webui.elsewhere.leave("bob")
    await webui.service.tick()
    await until(lambda: any(_kept_first(event["data"]) for event in pages.live))
    assert cid.statuses == stored
    pages.open("cid")
    await until(lambda: _kept_first(cid.last))


async def test_all_chats_that_waited_are_told(webui: WebUI, pages: Pages, ann: Chat) -> None:
    pages.open("bob")
    chats = [webui.chat("bob"), webui.chat("bob")]
    for chat in chats:
        await chat.is_kept()
    await webui.session_ends(ann, "ann")
    for chat in chats:
        await chat.sees("It is your turn")
    called = [chat for chat in chats if "It is your turn" in chat.toasts[-1]]
    assert len(called) == 1
    await webui.elsewhere.leave("bob")
    for chat in chats:
        await chat.sees("You left the line.")


async def test_the_time_left_to_take_the_turn_is_counted_down(
    webui: WebUI, pages: Pages, ann: Chat
) -> None:
    await webui.service.store.configure(DEFAULT_POOL, {"draft_ms": 61_000})
    pages.open("bob")
    bob = webui.chat("bob")
    await bob.is_kept()
    await webui.session_ends(ann, "ann")
    await bob.sees("It is your turn. Time left to send your message: 1 minute")
    less = "It is your turn. Time left to send your message: less than a minute"
    await until(lambda: any(event["data"].get("description") == less for event in pages.live))


@pytest.fixture
def no_stream(webui: WebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy holds all event streams back."""

    async def held_back(_: object) -> AsyncGenerator[None, None]:
        yield None

    monkeypatch.setattr(webui.plugin.Admission, "events", held_back)


async def test_where_no_stream_comes_through_the_turn_is_told_all_the_same(
    webui: WebUI, pages: Pages, ann: Chat, no_stream: None
) -> None:
    pages.open("bob")
    bob = webui.chat("bob")
    await bob.is_kept()
    await webui.session_ends(ann, "ann")
    await bob.sees("It is your turn")


async def test_a_place_that_admission_forgot_is_not_called_kept(
    webui: WebUI, pages: Pages, ann: Chat, no_stream: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise webui.plugin.Unknown("unknown_user")

    pages.open("bob")
    bob = webui.chat("bob")
    await bob.is_kept()
    with monkeypatch.context() as forgotten:
        forgotten.setattr(webui.plugin.Admission, "ask", unknown)
        await bob.sees("Your place was lost.")


@pytest.mark.parametrize("answer", [(401, "{}"), AWAY])
async def test_who_is_not_told_any_more_is_told_of_the_next_kept_place(
    webui: WebUI,
    wire: Wire,
    pages: Pages,
    ann: Chat,
    no_stream: None,
    monkeypatch: pytest.MonkeyPatch,
    answer: tuple[int, str],
) -> None:
    """A key or an address that was changed is not asked for ever."""
    monkeypatch.setattr(webui.plugin, "SILENT_S", 0.3)
    pages.open("bob")
    bob = webui.chat("bob")
    await bob.is_kept()
    wire.answers["status"] = answer
    await until(lambda: not webui.gate._lobby.returns._chats)
    wire.answers.clear()
    again = webui.chat("bob")
    await again.is_kept()
    await webui.session_ends(ann, "ann")
    await again.sees("It is your turn")
    assert bob.last["description"].endswith("Your place is kept.")  # nobody knows better


async def test_an_admission_that_is_away_for_a_while_loses_nobody(
    webui: WebUI, wire: Wire, pages: Pages, ann: Chat, no_stream: None
) -> None:
    pages.open("bob")
    bob = webui.chat("bob")
    await bob.is_kept()
    wire.answers["status"] = AWAY
    await wire.has(3, "status")
    wire.answers.clear()
    await webui.session_ends(ann, "ann")
    await bob.sees("It is your turn")


async def test_news_of_a_long_time_ago_count_from_their_last(
    webui: WebUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that held for an hour is no silence, and neither is a status that was told."""
    plugin = webui.plugin
    monkeypatch.setattr(plugin, "SILENT_S", 0.3)
    told = plugin.Ticket(ticket_id="t", pool="p", status="waiting")
    statuses = [plugin.Away("status"), told, plugin.Away("status"), told]

    class Rare:
        async def events(self) -> AsyncGenerator[object, None]:
            yield told
            await asyncio.sleep(0.4)
            yield None

        async def ask(self, _: str) -> object:
            status = statuses.pop(0)
            if isinstance(status, Exception):
                raise status
            return status

    async with aclosing(plugin._news(Rare())) as news:
        for _ in range(10):
            await anext(news)
    assert statuses == []


async def test_who_is_kept_while_an_old_place_is_put_away_is_told(
    webui: WebUI, pages: Pages, ann: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, may_close, aclose = asyncio.Event(), asyncio.Event(), webui.plugin.Admission.aclose

    async def slowly(admission: Any) -> None:
        if admission._user == "bob":
            closing.set()
            await may_close.wait()
        await aclose(admission)

    monkeypatch.setattr(webui.plugin.Admission, "aclose", slowly)
    pages.open("bob")
    bob = webui.chat("bob")
    await bob.is_kept()
    await webui.elsewhere.leave("bob")
    await closing.wait()
    again = webui.chat("bob")
    await again.is_kept()
    may_close.set()
    await bob.sees("You left the line.")
    await webui.session_ends(ann, "ann")
    await again.sees("It is your turn")


async def test_a_user_whose_pages_show_other_chats_is_told_there(
    webui: WebUI, pages: Pages, ann: Chat
) -> None:
    sid = pages.open("bob")
    bob = webui.chat("bob")
    await bob.is_kept()
    pages.close(sid)
    pages.open("bob", chat="another")
    await webui.session_ends(ann, "ann")
    await until(lambda: any(event["type"] == "chat:completion" for event in pages.live))
    told = next(event["data"] for event in pages.live if event["type"] == "chat:completion")
    assert told["done"] is True
    assert told["title"] == "It is your turn"
    assert told["content"] == "Time left to send your message: 5 minutes"


async def test_a_turn_that_nobody_took_is_told_of(webui: WebUI, pages: Pages, ann: Chat) -> None:
    pages.open("bob")
    bob = webui.chat("bob")
    await bob.is_kept()
    await webui.session_ends(ann, "ann")
    await bob.sees("It is your turn")
    webui.service.clock.advance_ms(300_001)
    await webui.service.tick()
    await bob.sees("Your turn came and went unused.")


async def test_who_waits_again_before_the_turn_watches_again(
    webui: WebUI, pages: Pages, ann: Chat
) -> None:
    pages.open("bob")
    bob = webui.chat("bob")
    await bob.is_kept()
    place = (await webui.ticket("bob"))["ticket_id"]
    webui.set(max_wait_s=60)
    again = webui.chat("bob")
    await again.sees(FIRST)
    assert (await webui.ticket("bob"))["ticket_id"] == place
    await webui.session_ends(ann, "ann")
    await again.is_answered()
    assert len(bob.toasts) == 1  # nobody was called


async def test_stop_after_coming_back_leaves_the_line(
    webui: WebUI, pages: Pages, ann: Chat
) -> None:
    pages.open("bob")
    await webui.chat("bob").is_kept()
    webui.set(max_wait_s=60)
    again = webui.chat("bob")
    await again.sees(FIRST)
    await again.stop()
    assert (await webui.ticket("bob"))["reason"] == "left"
