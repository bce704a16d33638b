"""Knows which model a chat asks, whatever it is called there: of two side by side, and by the name
that an arena, a preset and a connection's prefix give it.

Does not know how Open WebUI finds the one that is meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, LONG_SESSION_S, SECOND, SOON_S, served, waits
from tests.e2e.stack import MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

PRESET, PREFIX, ARENA = "polite", "gpu", "arena"
ARENAS = "/api/v1/evaluations/config"


@pytest.fixture
def arena(open_webui: OpenWebUI) -> Iterator[None]:
    """One model that stands for another, which Open WebUI chooses; here there is one choice."""
    choices = {"id": ARENA, "name": ARENA, "meta": {"model_ids": [PRESET]}}
    open_webui.configure(
        ARENAS, ENABLE_EVALUATION_ARENA_MODELS=True, EVALUATION_ARENA_MODELS=[choices]
    )
    yield
    open_webui.configure(ARENAS, ENABLE_EVALUATION_ARENA_MODELS=False, EVALUATION_ARENA_MODELS=[])


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


@pytest.mark.usefixtures("arena")
async def test_an_arena_of_a_preset_of_a_prefixed_model(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots, open_webui: OpenWebUI
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    other, ann = open_webui.add_user("Zoe"), await sign_in("Ann")
    open_webui.set_prefix(PREFIX)
    open_webui.add_preset(PRESET, f"{PREFIX}.{MODEL}", system="Be polite.")
    vestibule.join(other)
    await ann.open_chat(ARENA)
    await waits(ann, FIRST, shots)
    assert vestibule.ticket(ann.user)["status"] == "waiting"

    vestibule.leave(other)

    await ann.sees_answer(ANSWER, SOON_S)
    await shots.take(ann, "is answered")
    assert vestibule.ticket(ann.user)["status"] == "active"
