"""Who need not watch: the place is kept, the turn is told of, the next message takes it."""

import pytest

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
    await until(lambda: bob.last["hidden"])  # "It is your turn" is no longer true there


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
    assert told["content"].startswith("It is your turn. ")
    assert len(bob.toasts) == 1


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
    assert len(bob.toasts) == 1


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
