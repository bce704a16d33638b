"""The registry of workers: what an agent calls, and what an admin sees (DESIGN sections 5, 9)."""

import asyncio
import json
import secrets
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, web

from admission import views, wire
from admission.api import access
from admission.asked import Asked
from admission.auth import Kind, bearer, hash_key
from admission.domain import WorkerReport
from admission.errors import BadInput, Conflict, Forbidden, NotFound, Unauthorized
from admission.keys import ROSTER, SETTINGS, STORE
from admission.outcomes import Foreign, Reported, Revoked, Unknown
from admission.small_answer import read_small
from admission.worker_tls import pinned

HEARTBEAT_INTERVAL_S = 5  # at most 10 s (DESIGN section 9); a report is good for 30 s
INFO_TIMEOUT_S = 5.0

# No answer, one that is not JSON (nested too deep, for one), or other JSON.
_NO_AGENT = (ClientError, OSError, ValueError, RecursionError, KeyError, TypeError)

routes = web.RouteTableDef()


@routes.post("/workers/register")
async def register(request: Asked) -> web.Response:
    key = bearer(request.headers)
    who = access.caller(request)
    if who.kind is not Kind.OTHER:  # a known worker's own token
        access.must_be(request, Kind.WORKER)
    body = await wire.read_body(request, wire.RegisterBody)
    access.existing(request, body.pool)
    presented = hash_key(key or "")
    await _check_holder(request, body, presented, is_token=who.kind is Kind.OTHER)
    await _check_address(request, body.url)
    await _check_info(body)
    token, upstream_key = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    registered = await request.app[STORE].register_worker(
        body.pool,
        body.worker_id,
        identity={
            "url": body.url,
            "kind": "agent",
            "fingerprint": body.fingerprint,
            "instance_id": body.instance_id,
            "upstream_key": upstream_key,
            "models": body.models,
            "hardware": body.hardware.model_dump() if body.hardware else None,
            "agent_info": body.agent_info.model_dump(),
        },
        slots=body.slots,
        token_hash=hash_key(token),
        presented_hash=presented,
    )
    if isinstance(registered, Revoked):
        raise _revoked()
    if not registered:  # another was faster
        raise _taken()
    return web.json_response(
        {
            "worker_id": body.worker_id,
            "token": token,
            "upstream_key": upstream_key,
            "heartbeat_interval": HEARTBEAT_INTERVAL_S,
        }
    )


@routes.post("/workers/heartbeat")
async def heartbeat(request: Asked) -> web.Response:
    key = _own_token(request)
    body = await wire.read_body(request, wire.WorkerHeartbeatBody)
    ready, reason = body.ready, body.reason
    wanted = request.app[SETTINGS].worker_agent_sha256
    if wanted and body.agent_info.checksum != wanted:
        ready, reason = False, f"agent checksum is {body.agent_info.checksum}, not {wanted}"
    report = WorkerReport(
        ready=ready,
        reason=reason,
        models=tuple(body.models),
        slots=body.slots,
        in_flight=body.in_flight,
        queue_depth=body.queue_depth,
        load=body.load.model_dump() if body.load else None,
        hardware=body.hardware.model_dump() if body.hardware else None,
        agent_info=body.agent_info.model_dump(),
        instance_id=body.instance_id,
        engine=body.engine.model_dump() if body.engine else None,
    )
    outcome = await request.app[STORE].report_worker(
        body.pool, body.worker_id, report, token_hash=hash_key(key)
    )
    match outcome:
        case Reported():
            return web.json_response(asdict(outcome))
        case Unknown():
            raise _no_worker(body.worker_id)
        case Revoked():
            raise _revoked()
        case Foreign():
            raise Forbidden("This is not that worker's own token.")


@routes.post("/workers/{worker_id}/drain")
async def drain_self(request: Asked) -> web.Response:
    return await _drain(request, hash_key(_own_token(request)))


@routes.post("/admin/workers/{worker_id}/drain")
async def drain(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    return await _drain(request, "")


@routes.post("/admin/workers/{worker_id}/release")
async def release(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    worker = request.match_info["worker_id"]
    if not await request.app[STORE].release_worker(access.pool_for(request), worker):
        raise _no_worker(worker)
    await request.app[ROSTER].refresh()
    return web.json_response({"worker_id": worker, "released": True})


@routes.post("/admin/workers/{worker_id}/rotate")
async def rotate(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    worker = request.match_info["worker_id"]
    match await request.app[STORE].rotate_worker(access.pool_for(request), worker):
        case Unknown():
            raise _no_worker(worker)
        case Foreign():
            raise Conflict(
                f"worker_id: {worker} is a static upstream, which has no secrets of ours",
                code="static_worker",
                field="worker_id",
            )
        case _:
            return web.json_response({"worker_id": worker, "rotating": True})


@routes.delete("/admin/workers/{worker_id}")
async def revoke(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    worker = request.match_info["worker_id"]
    if not await request.app[STORE].revoke_worker(access.pool_for(request), worker):
        raise _no_worker(worker)
    await request.app[ROSTER].refresh()
    return web.json_response({"worker_id": worker, "revoked": True})


@routes.get("/admin/workers")
async def workers(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    store = request.app[STORE]
    found: list[dict[str, Any]] = []
    for pool in await store.pools():
        found += [views.worker_view(worker) for worker in await store.workers(pool)]
    return web.json_response({"workers": found})


async def _drain(request: Asked, token_hash: str) -> web.Response:
    worker = request.match_info["worker_id"]
    outcome = await request.app[STORE].drain_worker(
        access.pool_for(request), worker, token_hash=token_hash
    )
    match outcome:
        case None:
            await request.app[ROSTER].refresh()
            return web.json_response({"worker_id": worker, "draining": True})
        case Unknown():
            raise _no_worker(worker)
        case Foreign():
            raise Forbidden("This is not that worker's own token.")


def _own_token(request: Asked) -> str:
    key = bearer(request.headers)
    if key is None:
        raise Unauthorized("A key is needed: Authorization: Bearer KEY")
    if access.caller(request).kind is not Kind.OTHER:
        raise Forbidden("This needs the worker's own token, from its registration.")
    return key


async def _check_holder(
    request: Asked, body: wire.RegisterBody, presented: str, *, is_token: bool
) -> None:
    """A stranger's key is refused before anything is done for it: no look-up, no call to `/info`.

    Raises:
        Unauthorized: not the own token of the worker it names.
        Conflict: that worker exists, and the shared token is not its own.
        Forbidden: an admin revoked it.
    """
    workers = await request.app[STORE].workers(body.pool)
    holder = next((w for w in workers if w.worker_id == body.worker_id), None)
    own = holder is not None and presented in holder.token_hashes
    if is_token and not own:
        raise Unauthorized("Nobody knows this key.")
    if holder is None or own:
        return
    if holder.revoked:
        raise _revoked()
    if holder.claimed:
        raise _taken()


def _taken() -> Conflict:
    return Conflict(
        "worker_id: taken; it registers again only with its own token, or when an admin frees it",
        code="worker_taken",
        field="worker_id",
    )


def _revoked() -> Forbidden:
    return Forbidden("An admin revoked this worker.", code="worker_revoked")


async def _check_address(request: Asked, url: str) -> None:
    """A worker must live where workers may live, or it could send prompts anywhere.

    Raises:
        BadInput: names the address.
    """
    try:
        host, port = urlsplit(url).hostname or "", urlsplit(url).port
        found = await asyncio.get_running_loop().getaddrinfo(host, port)
    except (OSError, ValueError) as error:
        raise BadInput("url: not the address of a known host", field="url") from error
    networks = request.app[SETTINGS].worker_networks
    for address in {ip_address(entry[4][0]) for entry in found}:
        if not any(address in network for network in networks):
            raise BadInput(f"url: {address} lies in none of VESTIBULE_WORKER_NETWORKS", field="url")


async def _check_info(body: wire.RegisterBody) -> None:
    """The address must answer ``/info`` as that agent, or somebody else listens there.

    Raises:
        BadInput: names the address, the checksum or the worker's id.
    """
    try:
        async with (
            ClientSession(cookie_jar=DummyCookieJar()) as session,
            session.get(
                f"{body.url}/info",
                timeout=ClientTimeout(total=INFO_TIMEOUT_S),
                allow_redirects=False,
                ssl=pinned(body.fingerprint),
            ) as answer,
        ):
            said = json.loads(await read_small(answer.content.iter_any()))
            checksum, name = said["agent_checksum"], said.get("worker_id", body.worker_id)
    except _NO_AGENT as error:
        raise BadInput(f"url: {body.url}/info gives no agent's answer", field="url") from error
    if checksum != body.agent_info.checksum:
        raise BadInput(
            f"agent_info.checksum: {body.url}/info says {checksum}", field="agent_info.checksum"
        )
    if name != body.worker_id:  # an address copied from another worker's settings, for one
        raise BadInput(f"worker_id: {body.url}/info says {name}", field="worker_id")


def _no_worker(worker: str) -> NotFound:
    return NotFound(f"worker_id: there is no worker {worker!r}", field="worker_id")
