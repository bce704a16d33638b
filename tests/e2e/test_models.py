"""Knows that a turn is a person's: one message to two models waits once and is answered twice.

Does not know how Open WebUI asks two models; both answers are read side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, LONG_SESSION_S, SECOND, SOON_S, served, waits
from tests.e2e.stack import MODEL

if TYPE_CHECKING:
    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

PRESET = "polite"


async def test_two_models_side_by_side(
    start_vestibule: StartVestibule,
    sign_in: SignIn,
    shots: Shots,
    open_webui: OpenWebUI,
    vllm: VllmServer,
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    open_webui.add_preset(PRESET, system="Be polite.")
    ann = await served(sign_in, shots)
    bob, cleo = await sign_in("Bob"), await sign_in("Cleo")
    before = vllm.requests()
    await bob.open_chat(MODEL, PRESET)
    await bob.send("Hello, both of you.", answers=2)
    for which in (0, 1):
        await bob.sees_status(FIRST, which=which)
    await shots.take(bob, "waits for both")
    await waits(cleo, SECOND, shots)

    vestibule.leave(ann.user)

    for which in (0, 1):
        await bob.sees_answer(ANSWER, SOON_S, which=which)
    await shots.take(bob, "is answered by both")
    await cleo.sees_status(FIRST, SOON_S)
    assert vllm.requests() == before + 2
    assert vestibule.ticket(bob.user)["status"] == "active"
