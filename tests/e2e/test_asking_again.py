"""Knows that who asks again, in whatever way, waits as who asks: another answer, more of it, a
message written anew, another tab.

Does not know other kinds of chat; somebody without a browser has the turn meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, LONG_SESSION_S, SOON_S, becomes, served, waits
from tests.e2e.stack import MODEL

if TYPE_CHECKING:
    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

LEFT = "You left the line."
ADMITTED = r"^Your turn\. Waited \d+ s\.$"


async def test_another_answer_more_of_it_and_a_message_written_anew(
    start_vestibule: StartVestibule,
    sign_in: SignIn,
    shots: Shots,
    open_webui: OpenWebUI,
    vllm: VllmServer,
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    other = open_webui.add_user("Zoe")
    ann = await served(sign_in, shots)
    had = vllm.requests()
    ways = {
        "regenerates": (ann.regenerate, ANSWER),
        "continues": (ann.go_on, ANSWER * 2),
        "writes anew": (ann.write_anew, ANSWER),
    }
    for number, (way, (asks, answer)) in enumerate(ways.items(), start=1):
        vestibule.leave(ann.user)
        vestibule.join(other)

        await asks()

        await ann.sees_status(FIRST)
        await shots.take(ann, way)
        assert vestibule.ticket(ann.user)["status"] == "waiting"
        vestibule.leave(other)
        await ann.sees_answer(answer, SOON_S)
        await ann.sees_status(ADMITTED)
        await shots.take(ann, f"{way} and is answered")
        await vllm.has_had(had + number, SOON_S)


async def test_two_tabs(start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    ann = await served(sign_in, shots)
    bob = await waits(await sign_in("Bob"), FIRST, shots)
    place = vestibule.ticket(bob.user)

    same = await bob.another_tab(bob.chat)
    await same.sees_status(FIRST)
    await shots.take(same, "looks at it in another tab")
    other = await bob.another_tab(f"/?models={MODEL}")
    await other.send("And this?")
    await other.sees_status(FIRST)
    await shots.take(other, "asks something else in a third")
    await other.stop()

    await other.sees_status(LEFT)
    await shots.take(other, "has stopped there")
    await bob.sees_status(FIRST)
    assert vestibule.ticket(bob.user)["ticket_id"] == place["ticket_id"]

    vestibule.leave(ann.user)

    for tab in (bob, same):
        await tab.sees_answer(ANSWER, SOON_S)
    await shots.take(same, "is answered in both")
    assert await other.has_no_answer()
    await becomes(vestibule, bob.user, "active")
