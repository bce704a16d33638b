"""A small OpenAI-compatible model server that repeats what it hears, so that a chat has an answer.

Knows no model: its name, `vestibule-demo`, and every answer say that it is a demo. Never logs what
it is told. By hand: `python -m infra.demo_model --port 8001`.
"""

import argparse
import asyncio
import json
import re
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from infra.stopping import stop_event

MODEL = "vestibule-demo"
LABEL = "This is Vestibule's demo model, not a real one. You said: "
ECHO_CHARACTERS = 500  # of the last message; a demo that repeats a book helps nobody
PAUSE_S = 0.05  # between two words of a streamed answer, about the pace of a real model
MAX_BODY_BYTES = 32 * 2**20

Json = dict[str, Any]


class BadRequest(Exception):
    """What the caller got wrong."""

    def __init__(self, message: str, *, status: int = 400, code: str = "bad_input") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class DemoModel:
    """The HTTP surface. `pause_s`: seconds between two words of a streamed answer, 0 or more."""

    def __init__(self, pause_s: float = PAUSE_S) -> None:
        self._pause_s = pause_s

    def application(self) -> web.Application:
        """`/v1/models`, `/v1/chat/completions` and `/health`."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors])
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        card = {"id": MODEL, "object": "model", "created": 0, "owned_by": "vestibule"}
        return web.json_response({"object": "list", "data": [card]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        call = _call(await request.read())
        answer = LABEL + _last_words(call["messages"])
        if call.get("stream") is not True:
            return web.json_response(_completion(call["messages"], answer))
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        for chunk in _chunks(call, answer):
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            await asyncio.sleep(self._pause_s)
        await response.write(b"data: [DONE]\n\n")
        return response


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Every refusal in the OpenAI error envelope."""
    try:
        response: web.StreamResponse = await handler(request)
    except BadRequest as error:
        return _envelope(error.status, error.code, str(error))
    except web.HTTPException as error:
        return _envelope(
            error.status, "refused", f"{request.method} {request.path}: {error.reason}"
        )
    return response


def _envelope(status: int, code: str, message: str) -> web.Response:
    kind = "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return web.json_response({"error": error}, status=status)


def _call(body: bytes) -> Json:
    """The call, checked as far as the demo reads it. Raises `BadRequest`."""
    try:
        call = json.loads(body)
    except ValueError as error:
        raise BadRequest("The body is not JSON.") from error
    if not isinstance(call, dict):
        raise BadRequest("The body must be a JSON object.")
    messages = call.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("`messages` must be a list with at least one message.")
    if not all(isinstance(message, dict) for message in messages):
        raise BadRequest("Each of `messages` must be an object.")
    if (model := call.get("model")) != MODEL:
        text = f"The model {model!r} does not exist; this demo serves {MODEL!r} only."
        raise BadRequest(text, status=404, code="model_not_found")
    return call


def _last_words(messages: list[Json]) -> str:
    """The user's last message, or its text parts, shortened."""
    spoken = [message.get("content") for message in messages if message.get("role") == "user"]
    content = spoken[-1] if spoken else ""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        content = " ".join(str(part["text"]) for part in parts if "text" in part)
    text = str(content or "")
    return text if len(text) <= ECHO_CHARACTERS else f"{text[:ECHO_CHARACTERS]}…"


def _completion(messages: list[Json], answer: str) -> Json:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer},
        "finish_reason": "stop",
    }
    return {**_head("chat.completion"), "choices": [choice], "usage": _usage(messages, answer)}


def _chunks(call: Json, answer: str) -> Iterator[Json]:
    """The parts of a streamed answer: the role, each word, the end, the usage if asked for."""
    head = _head("chat.completion.chunk")

    def part(delta: Json, finish_reason: str | None = None) -> Json:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}

    yield part({"role": "assistant", "content": ""})
    for word in re.findall(r"\s*\S+|\s+$", answer):
        yield part({"content": word})
    yield part({}, "stop")
    options = call.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") is True:
        yield {**head, "choices": [], "usage": _usage(call["messages"], answer)}


def _head(kind: str) -> Json:
    identity = f"chatcmpl-{uuid.uuid4().hex}"
    return {"id": identity, "object": kind, "created": int(time.time()), "model": MODEL}


def _usage(messages: list[Json], answer: str) -> dict[str, int]:
    """In words, as a demo has no tokens."""
    prompt = sum(len(str(message.get("content") or "").split()) for message in messages)
    completion = len(answer.split())
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {**counts, "total_tokens": prompt + completion}


async def serve(host: str, port: int, pause_s: float) -> int:
    """Answer until SIGTERM or SIGINT. Raises `OSError` when the address cannot be used."""
    stop = stop_event()
    runner = web.AppRunner(
        DemoModel(pause_s).application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=0.1,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        await stop.wait()
    finally:
        await runner.cleanup()
    return 0


def main() -> int:
    """Exit status 0 after a signal, 1 when the address cannot be used."""
    parser = argparse.ArgumentParser(
        prog="infra.demo_model", description="Vestibule's demo model server: repeats what you say."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument(
        "--pause", type=float, default=PAUSE_S, help="seconds between two streamed words"
    )
    given = parser.parse_args()
    try:
        return asyncio.run(serve(given.host, given.port, given.pause))
    except (OSError, OverflowError) as error:
        print(f"demo model: {given.host}:{given.port}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
