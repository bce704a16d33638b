"""``/auth``: a proxy asks whether a call may pass and where to, and relays the bytes by itself.

For nginx's ``auth_request`` and Envoy's ``ext_authz``; docs/nginx.md has the whole of it. The proxy
shows a service key of its own, as the answer holds the key of the worker: a caller who reaches
``/auth`` learns nothing. What cannot be judged by a call's head, or needs to know of its end, is
refused, and the proxy sends it through the gateway: request pools, callers with limits, background
tasks, workers with a pinned certificate.

Nobody says here when a call ends. So it is not accounted for, does not count among the requests
that its session runs at once, and goes on when the session is removed.
"""

from aiohttp import web

from admission.api import access
from admission.auth import Kind, hash_key
from admission.directory import Directory
from admission.domain import Worker
from admission.errors import BadInput, Conflict, Forbidden, NoWorker
from admission.gateway import pick
from admission.gateway.call import (
    CONVERSATION_HEADERS,
    MESSAGE_HEADER,
    TASK_HEADER,
    known_model,
    name_in,
)
from admission.keys import ALLOWANCES, DIRECTORY, GATEKEEPER, TURNS

PROXY_KEY_HEADER = "X-Vestibule-Proxy-Key"
UPSTREAM_HEADER = "X-Vestibule-Upstream"
WORKER_HEADER = "X-Vestibule-Worker"
AUTHORIZATION_HEADER = "X-Vestibule-Upstream-Authorization"

routes = web.RouteTableDef()


class _ThroughTheGateway(Conflict):
    """This call passes, if at all, where its end is seen."""

    code = "through_the_gateway"


@routes.get("/auth", allow_head=False)
@routes.get("/auth/{path:.*}", allow_head=False)  # Envoy asks by the call's own method, and has
@routes.post("/auth/{path:.*}")  # its path behind ours
async def auth(request: web.Request) -> web.Response:
    gatekeeper, directory = request.app[GATEKEEPER], request.app[DIRECTORY]
    who = access.caller(request)
    user = gatekeeper.user_of(who, request.headers)
    _check_proxy(request)
    pool, models = _asked(request, directory)
    if directory.is_request_pool(pool):
        raise _ThroughTheGateway(f"pool: {pool!r} has a lease for each request", field="pool")
    if request.app[ALLOWANCES].concern(who, user):
        raise _ThroughTheGateway("Calls of this caller are counted, as it has limits.")
    if request.headers.get(TASK_HEADER):
        raise _ThroughTheGateway("A background task waits for room.", field=TASK_HEADER)
    message = name_in(request, MESSAGE_HEADER)
    async with request.app[TURNS].hold(pool, user, message=message):
        worker = _worker(directory, models, _conversation(request, user))
    headers = {UPSTREAM_HEADER: worker.url, WORKER_HEADER: worker.worker_id}
    if worker.upstream_key:
        headers[AUTHORIZATION_HEADER] = f"Bearer {worker.upstream_key}"
    return web.Response(headers=headers)


def _check_proxy(request: web.Request) -> None:
    """Raises Forbidden for whoever is not the operator's own proxy."""
    digest = hash_key(request.headers.get(PROXY_KEY_HEADER, ""))
    proxy = request.app[GATEKEEPER].keyring.find(digest)
    if proxy is None or proxy.kind not in (Kind.SERVICE, Kind.ADMIN):
        raise Forbidden(
            f"Only a proxy asks here, with a service key in {PROXY_KEY_HEADER}.",
            field=PROXY_KEY_HEADER,
        )


def _asked(request: web.Request, directory: Directory) -> tuple[str, list[str]]:
    """The pool, and the models its worker must serve: the one in the query, else all of the pool's.

    Of the call's body, where the model stands, the proxy passes nothing.

    Raises:
        BadInput: not a pool's name. NotFound: no such pool, or nobody serves the model.
    """
    named = request.query.get("model")
    if named:
        model, pool = known_model(directory, named)
        return pool, [model]
    pool = access.pool_for(request)
    return pool, [model for model in directory.models() if directory.pool_of(model) == pool]


def _worker(directory: Directory, models: list[str], conversation: str) -> Worker:
    """The worker for this conversation, one that a proxy can call: it checks no pinned certificate.

    Raises:
        NoWorker: there is none. BadInput: none serves all of the models.
    """
    fleets = [directory.fleet(model).workers for model in models]
    if not fleets:
        raise NoWorker
    usable = set(fleets[0]).intersection(*fleets[1:])
    if not usable:
        raise BadInput("model: needed in the query, as the workers differ in theirs", field="model")
    usable = {name for name in usable if fleets[0][name].fingerprint is None}
    worker = pick.suggested(directory, models[0], conversation, usable)
    if worker is None:
        raise NoWorker
    return worker


def _conversation(request: web.Request, user: str) -> str:
    """What should stay with one worker: the chat, as far as the head tells, else the user's all."""
    named = next((v for h in CONVERSATION_HEADERS if (v := request.headers.get(h))), "")
    return f"{user} {named}"
