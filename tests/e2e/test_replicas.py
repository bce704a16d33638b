"""Knows two replicas of Open WebUI that share a database and Redis, with people on both.

Does not know how they tell each other; each person's tab is at one of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import FIRST, LONG_SESSION_S, SECOND, SOON_S, becomes, waits
from tests.e2e.stack import OpenWebUI, Valkey, Vestibule
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.async_api import Browser

    from tests.e2e.build import Components
    from tests.e2e.conftest import Shots
    from tests.e2e.stack import VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

GRACE_S = 20


@pytest.fixture
def replicas(components: Components, tmp_path: Path) -> Iterator[tuple[OpenWebUI, OpenWebUI]]:
    """Both with the same data; the second starts once the first has made the tables."""
    with Valkey(tmp_path) as valkey:
        redis = f"redis://127.0.0.1:{valkey.port}/0"
        shared = {
            "REDIS_URL": redis,
            "WEBSOCKET_MANAGER": "redis",
            "WEBSOCKET_REDIS_URL": redis,
        }
        with (
            OpenWebUI(tmp_path, components, "open-webui-a", **shared) as first,
            OpenWebUI(tmp_path, components, "open-webui-b", **shared) as second,
        ):
            yield first, second


@pytest.fixture
def vestibule(
    replicas: tuple[OpenWebUI, OpenWebUI], vllm: VllmServer, tmp_path: Path
) -> Iterator[Vestibule]:
    """Installed by way of the first replica."""
    settings = {"SESSION_DURATION": LONG_SESSION_S, "VESTIBULE_PRESENCE_GRACE": GRACE_S}
    with Vestibule(tmp_path, free_port(), vllm.url, **settings) as server:
        server.install_into(replicas[0])
        yield server


async def test_who_waits_at_one_replica_is_stopped_at_the_other(
    replicas: tuple[OpenWebUI, OpenWebUI], vestibule: Vestibule, browser: Browser, shots: Shots
) -> None:
    from tests.e2e.browser import ChatPage

    one, two = replicas
    holder, bob, cleo = (one.add_user(name) for name in ("Ann", "Bob", "Cleo"))
    vestibule.join(holder)
    at_one = await ChatPage.sign_in(browser, one.url, bob)
    await waits(at_one, FIRST, shots)
    cleo_at_two = await waits(await ChatPage.sign_in(browser, two.url, cleo), SECOND, shots)

    at_two = await ChatPage.sign_in(browser, two.url, bob)
    await at_two.return_to(at_one.chat)

    await at_two.sees_status(FIRST)
    await shots.take(at_two, "looks through the other")
    await at_two.stop()
    ticket = await becomes(vestibule, bob, "disconnected")
    assert ticket["reason"] == "left"
    for page in (at_one, at_two):
        await page.sees_status("You left the line.", SOON_S)
    await shots.take(at_one, "has stopped")
    await cleo_at_two.sees_status(FIRST, SOON_S)

    # Past the grace Cleo has her place still: she came back at the other.
    place = vestibule.ticket(cleo)["ticket_id"]
    chat = await cleo_at_two.close_tab()
    cleo_at_one = await ChatPage.sign_in(browser, one.url, cleo)
    await cleo_at_one.return_to(chat)
    await asyncio.sleep(GRACE_S)
    await cleo_at_one.sees_status(FIRST)
    await shots.take(cleo_at_one, "looks through the other")
    vestibule.leave(holder)
    await cleo_at_one.sees_answer(ANSWER, SOON_S)
    await shots.take(cleo_at_one, "is answered")
    turn = vestibule.ticket(cleo)
    assert (turn["status"], turn["ticket_id"]) == ("active", place)
    await at_two.send("Now it is my turn?")
    await at_two.sees_status(FIRST, SOON_S)
    vestibule.leave(cleo)
    await at_two.sees_answer(ANSWER, SOON_S)
    await shots.take(at_two, "is answered")
