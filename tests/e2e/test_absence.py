"""Knows what becomes of somebody who closes the tab while waiting.

Does not know how absence is noticed; that nobody's answer was made is vLLM's own count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, LONG_SESSION_S, SECOND, SOON_S, line_up

if TYPE_CHECKING:
    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

GRACE_S = 20  # who watches renews presence every 15 s


async def test_a_closed_tab_makes_room_and_costs_no_answer(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots, vllm: VllmServer
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S, VESTIBULE_PRESENCE_GRACE=GRACE_S)
    ann, bob, cleo = await line_up(sign_in, shots)
    before = vllm.requests()

    chat = await bob.close_tab()

    await cleo.sees_status(FIRST, GRACE_S + SOON_S)
    await shots.take(cleo, "moved up")
    vestibule.leave(ann.user)
    await cleo.sees_answer(ANSWER, SOON_S)
    await shots.take(cleo, "is answered")
    vestibule.leave(cleo.user)  # now the slot is free, and only Bob's chat could take it
    dora = await sign_in("Dora")
    await dora.send("Is anybody before me?")
    await dora.sees_answer(ANSWER, SOON_S)
    await shots.take(dora, "is answered at once")
    assert vllm.requests() == before + 2  # Cleo's and Dora's

    await bob.return_to(chat)

    await bob.sees_status(FIRST, SOON_S)
    await shots.take(bob, "is back and waits")
    assert await bob.has_no_answer()


async def test_who_returns_in_time_has_the_old_place(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S, VESTIBULE_PRESENCE_GRACE=GRACE_S)
    ann, bob, cleo = await line_up(sign_in, shots)
    place = vestibule.ticket(bob.user)
    chat = await bob.close_tab()
    await cleo.sees_status(FIRST, GRACE_S + SOON_S)
    await shots.take(cleo, "moved up")

    await bob.return_to(chat)

    await bob.sees_status(FIRST, SOON_S)
    await shots.take(bob, "is back")
    await cleo.sees_status(SECOND, SOON_S)
    await shots.take(cleo, "moved back")
    assert vestibule.ticket(bob.user)["ticket_id"] == place["ticket_id"]

    vestibule.leave(ann.user)

    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")
