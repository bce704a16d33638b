"""Answers as OpenAI's API gives them, for the SDK to read; only the model is the call's own."""

import json
from typing import Any

from aiohttp import web

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
}


async def answer(request: web.Request) -> web.StreamResponse:
    """What a worker of the tests answers (``Upstream.act``)."""
    if request.path.startswith("/v1/responses/"):  # it keeps none
        raise web.HTTPNotFound
    body = json.loads(await request.read())
    if request.path == "/v1/chat/completions":
        return await (_chat_stream(request, body) if body.get("stream") else _chat(body))
    if request.path == "/v1/completions":
        choice = {"index": 0, "text": "Hello", "finish_reason": "stop", "logprobs": None}
        return _json(body, "text_completion", choices=[choice], usage=USAGE)
    if request.path == "/v1/embeddings":
        vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
        return _json(body, "list", data=[vector], usage={"prompt_tokens": 3, "total_tokens": 3})
    if request.path == "/v1/responses":
        return _json(body, "response", **_response())
    raise web.HTTPNotFound


async def _chat(body: dict[str, Any]) -> web.Response:
    message: dict[str, Any] = {"role": "assistant", "content": "Hello"}
    if body.get("tools"):
        message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    if body.get("response_format"):
        message["content"] = '{"city": "Bern", "degrees": 21}'
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return _json(body, "chat.completion", choices=[choice], usage=USAGE)


async def _chat_stream(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    head = _head(body, "chat.completion.chunk")
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if body.get("tools"):
        deltas.append({"tool_calls": [{**CALL, "index": 0}]})
    else:
        deltas += [{"content": "Hel"}, {"content": "lo"}]
    for delta in deltas:
        await _event(response, {**head, "choices": [{"index": 0, "delta": delta}]})
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    await _event(response, {**head, "choices": [end]})
    if (body.get("stream_options") or {}).get("include_usage"):
        await _event(response, {**head, "choices": [], "usage": USAGE})
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


async def _event(response: web.StreamResponse, data: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(data)}\n\n".encode())


def _response() -> dict[str, Any]:
    text = {"type": "output_text", "text": "Hello", "annotations": []}
    message = {"type": "message", "id": "m1", "role": "assistant", "status": "completed"}
    return {
        "status": "completed",
        "output": [{**message, "content": [text]}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "a1", "object": kind, "created": 1, "model": body["model"]}


def _json(body: dict[str, Any], kind: str, **fields: Any) -> web.Response:
    return web.json_response({**_head(body, kind), **fields})
