"""Knows what somebody is told when the session ends in the middle of a conversation.

Does not know how long sessions usually are; here they last a few seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, SOON_S, waits
from tests.e2e.stack import LONG

if TYPE_CHECKING:
    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

SESSION_S = 20  # time enough for another to line up; shorter than the long answer lasts
TIME_LEFT = r"Time left in your session: less than a minute"
OVER = r"Your session is over"


async def test_the_session_ends_while_the_answer_runs(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots, open_webui: OpenWebUI
) -> None:
    vestibule = start_vestibule(SESSION_S)
    open_webui.add_long_preset()
    ann, bob = await sign_in("Ann"), await sign_in("Bob")
    await ann.open_chat(LONG)
    await ann.send("Tell me everything.")
    await ann.sees_answer_begin(ANSWER)
    await waits(bob, FIRST, shots)

    await ann.sees_toast(TIME_LEFT, SESSION_S + SOON_S)
    await shots.take(ann, "is told the time left")
    await ann.sees_status(OVER, SESSION_S + SOON_S)
    assert vestibule.ticket(ann.user)["reason"] == "session_timeout"
    assert await bob.has_no_answer()  # the slot is Ann's until her answer is whole
    await shots.take(ann, "is still being answered")

    said = await ann.sees_answer_end(within_s=120)
    await bob.sees_answer(ANSWER, SOON_S)
    await ann.sees_status(OVER)
    await ann.looks_at_status()
    await shots.take(ann, "has the whole answer")
    await ann.send("And now?")

    await ann.sees_status(rf"{OVER}\. .*{FIRST}")
    await ann.looks_at_status()
    await shots.take(ann, "waits again")
    await ann.sees_answer_begin(ANSWER, SESSION_S + SOON_S)
    await ann.stop()
    assert said.count(ANSWER) > 1
