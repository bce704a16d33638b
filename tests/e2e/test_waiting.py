"""Knows what three people live through with one turn for all of them, each in a browser of theirs.

Does not know how a turn is given. Every answer is vLLM's, every place is read in the chat.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, LONG_SESSION_S, SECOND, SOON_S, becomes, line_up

if TYPE_CHECKING:
    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, VllmServer

# Long, because the first case of a first run builds the components.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

SHORT_SESSION_S = 40  # time enough for two others to line up behind the first


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


async def test_a_page_reloaded_while_it_waits(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    ann, bob, cleo = await line_up(sign_in, shots)

    vestibule.leave(ann.user)
    await bob.sees_answer(ANSWER, SOON_S)
    await cleo.sees_status(FIRST, SOON_S)  # only shown: the chat as it is stored says 2nd
    place = vestibule.ticket(cleo.user)
    await cleo.reload()

    await cleo.sees_status(FIRST, SOON_S)
    await shots.take(cleo, "has reloaded")
    assert vestibule.ticket(cleo.user)["ticket_id"] == place["ticket_id"]
    dora = await sign_in("Dora")
    await dora.send("And I?")
    await dora.sees_status(SECOND)
    await dora.reload()
    await dora.sees_status(SECOND)

    vestibule.leave(bob.user)

    await cleo.sees_answer(ANSWER, SOON_S)
    await shots.take(cleo, "is answered")
    await dora.sees_status(FIRST, SOON_S)  # told to the page that was loaded meanwhile
    await shots.take(dora, "moved up")


async def test_who_walks_around_the_plugin_waits_in_the_same_line(
    start_vestibule: StartVestibule, open_webui: OpenWebUI, vllm: VllmServer
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    ann, dora = open_webui.add_user("Ann"), open_webui.add_user("Dora")
    vestibule.join(ann)
    had = vllm.requests()

    call = asyncio.create_task(asyncio.to_thread(open_webui.straight_to_the_model, dora))

    assert (await becomes(vestibule, dora, "waiting"))["position"] == 1
    assert (call.done(), vllm.requests()) == (False, had)
    vestibule.leave(ann)
    reply = await call
    assert reply.status_code == 200, reply.text
    status, _, answer = reply.text.partition("Your turn.")
    assert "You are 1st in line" in status
    assert said(answer) == ANSWER
    assert vestibule.ticket(dora)["status"] == "active"


def said(stream: str) -> str:
    """What the model said in a stream of OpenAI's chunks."""
    data = (line.removeprefix("data: ") for line in stream.splitlines() if line[:6] == "data: ")
    chunks = (json.loads(one) for one in data if one != "[DONE]")
    deltas = (choice["delta"] for chunk in chunks for choice in chunk["choices"])
    return "".join(delta.get("content") or "" for delta in deltas)
