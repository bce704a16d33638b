"""The registry of workers on Redis: one method per script, its reply as a typed outcome.

Knows how to call the scripts and read their replies; the rules themselves are in ``lua/``.
"""

import json
from dataclasses import asdict
from typing import Any

from admission.domain import Worker, WorkerReport
from admission.outcomes import Foreign, Reported, Revoked, Unknown
from admission.store.calls import Calls

WORKER_LEASE_MS = 30_000
"""How long a worker's report is good for (DESIGN section 9)."""
SILENT_MS = 15_000
"""An agent that reports every 5 s, and has not for so long, is asked whether it lives: in time, so
that one which only cannot reach admission stays in use when its last report runs out."""
VOUCHED_MS = 20_000
"""How long its answer is good for: longer than from one question to the next."""


class Registry:
    """All workers of all pools; a part of the store, with what it says of failures."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def register_worker(
        self,
        pool: str,
        worker: str,
        *,
        identity: dict[str, Any],
        slots: int,
        token_hash: str,
        presented_hash: str,
    ) -> bool | Revoked:
        """Keep a worker; False when another one has this id.

        ``identity`` (url, kind, upstream_key) stays until it registers again and uses its new
        token, whose hash is ``token_hash``.
        """
        facts = {"slots": slots, "token_hash": token_hash, "identity": json.dumps(identity)}
        reply = await self._calls.run(
            "register_worker",
            pool,
            worker=worker,
            facts=json.dumps(facts),
            token_hash=presented_hash,
        )
        return Revoked() if reply.tag == "revoked" else reply.tag == "registered"

    async def report_worker(
        self,
        pool: str,
        worker: str,
        report: WorkerReport,
        *,
        token_hash: str = "",
        identity: dict[str, Any] | None = None,
    ) -> Reported | Unknown | Foreign | Revoked:
        """A heartbeat, good for 30 s. ``identity`` makes a static upstream known by its report."""
        facts: dict[str, Any] = {
            "ready": report.ready,
            "slots": report.slots,
            "report": json.dumps(asdict(report)),
        }
        if report.reason:
            facts["reason"] = report.reason
        if identity is not None:
            facts["identity"] = json.dumps(identity)
        reply = await self._calls.run(
            "report_worker",
            pool,
            worker=worker,
            report=json.dumps(facts),
            token_hash=token_hash,
            lease_ms=WORKER_LEASE_MS,
        )
        if reply.tag == "reported":
            return Reported(**{"reason": None, **reply.payload})
        return _OUTCOMES[reply.tag]()

    async def drain_worker(
        self, pool: str, worker: str, *, token_hash: str = ""
    ) -> None | Unknown | Foreign:
        """No new requests for it; with ``token_hash`` only by its own token."""
        reply = await self._calls.run("drain_worker", pool, worker=worker, token_hash=token_hash)
        match reply.tag:
            case "unknown":
                return Unknown()
            case "foreign":
                return Foreign()
            case _:
                return None

    async def steer_worker(self, pool: str, worker: str, *, draining: bool, word: int) -> bool:
        """The fleet's wish that it drains, or does no longer; False when there is none.

        ``word``: when its instance entered the state that says so, in ms. One older than the last
        that was heard changes nothing.
        """
        asked = {"draining": "yes" if draining else "no", "word": word}
        reply = await self._calls.run("steer_worker", pool, worker=worker, **asked)
        return reply.tag != "unknown"

    async def rotate_worker(self, pool: str, worker: str) -> None | Unknown | Foreign:
        """Have it fetch new secrets at its next heartbeat; Foreign: a static one has none."""
        match (await self._calls.run("rotate_worker", pool, worker=worker)).tag:
            case "unknown":
                return Unknown()
            case "static":
                return Foreign()
            case _:
                return None

    async def revoke_worker(self, pool: str, worker: str) -> bool:
        """Take its secrets away until it is released; False when there was none."""
        return (await self._calls.run("revoke_worker", pool, worker=worker)).tag == "revoked"

    async def release_worker(self, pool: str, worker: str) -> bool:
        """Forget a worker; False when there was none."""
        return (await self._calls.run("release_worker", pool, worker=worker)).tag == "released"

    async def judge_worker(self, pool: str, worker: str, verdict: str) -> bool:
        """Why it may not be used whatever it reports, "" for nothing; whether that changed."""
        reply = await self._calls.run("judge_worker", pool, worker=worker, verdict=verdict)
        return reply.tag == "changed"

    async def vouch_worker(self, pool: str, worker: str, problem: str) -> bool | None:
        """What was seen of an agent that has been silent for SILENT_MS: why it may not be used, ""
        that it may. Whether it may now, None when that is as it was."""
        reply = await self._calls.run(
            "vouch_worker",
            pool,
            worker=worker,
            problem=problem,
            quiet_ms=SILENT_MS,
            lease_ms=VOUCHED_MS,
        )
        return None if reply.tag == "same" else reply.tag == "ready"

    async def workers(self, pool: str) -> list[Worker]:
        """The registry, sorted by id."""
        payload = (await self._calls.run("list_workers", pool)).payload
        found = [_worker(pool, facts, payload["now_ms"]) for facts in payload.get("workers", [])]
        return sorted(found, key=lambda worker: worker.worker_id)

    async def expire_workers(self, pool: str) -> list[str]:
        """Ids of the workers that just fell silent."""
        lost: list[str] = (await self._calls.run("expire_workers", pool)).payload.get("lost", [])
        return lost


_OUTCOMES: dict[str, type[Unknown | Foreign | Revoked]] = {
    "unknown": Unknown,
    "foreign": Foreign,
    "revoked": Revoked,
}


def _worker(pool: str, facts: dict[str, Any], now_ms: int) -> Worker:
    identity = json.loads(facts["identity"])
    report = json.loads(facts.get("report", "{}"))
    hashes = (facts.get("token_hash"), facts.get("following", {}).get("token_hash"))
    return Worker(
        worker_id=facts["worker_id"],
        url=identity["url"],
        kind=identity["kind"],
        pool=pool,
        models=tuple(report.get("models") or identity.get("models", ())),
        slots=facts["slots"],
        ready=facts["ready"],
        draining=facts.get("draining", False),
        reason=facts.get("reason"),
        first_seen_ms=facts["first_seen_ms"],
        last_seen_ms=facts["last_seen_ms"],
        silent_ms=max(0, now_ms - facts["last_seen_ms"]),
        in_flight=report.get("in_flight", 0),
        queue_depth=report.get("queue_depth", 0),
        upstream_key=identity.get("upstream_key"),
        fingerprint=identity.get("fingerprint"),
        token_hashes=tuple(each for each in hashes if each),
        claimed="report" in facts,
        revoked=facts.get("revoked", False),
        verdict=facts.get("verdict", ""),
        steered=facts.get("steered", {}).get("draining"),
        load=report.get("load"),
        hardware=report.get("hardware") or identity.get("hardware"),
        agent_info=report.get("agent_info") or identity.get("agent_info"),
        instance_id=report.get("instance_id") or identity.get("instance_id"),
        engine=report.get("engine"),
    )
