"""Knows chats that are not the usual one: temporary, in French, with a title.

Does not know other languages' words: a fast test compares their tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, LONG_SESSION_S, SECOND, SOON_S, becomes, served, waits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]


@pytest.fixture
def titles(open_webui: OpenWebUI) -> Iterator[None]:
    """New chats get titles."""
    open_webui.set_titles(True)
    yield
    open_webui.set_titles(False)


async def test_a_temporary_chat(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    ann = await served(sign_in, shots)
    bob, cleo = await sign_in("Bob"), await sign_in("Cleo")
    await bob.open_chat(temporary=True)
    await waits(bob, FIRST, shots)
    await cleo.open_chat(temporary=True)
    await waits(cleo, SECOND, shots)

    vestibule.leave(ann.user)

    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")
    await cleo.sees_status(FIRST, SOON_S)
    await cleo.stop()
    await becomes(vestibule, cleo.user, "disconnected", None)


async def test_a_browser_in_french(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    ann = await served(sign_in, shots)
    bob = await sign_in("Bob", locale="fr-FR")
    await bob.send("Bonjour, est-ce à moi ?")
    await bob.sees_status(r"^Position 1 dans la file, environ \d+ minutes$")
    await shots.take(bob, "attend")

    vestibule.leave(ann.user)

    await bob.sees_answer(ANSWER, SOON_S)
    await bob.sees_status(r"^C’est à vous\. Attente\s: \d+ s\.$")
    await shots.take(bob, "a sa réponse")


@pytest.mark.usefixtures("titles")
async def test_a_title_never_takes_a_turn(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots, vllm: VllmServer
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    before = vllm.requests()
    ann = await served(sign_in, shots)
    await vllm.has_had(before + 2, SOON_S)  # the answer, and then the title beside it
    bob = await waits(await sign_in("Bob"), FIRST, shots)
    cleo = await waits(await sign_in("Cleo"), SECOND, shots)
    assert vllm.requests() == before + 2

    await cleo.stop()
    vestibule.leave(ann.user)

    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")
    await vllm.has_had(before + 4, SOON_S)  # no title for Cleo, who left
    assert vestibule.ticket(bob.user)["status"] == "active"
