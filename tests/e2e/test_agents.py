"""Knows that an answer with many steps, sub-agents and questions among them, needs one turn, and
one by a user's own model none.

Does not know vLLM: the model is a stand-in that calls the tools it is told to. Open WebUI runs
them.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e import tool_model
from tests.e2e.line import FIRST, LONG_SESSION_S, POLL_S, SOON_S, waits
from tests.e2e.server import Server
from tests.e2e.tool_model import ASKED, CHOICE, NAME, SAID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.e2e.conftest import Shots, SignIn, StartVestibule
    from tests.e2e.stack import OpenWebUI, Vestibule, VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

SETTINGS = "/api/v1/configs/subagents"
CONNECTIONS = "/api/v1/configs/connections"
AT_ONCE = 4  # so much may one session ask at once (VESTIBULE_SESSION_CONCURRENCY)
SUBAGENTS = AT_ONCE + 2


class ToolModel(Server):
    """The stand-in, as a server of its own."""

    name = "tool-model"
    ready_within_s = 30

    def command(self) -> Sequence[str | Path]:
        return (sys.executable, tool_model.__file__, str(self.port))

    def go(self) -> None:
        """Whatever it thinks about, it has thought enough."""
        self.call("POST", "/go")

    def requests(self) -> int:
        """How many it has had."""
        had: int = self.call("GET", "/health")["requests"]
        return had

    async def thinks(self, about: int = 1) -> None:
        """Wait until it was told to think so often."""
        deadline = time.monotonic() + SOON_S
        while (had := self.call("GET", "/health")["thinking"]) < about:
            assert time.monotonic() < deadline, f"it was told to think {had} times"
            await asyncio.sleep(POLL_S)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[ToolModel]:
    """The model that calls tools."""
    with ToolModel(tmp_path) as server:
        yield server


@pytest.fixture
def vestibule(
    start_vestibule: StartVestibule, open_webui: OpenWebUI, vllm: VllmServer, agent: ToolModel
) -> Iterator[Vestibule]:
    """One turn for both models, in an Open WebUI that has sub-agents."""
    open_webui.configure(SETTINGS, ENABLE_SUBAGENTS=True)
    upstreams = f"{vllm.url},{agent.url}"
    yield start_vestibule(LONG_SESSION_S, VESTIBULE_UPSTREAMS=upstreams)
    open_webui.configure(SETTINGS, ENABLE_SUBAGENTS=False)


@pytest.fixture
def own_connections(open_webui: OpenWebUI) -> Iterator[None]:
    """Users may bring their own model servers, which their browsers ask."""
    open_webui.configure(CONNECTIONS, ENABLE_DIRECT_CONNECTIONS=True)
    yield
    open_webui.configure(CONNECTIONS, ENABLE_DIRECT_CONNECTIONS=False)


async def test_sub_agents_work_in_their_parents_turn(
    vestibule: Vestibule, agent: ToolModel, sign_in: SignIn, shots: Shots
) -> None:
    ann, bob = await sign_in("Ann"), await sign_in("Bob")
    await ann.open_chat(NAME)
    await ann.send(f"delegate {SUBAGENTS} times: think")
    await agent.thinks(about=AT_ONCE)
    await waits(bob, FIRST, shots)
    await shots.take(ann, "has sub-agents at work")

    agent.go()

    await ann.sees_text(SAID, SOON_S)
    await shots.take(ann, "is answered")
    assert agent.requests() == 1 + SUBAGENTS + 1
    assert vestibule.ticket(ann.user)["status"] == "active"
    assert vestibule.ticket(bob.user)["status"] == "waiting"


async def test_a_sub_agent_that_starts_after_the_sessions_end(
    vestibule: Vestibule, agent: ToolModel, sign_in: SignIn, shots: Shots
) -> None:
    ann = await sign_in("Ann")
    await ann.open_chat(NAME)
    await ann.send("think, and then delegate 1 times: say hello")
    await agent.thinks()
    vestibule.leave(ann.user)

    agent.go()

    await ann.sees_text(SAID, SOON_S)
    await shots.take(ann, "is answered")


async def test_the_answer_to_a_question_waits_its_turn(
    vestibule: Vestibule, open_webui: OpenWebUI, sign_in: SignIn, shots: Shots
) -> None:
    other, ann = open_webui.add_user("Zoe"), await sign_in("Ann")
    await ann.open_chat(NAME)
    await ann.send("ask me what I would like")
    await ann.is_asked(ASKED)
    await shots.take(ann, "is asked")
    vestibule.leave(ann.user)
    vestibule.join(other)

    await ann.chooses(CHOICE)

    await ann.sees_status(FIRST)
    await shots.take(ann, "waits")
    vestibule.leave(other)
    await ann.sees_text(SAID, SOON_S)
    await shots.take(ann, "is answered")


@pytest.mark.usefixtures("own_connections")
async def test_a_users_own_model_needs_no_turn(
    start_vestibule: StartVestibule,
    open_webui: OpenWebUI,
    agent: ToolModel,
    sign_in: SignIn,
    shots: Shots,
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    vestibule.join(open_webui.add_user("Zoe"))
    ann = await sign_in("Ann")
    mine = {
        "OPENAI_API_BASE_URLS": [f"{agent.url}/v1"],
        "OPENAI_API_KEYS": [""],
        "OPENAI_API_CONFIGS": {"0": {"enable": True, "prefix_id": "mine"}},
    }
    settings = {"ui": {"directConnections": mine}}
    open_webui.as_user(ann.user, "POST", "/api/v1/users/user/settings/update", settings)
    await ann.open_chat(f"mine.{NAME}")

    await ann.send("Hello, my own machine.")

    await ann.sees_text(SAID, SOON_S)
    await shots.take(ann, "is answered by her own")
    assert vestibule.ticket(ann.user)["status"] is None
