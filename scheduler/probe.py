"""Asks static upstreams whether they live, as they have no agent to report for them, and agents
which file they run, as a report could come from another.
"""

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Sequence

from aiohttp import ClientError, ClientSession, ClientTimeout, ServerFingerprintMismatch

from admission import logs
from admission.domain import DEFAULT_POOL, Worker, WorkerReport
from admission.settings import Upstream
from admission.small_answer import read_small
from admission.store.redis_store import RedisStore
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
    """Keep agents out that run another file than the operator's (``WORKER_AGENT_SHA256``).

    Each is asked at the address where requests would go. One that does not answer is left as it is:
    its heartbeats tell of that, and they are younger. ``wanted``: 64 hex digits; None for any.
    """
    room = asyncio.Semaphore(AGENTS_AT_ONCE)

    async def judge(worker: Worker) -> None:
        async with room:
            verdict = await _verdict(worker, wanted, session) if wanted else ""
        if verdict is None or verdict == worker.verdict:
            return
        if await store.judge_worker(worker.pool, worker.worker_id, verdict):
            level = logging.WARNING if verdict else logging.INFO
            logs.event(log, "agent", level, worker_id=worker.worker_id, verdict=verdict or "good")

    for pool in await store.pools():
        agents = [w for w in await store.workers(pool) if w.kind == "agent" and not w.revoked]
        await asyncio.gather(*(judge(worker) for worker in agents))


async def _verdict(worker: Worker, wanted: str, session: ClientSession) -> str | None:
    """What speaks against the worker, "" for nothing; None when it does not tell."""
    try:
        async with session.get(
            f"{worker.url}/info",
            timeout=ClientTimeout(total=PROBE_TIMEOUT_S),
            allow_redirects=False,
            ssl=ssl_of(worker),
        ) as answer:
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
    return "" if checksum == wanted else f"agent checksum at /info is {checksum[:64]}, not {wanted}"
