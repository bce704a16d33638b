"""Asks static upstreams whether they live, as they have no agent to report for them; and agents
which file they run, as a report could come from another, and whether they live once silent.
"""

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ServerFingerprintMismatch,
)

from admission import logs
from admission.domain import DEFAULT_POOL, Worker, WorkerReport
from admission.settings import Upstream
from admission.small_answer import read_small
from admission.store.redis_store import RedisStore
from admission.store.registry import SILENT_MS
from admission.worker_tls import ssl_of

PROBE_TIMEOUT_S = 3.0
AGENTS_AT_ONCE = 32

log = logging.getLogger(__name__)


def worker_id(upstream: Upstream) -> str:
    """The id a static upstream has in the registry: its address, in the letters of an id."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", upstream.url.split("//", 1)[1])
    if len(name) > 56:  # cut, two long addresses could look the same
        name = f"{name[:47]}-{hashlib.sha256(upstream.url.encode()).hexdigest()[:8]}"
    return f"static-{name}"


async def probe_tick(
    store: RedisStore, upstreams: Sequence[Upstream], session: ClientSession
) -> None:
    """Report each upstream to the registry: ready when ``/v1/models`` answers (DESIGN 7)."""
    before = {worker.worker_id: worker for worker in await store.workers(DEFAULT_POOL)}
    reports = await asyncio.gather(*(_probe(upstream, session) for upstream in upstreams))
    for upstream, (models, reason) in zip(upstreams, reports, strict=True):
        name = worker_id(upstream)
        known = before.get(name)
        if reason and known:
            models = known.models  # what it served, it is still expected to serve
        if known is None or known.ready != (reason is None):
            logs.event(log, "upstream", worker_id=name, ready=reason is None, reason=reason)
        await store.report_worker(
            DEFAULT_POOL,
            name,
            WorkerReport(ready=reason is None, reason=reason, models=models, slots=upstream.slots),
            identity={"url": upstream.url, "kind": "static"},
        )


async def _probe(upstream: Upstream, session: ClientSession) -> tuple[tuple[str, ...], str | None]:
    """The models it serves, and why it may not be used (None: it may)."""
    try:
        async with session.get(
            f"{upstream.url}/v1/models",
            timeout=ClientTimeout(total=PROBE_TIMEOUT_S),
            allow_redirects=False,
        ) as answer:
            if answer.status != 200:
                return (), f"/v1/models answers {answer.status}"
            listed = json.loads(await read_small(answer.content.iter_any()))
            return tuple(str(model["id"]) for model in listed["data"]), None
    except (ClientError, TimeoutError, OSError) as error:
        return (), f"/v1/models does not answer: {type(error).__name__}"
    except (ValueError, RecursionError, KeyError, TypeError):
        return (), "/v1/models gives no list of models"


async def agents_tick(store: RedisStore, wanted: str | None, session: ClientSession) -> None:
    """Keep agents out that run another file than the operator's (``WORKER_AGENT_SHA256``), and see
    of those that are silent whether they live.

    Each is asked at the address where requests would go. One that reports and does not answer is
    left as it is: its heartbeats outrank a probe (DESIGN section 9). One that is silent stays in
    use while ``/info`` is right and ``/readyz`` says yes. ``wanted``: 64 hex digits; None for any.
    """
    room = asyncio.Semaphore(AGENTS_AT_ONCE)

    async def judge(worker: Worker) -> None:
        is_silent = worker.claimed and worker.silent_ms >= SILENT_MS
        verdict: str | None = ""
        async with room:
            if wanted or is_silent:
                verdict = await _verdict(worker, wanted, session)
            if is_silent and not verdict:
                await _vouch(store, worker, session, known=verdict is not None)
        if verdict is None or verdict == worker.verdict:
            return
        if await store.judge_worker(worker.pool, worker.worker_id, verdict):
            level = logging.WARNING if verdict else logging.INFO
            logs.event(log, "agent", level, worker_id=worker.worker_id, verdict=verdict or "good")

    for pool in await store.pools():
        agents = [w for w in await store.workers(pool) if w.kind == "agent" and not w.revoked]
        await asyncio.gather(*(judge(worker) for worker in agents))


async def _vouch(store: RedisStore, worker: Worker, session: ClientSession, *, known: bool) -> None:
    """``known``: who it is; else nothing it says counts."""
    problem = await _problem(worker, session) if known else "/info does not answer"
    ready = await store.vouch_worker(worker.pool, worker.worker_id, problem)
    if ready is not None:
        level = logging.INFO if ready else logging.WARNING
        what = {"ready": ready, "reason": problem or None}
        logs.event(log, "silent_agent", level, worker_id=worker.worker_id, **what)


async def _problem(worker: Worker, session: ClientSession) -> str:
    """Why it may not be used, by its ``/readyz``; "" when it may."""
    try:
        async with _asking(worker, "/readyz", session) as answer:
            return "" if answer.status == 200 else f"/readyz answers {answer.status}"
    except (ClientError, TimeoutError, OSError) as error:
        return f"/readyz does not answer: {type(error).__name__}"


async def _verdict(worker: Worker, wanted: str | None, session: ClientSession) -> str | None:
    """What speaks against the worker, "" for nothing; None when it does not tell."""
    try:
        async with _asking(worker, "/info", session) as answer:
            if answer.status != 200:
                return None
            said = json.loads(await read_small(answer.content.iter_any()))
            checksum, name = str(said["agent_checksum"]), said.get("worker_id", worker.worker_id)
    except ServerFingerprintMismatch:
        return "/info answers with another certificate"
    except (ClientError, TimeoutError, OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    if name != worker.worker_id:
        return "/info answers as another worker"
    if wanted in (None, checksum):
        return ""
    told = checksum[:64].encode(errors="replace").decode()  # what it says may be no Unicode
    return f"agent checksum at /info is {told}, not {wanted}"


def _asking(
    worker: Worker, path: str, session: ClientSession
) -> AbstractAsyncContextManager[ClientResponse]:
    return session.get(
        worker.url + path,
        timeout=ClientTimeout(total=PROBE_TIMEOUT_S),
        allow_redirects=False,
        ssl=ssl_of(worker),
    )
