"""The endpoints under ``/v1``: which models there are, and calls of them in somebody's turn."""

import msgspec
from aiohttp import web

from admission.auth import Kind
from admission.errors import Forbidden, NotFound
from admission.gateway.call import known_model
from admission.gateway.gate import pass_gate
from admission.keys import DIRECTORY, GATEKEEPER

_JSON = "application/json"
# Of vLLM's administrator (VLLM_ALLOW_RUNTIME_LORA_UPDATING), never of a caller.
_OPERATORS = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})

routes = web.RouteTableDef()


@routes.get("/v1/models")
async def models(request: web.Request) -> web.Response:
    check_reader(request)
    data = [_model(name) for name in request.app[DIRECTORY].models()]
    return _answer({"object": "list", "data": data})


@routes.get("/v1/models/{model:.+}")
async def model(request: web.Request) -> web.Response:
    check_reader(request)
    name, _ = known_model(request.app[DIRECTORY], request.match_info["model"])
    if name not in request.app[DIRECTORY].models():
        raise NotFound(f"The model {name!r} has no ready worker now.", code="model_not_found")
    return _answer(_model(name))


@routes.post("/v1/chat/completions")
@routes.post("/v1/completions")
@routes.post("/v1/responses")
@routes.post("/v1/embeddings")
async def call(request: web.Request) -> web.StreamResponse:
    return await pass_gate(request)


# No dots, escapes or empty parts: what a worker makes of its path must lie under /v1 too, and be
# the path that is looked at here.
@routes.post("/v1/{path:[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*}")
async def other_call(request: web.Request) -> web.StreamResponse:
    """Whatever a worker offers there, by the model in the body."""
    if request.path in _OPERATORS:
        raise Forbidden("Only a worker's own operator may do this.")
    return await pass_gate(request)


def check_reader(request: web.Request) -> None:
    """Raises Unauthorized or Forbidden unless the caller may see which models there are."""
    gatekeeper = request.app[GATEKEEPER]
    gatekeeper.must_be(gatekeeper.caller(request.headers), Kind.SERVICE, Kind.USER)


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "vestibule"}


def _answer(view: dict[str, object]) -> web.Response:
    return web.Response(body=msgspec.json.encode(view), content_type=_JSON, charset="utf-8")
