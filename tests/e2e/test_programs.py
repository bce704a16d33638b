"""Knows that a user's program waits for its turn as a page does, by both APIs of Open WebUI, and
that one which hangs up leaves the line.

Does not know a browser. A program hears nothing while it waits: `tests/gateway` has those who call
the gateway itself, and do.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.e2e.build import ANSWER
from tests.e2e.line import LONG_SESSION_S, becomes
from tests.e2e.stack import MODEL

if TYPE_CHECKING:
    from tests.e2e.conftest import StartVestibule
    from tests.e2e.stack import OpenWebUI, VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

CALL_TIMEOUT_S = 60
both_apis = pytest.mark.parametrize(
    "path", ["/api/chat/completions", "/api/v1/messages"], ids=["openai", "anthropic"]
)


def ask(
    open_webui: OpenWebUI, path: str, key: str, *, stream: bool, timeout_s: float = CALL_TIMEOUT_S
) -> requests.Response:
    """A chat as a user's program asks for it; both APIs take the same question."""
    question = {"role": "user", "content": "Hello, machine."}
    return requests.post(
        f"{open_webui.url}{path}",
        json={"model": MODEL, "messages": [question], "max_tokens": 100, "stream": stream},
        headers={"Authorization": f"Bearer {key}"},
        timeout=timeout_s,
    )


def said(reply: requests.Response) -> str:
    """What the model said, at once or in a stream."""
    if reply.headers["Content-Type"].startswith("application/json"):
        return words(reply.json())
    lines = reply.text.splitlines()
    data = (line.removeprefix("data: ") for line in lines if line.startswith("data: "))
    return "".join(words(json.loads(one)) for one in data if one != "[DONE]")


def words(part: dict[str, Any]) -> str:
    """The words in an answer, or in a piece of one, in the shape of either API."""
    (choice,) = part.get("choices") or [part]
    piece = choice.get("message") or choice.get("delta") or choice
    content = piece.get("content") or piece.get("text") or ""
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


@both_apis
async def test_a_program_waits_for_its_answer(
    start_vestibule: StartVestibule, open_webui: OpenWebUI, path: str
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    holder, user, other = (open_webui.add_user(name) for name in ("Ann", "Bob", "Cleo"))
    vestibule.join(holder)
    calls = []
    for place, (caller, stream) in enumerate(((user, False), (other, True)), start=1):
        key = open_webui.api_key(caller)
        asking = asyncio.to_thread(ask, open_webui, path, key, stream=stream)
        calls.append(asyncio.create_task(asking))
        assert (await becomes(vestibule, caller, "waiting"))["position"] == place

    for before, call in zip((holder, user), calls, strict=True):
        vestibule.leave(before)
        reply = await call
        assert (reply.status_code, said(reply)) == (200, ANSWER), reply.text


@both_apis
async def test_a_program_that_hangs_up_leaves_the_line(
    start_vestibule: StartVestibule, open_webui: OpenWebUI, vllm: VllmServer, path: str
) -> None:
    vestibule = start_vestibule(LONG_SESSION_S)
    holder, user = open_webui.add_user("Ann"), open_webui.add_user("Bob")
    vestibule.join(holder)
    before = vllm.requests()
    with pytest.raises(requests.ReadTimeout):
        ask(open_webui, path, open_webui.api_key(user), stream=False, timeout_s=3)

    ticket = await becomes(vestibule, user, "disconnected")

    assert ticket["reason"] == "left"
    assert vllm.requests() == before
