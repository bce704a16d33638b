"""Who need not watch: the place is kept, the turn is told of, the next message takes it."""

from collections.abc import AsyncGenerator

import pytest

from admission.domain import DEFAULT_POOL
from tests.owui.conftest import Chat, Pages, WebUI, until

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
