"""Knows what people see with the gateway as a connection and no plugin.

Does not know the plugin's words; these are the service's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, LONG_SESSION_S, SOON_S, becomes, line_up

if TYPE_CHECKING:
    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]


async def test_without_the_plugin_the_gateway_tells_the_place(
    start_vestibule: StartVestibule, sign_in: SignIn, shots: Shots, open_webui: OpenWebUI
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S, VESTIBULE_WHEN_FULL="wait", VESTIBULE_QUEUE_LIMIT=2)
    open_webui.switch_function()
    ann, bob, cleo = await line_up(sign_in, shots)
    dora = await sign_in("Dora")
    await dora.send("Is there room for me?")
    await dora.sees_text("The queue is full")
    await shots.take(dora, "is refused")
    await bob.reload()
    await bob.sees_status(FIRST)
    await shots.take(bob, "has loaded the page anew")

    vestibule.leave(ann.user)

    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")
    await cleo.sees_status(FIRST, SOON_S)
    await cleo.stop()
    await becomes(vestibule, cleo.user, "disconnected", None)
    await shots.take(cleo, "has stopped")
