"""Knows what somebody lives through who need not watch: the place is kept, the turn is told.

Does not know for how long people usually watch; here it is a few seconds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import (
    FIRST,
    LONG_SESSION_S,
    SECOND,
    SOON_S,
    becomes,
    has_position,
    line_up,
    served,
    waits,
)

if TYPE_CHECKING:
    from tests.e2e.browser import ChatPage
    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, Vestibule

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

WATCHED_S = 3
KEPT = r"Your place is kept"
TOLD_LATER = rf"{KEPT} and you need not watch"
YOUR_TURN = r"It is your turn"
TAKEN = r"Your turn came and you took it\."
GRACE_S = 20  # who watches renews presence every 15 s
LOOKED_S = 5  # who shows which chat is looked at every two seconds
DRAFT_S = 15  # time to see who moved up


async def stops_watching(
    vestibule: Vestibule, sign_in: SignIn, shots: Shots, open_webui: OpenWebUI
) -> tuple[ChatPage, ChatPage]:
    """Ann has the turn; Bob waited as long as he may watch, and his place is kept."""
    open_webui.set_valves(max_wait_s=WATCHED_S)
    ann = await served(sign_in, shots)
    bob = await sign_in("Bob")
    await bob.send("Hello, is it my turn?")
    await bob.sees_status(FIRST)
    await bob.sees_toast(TOLD_LATER, WATCHED_S + SOON_S)
    await bob.sees_status(rf"{FIRST}.* {KEPT}")
    await shots.take(bob, "need not watch")
    assert vestibule.ticket(bob.user)["status"] == "waiting"
    return ann, bob


async def test_the_turn_comes_and_the_next_message_takes_it(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots, open_webui: OpenWebUI
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    ann, bob = await stops_watching(vestibule, sign_in, shots, open_webui)

    vestibule.leave(ann.user)

    await bob.sees_toast(YOUR_TURN, SOON_S)
    await bob.sees_status(YOUR_TURN)
    await shots.take(bob, "is told")
    assert vestibule.ticket(bob.user)["status"] == "draft"
    await bob.send("Here I am again.")
    await bob.sees_answer(ANSWER, SOON_S)
    await bob.sees_status(TAKEN, SOON_S, which=0)
    await shots.take(bob, "is answered at once")
    assert vestibule.ticket(bob.user)["status"] == "active"


async def test_who_reads_another_chat_is_told_there(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots, open_webui: OpenWebUI
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    ann, bob = await stops_watching(vestibule, sign_in, shots, open_webui)
    await bob.open_chat()

    vestibule.leave(ann.user)

    await bob.sees_toast(YOUR_TURN, SOON_S)
    await shots.take(bob, "is told elsewhere")
    await bob.send("Here I am, in a new chat.")
    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered at once")


async def test_who_does_not_come_back_makes_room(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots, open_webui: OpenWebUI
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S, DRAFT_DURATION=DRAFT_S)
    ann, bob = await stops_watching(vestibule, sign_in, shots, open_webui)
    open_webui.set_valves(max_wait_s=LONG_SESSION_S)
    cleo = await sign_in("Cleo")
    await cleo.send("Hello, is it my turn?")
    await cleo.sees_status(SECOND)
    chat = await bob.close_tab()

    vestibule.leave(ann.user)
    await becomes(vestibule, bob.user, "draft")

    await cleo.sees_status(FIRST, SOON_S)
    await cleo.sees_answer(ANSWER, DRAFT_S + SOON_S)
    await shots.take(cleo, "is answered")
    await bob.return_to(chat)
    await bob.sees_status("Your turn came and went", SOON_S)
    await shots.take(bob, "missed the turn")


async def test_a_closed_page_keeps_its_place_where_its_user_wants_that(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots, open_webui: OpenWebUI
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S, VESTIBULE_PRESENCE_GRACE=GRACE_S)
    ann = await served(sign_in, shots)
    bob, cleo = await sign_in("Bob"), await sign_in("Cleo")
    open_webui.set_user_valves(bob.user, keep_place=True)
    await waits(bob, FIRST, shots)
    chat = await bob.close_tab()
    await waits(cleo, SECOND, shots)
    place = vestibule.ticket(bob.user)["ticket_id"]
    await asyncio.sleep(GRACE_S + 5)  # what must not happen has no event: nobody passes Bob
    await cleo.sees_status(SECOND)

    vestibule.leave(ann.user)

    await becomes(vestibule, bob.user, "draft")
    await bob.return_to(chat)  # within the minute: the chat waits there yet
    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")
    assert vestibule.ticket(bob.user)["ticket_id"] == place


async def test_a_visit_to_another_chat_shows_the_place_of_now(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    _, bob, cleo = await line_up(sign_in, shots)

    await cleo.begin_another_chat()
    await asyncio.sleep(LOOKED_S)
    vestibule.leave(bob.user)
    await has_position(vestibule, cleo.user, 1, SOON_S)
    await cleo.go_back()

    await cleo.sees_status(FIRST, SOON_S)
    await shots.take(cleo, "is back")
