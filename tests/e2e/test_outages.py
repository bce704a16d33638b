"""Knows what people live through when Vestibule or Open WebUI is killed and comes back.

Does not know crashes of the model: those are the gateway's own tests.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, LONG_SESSION_S, SECOND, SOON_S, becomes, has_position, line_up
from tests.e2e.stack import LONG

if TYPE_CHECKING:
    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

RENEWED_S = 15  # who watches renews presence so often
GRACE_S = 20
IDLE_S, WARNED_S = 20, 60  # an unused session ends so long after, and its owner is told
SESSION_S = 90  # time enough for two others to line up, for a kill and for the grace
CUT_SHORT = "Your wait was cut short"
RETRYING = "The waiting line is not responding. Trying again."


async def test_vestibule_is_killed_while_people_wait(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    ann, bob, cleo = await line_up(sign_in, shots)
    places = [vestibule.ticket(person.user)["ticket_id"] for person in (ann, bob, cleo)]

    vestibule.kill()

    await bob.sees_status(RETRYING, SOON_S)
    await shots.take(bob, "sees that the line does not answer")

    vestibule.start()

    await bob.sees_status(FIRST, SOON_S)
    await cleo.sees_status(SECOND, SOON_S)
    await shots.take(bob, "has the place again")
    assert [vestibule.ticket(person.user)["ticket_id"] for person in (ann, bob, cleo)] == places
    assert vestibule.ticket(ann.user)["status"] == "active"

    vestibule.leave(ann.user)

    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")
    await cleo.sees_status(FIRST, SOON_S)


async def test_open_webui_is_killed_while_people_wait(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots, open_webui: OpenWebUI
) -> None:
    vestibule = start_vestibule(SESSION_S, VESTIBULE_PRESENCE_GRACE=GRACE_S)
    ann, bob, cleo = await line_up(sign_in, shots)
    other = open_webui.add_user("Dora")  # of another frontend, which lives on
    vestibule.join(other, will_return=True)
    assert vestibule.ticket(other)["position"] == 3

    killed_s = time.monotonic()
    open_webui.kill()

    # The places return after the grace, Ann's slot with her session.
    await has_position(vestibule, other, 1, GRACE_S + SOON_S)
    assert time.monotonic() >= killed_s + GRACE_S - RENEWED_S
    assert vestibule.ticket(ann.user)["status"] == "active"
    await becomes(vestibule, other, "draft", within_s=SESSION_S + SOON_S)
    assert vestibule.ticket(ann.user)["reason"] == "session_timeout"

    open_webui.start()

    await bob.reload()
    await bob.sees_status(CUT_SHORT, SOON_S)
    await shots.take(bob, "sees that the wait is over")
    await bob.send("Hello again.")
    await bob.sees_status(FIRST, SOON_S)
    await shots.take(bob, "has the place again")
    vestibule.leave(other)
    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")


async def test_open_webui_is_killed_while_an_answer_runs(
    start_vestibule: StartVestibule,
    sign_in: SignIn,
    shots: Shots,
    open_webui: OpenWebUI,
    vllm: VllmServer,
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S, VESTIBULE_IDLE_TIMEOUT=IDLE_S)
    open_webui.add_long_preset()
    ann = await sign_in("Ann")
    await ann.open_chat(LONG)
    await ann.send("Tell me everything.")
    await ann.sees_answer_begin(ANSWER)
    await shots.take(ann, "is being answered")
    other = open_webui.add_user("Dora")  # of another frontend, which lives on
    vestibule.join(other, will_return=True)
    turn = vestibule.ticket(ann.user)

    killed_s = time.monotonic()
    open_webui.kill()

    # Nobody reads on, so the model is free. The slot is Ann's until her turn has not been used for
    # so long while Dora waits, and she had time to hear of that.
    await vllm.is_idle(SOON_S)
    assert vestibule.ticket(ann.user)["status"] == "active"
    await becomes(vestibule, other, "draft", within_s=IDLE_S + WARNED_S + SOON_S)
    assert time.monotonic() >= killed_s + WARNED_S
    ended = vestibule.ticket(ann.user)
    assert (ended["ticket_id"], ended["reason"]) == (turn["ticket_id"], "idle")

    open_webui.start()  # which had kept what was answered in its memory only

    await ann.open_chat()
    await ann.send("Hello again.")
    await ann.sees_status(FIRST, SOON_S)
    await shots.take(ann, "waits")
    vestibule.leave(other)
    await ann.sees_answer(ANSWER, SOON_S)
    await shots.take(ann, "is answered")
