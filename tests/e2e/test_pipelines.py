"""Knows what people live through where the Pipelines server does the waiting, not the Function.

The Pipelines server is the real one, with the versions it is pinned to (lock/pipelines.txt).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.e2e.build import ANSWER
from tests.e2e.line import (
    FIRST,
    LONG_SESSION_S,
    POLL_S,
    SECOND,
    SOON_S,
    becomes,
    served,
    waits,
)
from tests.e2e.stack import PipelinesServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.build import Components
    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, Vestibule, VllmServer

# Long, because the first case of a first run builds the components.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

WATCHED_S = 5
STOPPED_S = 5.0  # it is looked for every 2 s


class StartLine(Protocol):
    """Start a Vestibule whose line is kept by the Pipelines filter with these valves."""

    def __call__(self, **valves: object) -> Vestibule: ...


@pytest.fixture
def pipelines(components: Components, tmp_path: Path) -> Iterator[PipelinesServer]:
    """A Pipelines server with the filter."""
    with PipelinesServer(tmp_path, components) as server:
        yield server


@pytest.fixture
def start_line(
    start_vestibule: StartVestibule, open_webui: OpenWebUI, pipelines: PipelinesServer
) -> StartLine:
    """As `StartLine`. The installer's connection stays, its Function is switched off."""

    def start(**valves: object) -> Vestibule:
        vestibule = start_vestibule(LONG_SESSION_S)
        open_webui.switch_function()
        pipelines.join(open_webui, vestibule, **valves)
        return vestibule

    return start


async def test_who_waits_sees_the_place_and_is_answered(
    start_line: StartLine, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_line()
    ann = await served(sign_in, shots)
    bob = await waits(await sign_in("Bob"), FIRST, shots)
    cleo = await waits(await sign_in("Cleo"), SECOND, shots)

    vestibule.leave(ann.user)

    await bob.sees_answer(ANSWER, SOON_S)
    await bob.sees_status(r"^Your turn\. Waited ")
    await shots.take(bob, "is answered")
    await cleo.sees_status(FIRST, SOON_S)
    await cleo.reload()
    await cleo.sees_status(FIRST)  # it is stored with the chat
    await shots.take(cleo, "moved up")
    assert vestibule.ticket(cleo.user)["position"] == 1


async def test_stop_leaves_the_line(start_line: StartLine, sign_in: SignIn, shots: Shots) -> None:
    vestibule = start_line()
    await served(sign_in, shots)
    bob = await waits(await sign_in("Bob"), FIRST, shots)

    await bob.stop()

    ticket = await becomes(vestibule, bob.user, "disconnected", None, within_s=STOPPED_S)
    assert ticket.get("reason") in {"left", None}
    await bob.sees_status(r"^You left the line\.$", SOON_S)
    await shots.take(bob, "has stopped")
    assert await bob.has_no_answer()


async def test_after_the_longest_wait_the_place_is_kept(
    start_line: StartLine, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_line(max_wait_s=WATCHED_S)
    ann = await served(sign_in, shots)
    bob = await waits(await sign_in("Bob"), FIRST, shots)

    await bob.sees_toast(r"you will be told here", WATCHED_S + SOON_S)
    await bob.sees_status(r"Your place is kept")
    await shots.take(bob, "need not watch")
    assert vestibule.ticket(bob.user)["status"] == "waiting"
    vestibule.leave(ann.user)

    await bob.sees_toast(r"It is your turn", SOON_S)
    await bob.sees_status(r"It is your turn")
    await shots.take(bob, "is told")
    await bob.send("Here I am again.")
    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")
    assert vestibule.ticket(bob.user)["status"] == "active"


async def test_who_reads_another_chat_is_told_there(
    start_line: StartLine, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_line(max_wait_s=WATCHED_S)
    ann = await served(sign_in, shots)
    bob = await waits(await sign_in("Bob"), FIRST, shots)
    await bob.sees_toast(r"you will be told here", WATCHED_S + SOON_S)
    await bob.open_chat()

    vestibule.leave(ann.user)

    await bob.sees_toast(r"It is your turn", SOON_S)
    await shots.take(bob, "is told elsewhere")


async def test_a_temporary_chat_waits_at_the_gateway(
    start_line: StartLine, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_line()
    ann = await served(sign_in, shots)
    bob = await sign_in("Bob")
    await bob.open_chat(temporary=True)
    await waits(bob, FIRST, shots)

    vestibule.leave(ann.user)

    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")


async def test_a_title_does_not_wait(
    start_line: StartLine,
    sign_in: SignIn,
    shots: Shots,
    open_webui: OpenWebUI,
    pipelines: PipelinesServer,
) -> None:
    vestibule = start_line()
    await served(sign_in, shots)
    asked = pipelines.asked()
    open_webui.set_titles(True)
    try:
        bob = await waits(await sign_in("Bob"), FIRST, shots)
        deadline = time.monotonic() + SOON_S
        while pipelines.asked() == asked:  # the title's call is over, the chat's is not
            assert time.monotonic() < deadline
            await asyncio.sleep(POLL_S)
    finally:
        open_webui.set_titles(False)
    assert vestibule.ticket(bob.user)["status"] == "waiting"
    assert await bob.has_no_answer()


async def test_without_the_pipelines_server_the_gateway_holds_the_place(
    start_line: StartLine,
    sign_in: SignIn,
    shots: Shots,
    pipelines: PipelinesServer,
    vllm: VllmServer,
) -> None:
    vestibule = start_line()
    ann = await served(sign_in, shots)
    bob = await waits(await sign_in("Bob"), FIRST, shots)
    place, asked = vestibule.ticket(bob.user), vllm.requests()

    pipelines.kill()  # Open WebUI goes on without its filter

    await asyncio.sleep(WATCHED_S)
    await bob.sees_status(FIRST)
    await shots.take(bob, "waits at the gateway")
    now = vestibule.ticket(bob.user)
    assert (now["ticket_id"], now["status"]) == (place["ticket_id"], "waiting")
    assert vllm.requests() == asked

    vestibule.leave(ann.user)

    await bob.sees_answer(ANSWER, SOON_S)
    await shots.take(bob, "is answered")
