"""Knows how to be a model that does as it is told: calls tools, or thinks until it may go on.

Does not know Open WebUI or Vestibule. vLLM's tiny model says one sentence to everything; here it is
not the model that is looked at. It runs as `python tool_model.py PORT`. What it does stands in the
user's last message, and it says `SAID` to anything else:

    think …                it answers once somebody has asked for `/go`
    … delegate N times: …  it hands the rest to so many sub-agents at once
    ask me …               it asks the user a question
"""

import asyncio
import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from aiohttp import web

NAME = "agent"
SAID = "Done as told."
CHOICE = "Tea"
DELEGATE = re.compile(r"delegate (\d+) times: (.+)")
ASKED = "What would you like?"
QUESTION = {
    "id": "drink",
    "header": "Drink",
    "question": ASKED,
    "options": [
        {"label": CHOICE, "description": "From leaves."},
        {"label": "Coffee", "description": "From beans."},
    ],
}

Json = dict[str, Any]


class Model:
    """What it was asked so far, and whether it may go on."""

    def __init__(self) -> None:
        self._requests = self._thinking = 0
        self._go = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One chat completion, streamed as Open WebUI asks for it."""
        last = (await request.json())["messages"][-1]
        told = last["content"] if last["role"] == "user" else ""
        self._requests += 1
        if told.startswith("think"):
            self._thinking += 1
            await self._go.wait()
        return await _stream(request, _calls(told))

    async def go(self, _: web.Request) -> web.Response:
        """Whoever thinks has thought enough."""
        self._go.set()
        return web.json_response({})

    async def health(self, _: web.Request) -> web.Response:
        """How many requests it has had, and how many of them had to think."""
        return web.json_response({"requests": self._requests, "thinking": self._thinking})


def _calls(told: str) -> list[Json]:
    if found := DELEGATE.search(told):
        return [_call(i, "delegate_task", {"task": found[2]}) for i in range(int(found[1]))]
    return [_call(0, "ask_user", {"questions": [QUESTION]})] if told.startswith("ask me") else []


def _call(index: int, name: str, arguments: Json) -> Json:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"index": index, "id": f"call_{index}", "type": "function", "function": function}


async def _stream(request: web.Request, calls: list[Json]) -> web.StreamResponse:
    said: Json = {"tool_calls": calls} if calls else {"content": SAID}
    steps: Iterable[tuple[Json, str | None]] = (
        ({"role": "assistant", **said}, None),
        ({}, "tool_calls" if calls else "stop"),
    )
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for delta, end in steps:
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        chunk = {"id": "1", "object": "chat.completion.chunk", "model": NAME, "choices": [choice]}
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    return response


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": NAME, "object": "model"}]})


async def _open_to_pages(_: web.Request, response: web.StreamResponse) -> None:
    """Also the page of another server may ask: a user's own connection does."""
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Access-Control-Allow-Headers"] = "*"


async def _allowed(_: web.Request) -> web.Response:
    return web.Response()


def main(port: int) -> None:
    """Listen until the process is ended."""
    app, model = web.Application(client_max_size=2**26), Model()
    app.router.add_post("/v1/chat/completions", model.answer)
    app.router.add_get("/v1/models", _models)
    app.router.add_get("/health", model.health)
    app.router.add_options("/{path:.*}", _allowed)
    app.on_response_prepare.append(_open_to_pages)
    app.router.add_post("/go", model.go)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
