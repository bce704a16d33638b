"""Ollama's own endpoints, for callers who speak its API: gated like ``/v1``, streamed as they come.

Which models there are is Vestibule's to say; what one of them is, its worker is asked. An answer of
JSON lines has no place for words of ours: a call that waits here just takes longer.
"""

import asyncio
from typing import Any

import msgspec
from aiohttp import ClientError, web

from admission.domain import Worker
from admission.errors import AdmissionError, NotFound, NoWorker
from admission.gateway import pick
from admission.gateway.call import read_model
from admission.gateway.gate import pass_gate
from admission.gateway.headers import to_caller
from admission.gateway.routes import check_reader
from admission.gateway.upstream import send
from admission.keys import CONNECTIONS, DIRECTORY, REQUEST_ID
from admission.small_answer import read_small

ASK_TIMEOUT_S = 3.0

routes = web.RouteTableDef()


@routes.post("/api/chat")
@routes.post("/api/generate")
@routes.post("/api/embed")
@routes.post("/api/embeddings")
async def call(request: web.Request) -> web.StreamResponse:
    return await pass_gate(request)


@routes.get("/api/tags")
async def tags(request: web.Request) -> web.Response:
    check_reader(request)
    return _answer({"models": [_model(name) for name in request.app[DIRECTORY].models()]})


@routes.post("/api/show")
async def show(request: web.Request) -> web.StreamResponse:
    """What a worker that serves the model says of it; that takes no turn."""
    check_reader(request)
    model, body = await read_model(request)
    for attempt in pick.attempts(request.app[DIRECTORY], model):
        with attempt as worker:
            async with await send(
                request.app[CONNECTIONS],
                worker,
                "POST",
                "/api/show",
                headers=_headers(request, worker),
                body=body,
            ) as answer:
                return web.Response(
                    status=answer.status,
                    body=await read_small(answer),
                    headers=to_caller(answer.headers),
                )
    raise NoWorker


@routes.get("/api/ps")
async def ps(request: web.Request) -> web.Response:
    """The models that are loaded now, on any worker."""
    check_reader(request)
    found = await _ask_all(request, "/api/ps")
    models = [model for said in found for model in _list(said.get("models"))]
    return _answer({"models": models})


@routes.get("/api/version")
async def version(request: web.Request) -> web.Response:
    """The oldest of the workers': what it can do all of them can."""
    check_reader(request)
    found = await _ask_all(request, "/api/version")
    versions = [said["version"] for said in found if isinstance(said.get("version"), str)]
    if not versions:
        raise NotFound("No worker here speaks Ollama's own API.", code="no_ollama")
    return _answer({"version": min(versions, key=_in_order)})


async def _ask_all(request: web.Request, path: str) -> list[dict[str, Any]]:
    """What those workers say that know the path; the others have another API."""
    workers = request.app[DIRECTORY].everyone()
    found = await asyncio.gather(*(_ask(request, each, path) for each in workers))
    return [said for said in found if said is not None]


async def _ask(request: web.Request, worker: Worker, path: str) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            headers = _headers(request, worker)
            async with await send(
                request.app[CONNECTIONS], worker, "GET", path, headers=headers
            ) as answer:
                said: Any = msgspec.json.decode(await read_small(answer))
                return said if answer.status == 200 and isinstance(said, dict) else None
    except (
        AdmissionError,
        ClientError,
        TimeoutError,
        ValueError,
        pick.Saturated,
        pick.Unreachable,
    ):
        return None


def _headers(request: web.Request, worker: Worker) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "X-Request-Id": request[REQUEST_ID]}
    if worker.upstream_key:
        headers["Authorization"] = f"Bearer {worker.upstream_key}"
    return headers


def _model(name: str) -> dict[str, Any]:
    """As Ollama lists one; what Vestibule does not know is empty."""
    details = {"format": "", "family": "", "parameter_size": "", "quantization_level": ""}
    unknown = {"modified_at": "1970-01-01T00:00:00Z", "size": 0, "digest": ""}
    return {"name": name, "model": name, **unknown, "details": details}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _in_order(version: str) -> list[int]:
    return [int(part) if part.isdecimal() else 0 for part in version.split(".")]


def _answer(view: dict[str, Any]) -> web.Response:
    return web.Response(body=msgspec.json.encode(view), content_type="application/json")
