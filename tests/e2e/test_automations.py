"""Knows that what Open WebUI does by itself, in somebody's name and with nobody there, waits.

Does not know when it does that: an automation is started here as its owner does to try it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.line import LONG_SESSION_S, POLL_S, SOON_S, becomes
from tests.e2e.stack import MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, User

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

PERMISSIONS = "/api/v1/users/default/permissions"
DAILY = "RRULE:FREQ=DAILY;BYHOUR=3;BYMINUTE=0"


@pytest.fixture
def automations(open_webui: OpenWebUI) -> Iterator[None]:
    """Plain users may have automations."""
    features = open_webui.as_admin("GET", PERMISSIONS)["features"]
    open_webui.configure(PERMISSIONS, features=features | {"automations": True})
    yield
    open_webui.configure(PERMISSIONS, features=features)


async def last_run(open_webui: OpenWebUI, owner: User, automation: str) -> dict[str, Any]:
    """Its only run, once it is over."""
    deadline = time.monotonic() + SOON_S
    while not (runs := open_webui.as_user(owner, "GET", f"{automation}/runs")):
        assert time.monotonic() < deadline, "the automation still runs"
        await asyncio.sleep(POLL_S)
    (run,) = runs
    found: dict[str, Any] = run
    return found


@pytest.mark.usefixtures("automations")
async def test_an_automation_waits_its_turn(
    start_vestibule: StartVestibule, open_webui: OpenWebUI, sign_in: SignIn, shots: Shots
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    holder, owner = open_webui.add_user("Ann"), open_webui.add_user("Bob")
    vestibule.join(holder)
    task = {"prompt": "Tell me the news.", "model_id": MODEL, "rrule": DAILY}
    made = open_webui.as_user(
        owner, "POST", "/api/v1/automations/create", {"name": "The news", "data": task}
    )
    automation = f"/api/v1/automations/{made['id']}"

    open_webui.as_user(owner, "POST", f"{automation}/run")

    place = await becomes(vestibule, owner, "waiting")
    vestibule.leave(holder)
    run = await last_run(open_webui, owner, automation)
    assert (run["status"], run["error"]) == ("success", None)
    assert vestibule.ticket(owner)["ticket_id"] == place["ticket_id"]
