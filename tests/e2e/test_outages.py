"""Knows what people live through when Vestibule or Open WebUI is killed and comes back.

Does not know crashes of the model: those are the gateway's own tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, LONG_SESSION_S, SECOND, SOON_S, becomes, has_position, line_up

if TYPE_CHECKING:
    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

GRACE_S = 20  # who watches renews presence every 15 s
SESSION_S = 90  # time enough for two others to line up, for a kill and for the grace
RETRYING = "The line does not answer. Trying again."


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

    open_webui.kill()

    # The places return after the grace, Ann's slot with her session.
    await has_position(vestibule, other, 1, GRACE_S + SOON_S)
    assert vestibule.ticket(ann.user)["status"] == "active"
    await becomes(vestibule, other, "draft", within_s=SESSION_S + SOON_S)
    assert vestibule.ticket(ann.user)["reason"] == "session_timeout"

    open_webui.start()

    await bob.reload()
    await shots.take(bob, "sees the chat again")
    await bob.send("Hello again.")
    await bob.sees_status(FIRST, SOON_S)
    await shots.take(bob, "has the place again")
    vestibule.leave(other)
    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")
