"""The demo model server: OpenAI's shapes, and never taken for a real model."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from infra.demo_model import LABEL, MODEL, DemoModel
from tests.ports import free_port
from tests.worker.processes import program
from tests.worker.stand_ins import DEADLINE_S

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello  there"}]


@pytest.fixture
async def demo() -> AsyncIterator[ClientSession]:
    server = TestServer(DemoModel(pause_s=0).application())
    async with server, ClientSession(server.make_url("/")) as http:
        yield http


async def test_it_lists_one_model_whose_name_says_demo(demo: ClientSession) -> None:
    async with demo.get("/v1/models") as answer:
        listed = await answer.json()
    assert [model["id"] for model in listed["data"]] == ["vestibule-demo"]
    async with demo.get("/health") as answer:
        assert answer.status == 200


async def test_an_answer_is_labelled_and_repeats_the_last_words(demo: ClientSession) -> None:
    earlier = [{"role": "user", "content": "old"}, {"role": "assistant", "content": "x"}]
    body = {"model": MODEL, "messages": earlier + HELLO, "unknown_field": 1}
    async with demo.post(CHAT, json=body) as answer:
        reply = await answer.json()
    [choice] = reply["choices"]
    assert reply["object"] == "chat.completion"
    assert reply["model"] == MODEL
    assert choice["message"] == {"role": "assistant", "content": f"{LABEL}hello  there"}
    assert choice["finish_reason"] == "stop"
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


@pytest.mark.parametrize("include_usage", [True, False])
async def test_a_stream_is_the_same_answer_word_by_word(
    demo: ClientSession, include_usage: bool
) -> None:
    body = {"model": MODEL, "messages": HELLO, "stream": True}
    if include_usage:
        body["stream_options"] = {"include_usage": True}
    async with demo.post(CHAT, json=body) as answer:
        assert answer.content_type == "text/event-stream"
        events = (await answer.text()).removesuffix("\n\n").split("\n\n")
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert len({chunk["id"] for chunk in chunks}) == 1
    if include_usage:
        last = chunks.pop()
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] > 0
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == f"{LABEL}hello  there"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(chunks) > 10


async def test_parts_of_a_message_are_read_and_long_ones_shortened(demo: ClientSession) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "y" * 999}]
    body = {"model": MODEL, "messages": [{"role": "user", "content": parts}]}
    async with demo.post(CHAT, json=body) as answer:
        content = (await answer.json())["choices"][0]["message"]["content"]
    assert content == f"{LABEL}{'y' * 500}…"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[]", 400),
        ("\udcff", 400),
        ({"model": MODEL}, 400),
        ({"model": MODEL, "messages": []}, 400),
        ({"model": MODEL, "messages": ["hi"]}, 400),
        ({"model": "gpt-4", "messages": HELLO}, 404),
        ({"messages": HELLO}, 404),
    ],
)
async def test_bad_input_is_refused_in_the_openai_envelope(
    demo: ClientSession, body: Any, status: int
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    async with demo.post(CHAT, data=text.encode(errors="surrogateescape")) as answer:
        assert answer.status == status
        error = (await answer.json())["error"]
    assert set(error) == {"message", "type", "param", "code"}


async def test_it_runs_by_itself_and_stops_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "infra.demo_model", "--port", str(port), "--pause", "5"]
    async with program(command, {}, tmp_path) as child, ClientSession(url) as http:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    async with asyncio.timeout(1), http.get("/health"):
                        break
                except OSError:
                    await asyncio.sleep(0.02)
        body = {"model": MODEL, "messages": HELLO, "stream": True}
        async with http.post(CHAT, json=body) as answer:
            await answer.content.readany()
            status, written = await child.stop()
    assert (status, written) == (0, "")


async def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    command = [sys.executable, "-m", "infra.demo_model", "--port", str(port)]
    async with program(command, {}, tmp_path) as child:
        status, written = await child.end()
    server.close()
    assert status == 1
    assert len(written.splitlines()) == 1
    assert "address already in use" in written
