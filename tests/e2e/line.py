"""Knows how people line up for the only turn, and the words by which they know their place.

Does not know what happens to them next: that is each case's.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from tests.e2e.build import ANSWER

if TYPE_CHECKING:
    from tests.e2e.browser import ChatPage
    from tests.e2e.conftest import Shots, SignIn
    from tests.e2e.stack import User, Vestibule

FIRST, SECOND = r"\b1st\b", r"\b2nd\b"
LONG_SESSION_S = 1200
SOON_S = 20.0
POLL_S = 0.1


class Line(NamedTuple):
    """One who has the turn, and two who wait for it."""

    served: ChatPage
    next: ChatPage
    last: ChatPage


async def served(sign_in: SignIn, shots: Shots) -> ChatPage:
    """Ann, who has the only turn and was answered."""
    ann = await sign_in("Ann")
    await ann.send("Hello, I am the first.")
    await ann.sees_answer(ANSWER)
    await shots.take(ann, "is answered")
    return ann


async def waits(person: ChatPage, place: str, shots: Shots) -> ChatPage:
    """This person sends a message and sees that place in line."""
    await person.send("Hello, is it my turn?")
    await person.sees_status(place)
    await shots.take(person, "waits")
    return person


async def line_up(sign_in: SignIn, shots: Shots) -> Line:
    """Three people send a message one after the other; the first is answered, the others wait."""
    ann = await served(sign_in, shots)
    bob, cleo = await sign_in("Bob"), await sign_in("Cleo")
    return Line(ann, await waits(bob, FIRST, shots), await waits(cleo, SECOND, shots))


async def has_position(vestibule: Vestibule, user: User, position: int, within_s: float) -> None:
    """Wait until admission says that the user has this place in line."""
    deadline = time.monotonic() + within_s
    while (ticket := vestibule.ticket(user))["position"] != position:
        assert time.monotonic() < deadline, f"{user.name} is still {ticket}"
        await asyncio.sleep(POLL_S)


async def becomes(
    vestibule: Vestibule, user: User, *statuses: str | None, within_s: float = SOON_S
) -> dict[str, object]:
    """The user's ticket as soon as it has one of these statuses."""
    deadline = time.monotonic() + within_s
    while (ticket := vestibule.ticket(user))["status"] not in statuses:
        assert time.monotonic() < deadline, f"{user.name} is still {ticket}"
        await asyncio.sleep(POLL_S)
    return ticket
