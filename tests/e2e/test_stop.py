"""Knows what Stop ends: the place in line while a chat waits, the answer and not the session later.

Does not know how Open WebUI stops a chat; the button is pressed and the pages are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, LONG_SESSION_S, SOON_S, becomes, line_up, waits
from tests.e2e.stack import LONG

if TYPE_CHECKING:
    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

LEFT = "You left the line."
STOP_S = 1  # so soon the place is somebody else's


async def test_stop_while_waiting(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    ann, bob, cleo = await line_up(sign_in, shots)

    await bob.stop()

    ticket = await becomes(vestibule, bob.user, "disconnected", within_s=STOP_S)
    assert ticket["reason"] == "left"
    await bob.sees_status(LEFT)
    await shots.take(bob, "has stopped")
    await cleo.sees_status(FIRST, SOON_S)
    await shots.take(cleo, "moved up")

    vestibule.leave(ann.user)

    await cleo.sees_answer(ANSWER, SOON_S)
    await shots.take(cleo, "is answered")
    assert await bob.has_no_answer()


async def test_stop_while_the_answer_runs(
    start_vestibule: StartVestibule,
    sign_in: SignIn,
    shots: Shots,
    open_webui: OpenWebUI,
    vllm: VllmServer,
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    open_webui.add_long_preset()
    ann, bob = await sign_in("Ann"), await sign_in("Bob")
    await ann.open_chat(LONG)
    await ann.send("Tell me everything.")
    await ann.sees_answer_begin(ANSWER)
    session = vestibule.ticket(ann.user)
    await shots.take(ann, "is being answered")
    await waits(bob, FIRST, shots)

    await ann.stop()

    await shots.take(ann, "has stopped")
    await vllm.is_idle(SOON_S)
    assert vestibule.ticket(ann.user)["ticket_id"] == session["ticket_id"]
    assert vestibule.ticket(ann.user)["status"] == "active"
    await ann.open_chat()
    await ann.send("Once more, in short.")
    await ann.sees_answer(ANSWER, SOON_S)
    await shots.take(ann, "is answered at once")
    await bob.sees_status(FIRST)
    assert vestibule.ticket(bob.user)["status"] == "waiting"
