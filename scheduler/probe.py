"""Asks static upstreams whether they live: they have no agent to report for them."""

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Sequence

from aiohttp import ClientError, ClientSession, ClientTimeout

from admission import logs
from admission.domain import DEFAULT_POOL, WorkerReport
from admission.settings import Upstream
from admission.small_answer import read_small
from admission.store.redis_store import RedisStore

PROBE_TIMEOUT_S = 3.0

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
            listed = json.loads(await read_small(answer))
            return tuple(str(model["id"]) for model in listed["data"]), None
    except (ClientError, TimeoutError, OSError) as error:
        return (), f"/v1/models does not answer: {type(error).__name__}"
    except (ValueError, RecursionError, KeyError, TypeError):
        return (), "/v1/models gives no list of models"
