"""Knows what three people live through with one turn for all of them, each in a browser of theirs.

Does not know how a turn is given. Every answer is vLLM's, every place is read in the chat.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.e2e.build import ANSWER

if TYPE_CHECKING:
    from tests.e2e.browser import ChatPage
    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, User, Vestibule

# Long, because the first case of a first run builds the components.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

FIRST, SECOND = r"\b1st\b", r"\b2nd\b"
LONG_SESSION_S = 1200
SHORT_SESSION_S = 30  # time enough for two others to line up behind the first
SOON_S = 20.0


class Line(NamedTuple):
    """One who has the turn, and two who wait for it."""

    served: ChatPage
    next: ChatPage
    last: ChatPage


async def line_up(sign_in: SignIn, shots: Shots) -> Line:
    """Three people send a message one after the other; the first is answered, the others wait."""
    line = Line(await sign_in("Ann"), await sign_in("Bob"), await sign_in("Cleo"))
    await line.served.send("Hello, I am the first.")
    await line.served.sees_answer(ANSWER)
    await shots.take(line.served, "is answered")
    for person, place in ((line.next, FIRST), (line.last, SECOND)):
        await person.send("Hello, is it my turn?")
        await person.sees_status(place)
        await shots.take(person, "waits")
    return line


async def becomes(vestibule: Vestibule, user: User, *statuses: str | None) -> dict[str, object]:
    """The user's ticket as soon as it has one of these statuses."""
    deadline = time.monotonic() + SOON_S
    while (ticket := vestibule.ticket(user))["status"] not in statuses:
        assert time.monotonic() < deadline, f"{user.name} is still {ticket}"
        await asyncio.sleep(0.1)
    return ticket


async def test_the_first_leaves(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    ann, bob, cleo = await line_up(sign_in, shots)
    assert vestibule.ticket(bob.user)["status"] == "waiting"

    vestibule.leave(ann.user)

    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")
    await cleo.sees_status(FIRST, SOON_S)
    await shots.take(cleo, "moved up")
    assert vestibule.ticket(ann.user)["reason"] == "left"
    assert vestibule.ticket(bob.user)["status"] == "active"
    assert vestibule.ticket(cleo.user)["position"] == 1
    assert await cleo.has_no_answer()

    vestibule.leave(bob.user)

    await cleo.sees_answer(ANSWER, SOON_S)
    await shots.take(cleo, "is answered")


async def test_the_session_of_the_first_runs_out(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_vestibule(SHORT_SESSION_S)
    ann, bob, cleo = await line_up(sign_in, shots)

    await bob.sees_answer(ANSWER, SHORT_SESSION_S + SOON_S)
    await shots.take(bob, "is answered")
    await cleo.sees_status(FIRST, SOON_S)
    await shots.take(cleo, "moved up")
    assert vestibule.ticket(ann.user)["reason"] == "session_timeout"
    assert await cleo.has_no_answer()

    await cleo.sees_answer(ANSWER, SHORT_SESSION_S + SOON_S)
    await shots.take(cleo, "is answered")
    assert vestibule.ticket(bob.user)["reason"] == "session_timeout"


async def test_stop_while_waiting(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    ann, bob, cleo = await line_up(sign_in, shots)

    await bob.stop()

    ticket = await becomes(vestibule, bob.user, "disconnected", None)
    assert ticket.get("reason") in {"left", None}
    await shots.take(bob, "has stopped")
    await cleo.sees_status(FIRST, SOON_S)
    await shots.take(cleo, "moved up")

    vestibule.leave(ann.user)

    await cleo.sees_answer(ANSWER, SOON_S)
    await shots.take(cleo, "is answered")
    assert await bob.has_no_answer()


def test_nobody_walks_around_the_plugin(
    start_vestibule: StartVestibule, open_webui: OpenWebUI
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    user = open_webui.add_user("Dora")

    refused = open_webui.straight_to_the_model(user)

    assert refused.status_code == 429, refused.text
    assert vestibule.ticket(user)["status"] is None
    vestibule.join(user)
    served = open_webui.straight_to_the_model(user)
    assert served.status_code == 200, served.text
    assert served.json()["choices"][0]["message"]["content"] == ANSWER
