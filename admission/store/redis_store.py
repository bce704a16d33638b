"""The queue's store on Redis: one method per script, its reply as a typed outcome.

Knows how to call the scripts and read their replies; the rules themselves are in ``lua/``.
"""

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from admission import logs
from admission.clock import Clock
from admission.domain import (
    DEFAULT_POOL,
    PoolMetrics,
    PoolPolicy,
    Queued,
    Status,
    Ticket,
    Worker,
    WorkerReport,
)
from admission.errors import StoreUnavailable
from admission.outcomes import (
    Alive,
    Confirmed,
    Ended,
    Foreign,
    Joined,
    Left,
    NoSession,
    NotConfirmed,
    Passed,
    Refused,
    Reported,
    SessionBusy,
    Unknown,
)
from admission.store import names, scripts
from admission.store.news import users_with_news

WORKER_LEASE_MS = 30_000
"""How long a worker's report is good for (DESIGN section 9)."""

log = logging.getLogger(__name__)
moves = logging.getLogger("admission.transitions")


class RedisStore:
    """All state of all pools. Safe to share between tasks; any number may serve one Redis.

    Every method raises StoreUnavailable when Redis does not answer; the call may or may not have
    happened, and repeating it is safe.
    """

    def __init__(self, redis: Redis, clock: Clock, policy: PoolPolicy | None) -> None:
        """``policy`` is the service's; None in a process that only runs ticks, which takes the one
        the service left in Redis: two processes must not hold to two capacities."""
        self._redis = redis
        self._clock = clock
        self._policy = policy
        self._contracts = {name: scripts.contract(name) for name in scripts.script_names()}
        self._scripts = {
            name: redis.register_script(scripts.source(name)) for name in self._contracts
        }

    async def load(self) -> None:
        """Send every script to Redis, which compiles it: a bad one fails here, not under load.
        Leave the service's settings there."""
        for name in self._contracts:
            await self._answer(self._redis.script_load(scripts.source(name)))
        if self._policy is not None:
            for pool in await self.pools():
                await self._run("configure", pool, changes="{}")

    async def ping(self) -> None:
        """Raises StoreUnavailable unless Redis answers."""
        await self._answer(self._redis.ping())

    # --- tickets -----------------------------------------------------------------------------

    async def join(
        self,
        pool: str,
        user: str,
        *,
        ticket: str,
        auto_confirm: bool = False,
        will_return: bool = False,
        client: str = "",
        model: str = "",
        head_start_ms: int = 0,
    ) -> Joined | Refused:
        """Give ``user`` a place (``ticket`` is the id of a new one), or the one they have."""
        reply = await self._run(
            "join",
            pool,
            user=user,
            ticket=ticket,
            auto_confirm=int(auto_confirm),
            will_return=int(will_return),
            client=client,
            model=model,
            head_start_ms=head_start_ms,
        )
        match reply.tag:
            case "full" | "paused":
                return Refused(reply.tag)
            case tag:
                return Joined(Ticket.of(reply.payload), new=tag == "joined")

    async def confirm(
        self, pool: str, user: str, *, ticket: str = ""
    ) -> Confirmed | NotConfirmed | Unknown:
        """Draft to session; already confirmed is the same session."""
        reply = await self._run("confirm", pool, user=user, ticket=ticket)
        match reply.tag:
            case "confirmed" | "active":
                return Confirmed(Ticket.of(reply.payload))
            case "unknown":
                return Unknown()
            case reason:
                return NotConfirmed(reason, Ticket.of(reply.payload))

    async def leave(
        self, pool: str, user: str, *, client: str = "", ticket: str = "", reason: str = "left"
    ) -> Left | Unknown:
        """End the turn, or with ``client`` only detach that chat."""
        reply = await self._run(
            "leave", pool, user=user, client=client, ticket=ticket, reason=reason
        )
        if reply.tag == "unknown":
            return Unknown()
        return Left(Status(reply.payload["previous"]), Status(reply.payload["status"]))

    async def heartbeat(self, pool: str, user: str, *, client: str = "") -> Alive | Ended | Unknown:
        """Renew presence, or with ``client`` the use of the session."""
        reply = await self._run("heartbeat", pool, user=user, client=client)
        match reply.tag:
            case "alive":
                return Alive(Ticket.of(reply.payload))
            case "ended":
                return Ended(Ticket.of(reply.payload))
            case _:
                return Unknown()

    async def status(self, pool: str, user: str) -> Ticket | Unknown:
        """The user's latest ticket, without any side effect."""
        reply = await self._run("status", pool, user=user)
        return Unknown() if reply.tag == "unknown" else Ticket.of(reply.payload)

    # --- requests of a session -----------------------------------------------------------------

    async def use(
        self, pool: str, user: str, *, request: str, message: str = "", concurrency: int
    ) -> Passed | SessionBusy | NoSession:
        """Begin or renew one request; only who holds a slot passes."""
        reply = await self._run(
            "use", pool, user=user, request=request, message=message, concurrency=concurrency
        )
        match reply.tag:
            case "pass":
                return Passed(reply.payload["ticket_id"], reply.payload.get("deadline_ms"))
            case "busy":
                return SessionBusy(reply.payload["ticket_id"])
            case _:
                return NoSession(Ticket.of(reply.payload) if reply.payload else None)

    async def done(self, pool: str, *, ticket: str, request: str) -> None:
        """One request is over. Idempotent."""
        await self._run("done", pool, ticket=ticket, request=request)

    # --- the tick --------------------------------------------------------------------------------

    async def expire(self, pool: str) -> int | None:
        """End what is due, offer what is free; ms until the next deadline, None without one."""
        reply = await self._run("expire", pool)
        next_ms: int | None = reply.payload.get("next_ms")
        return next_ms

    async def announce(self, pool: str) -> int:
        """Tell who waits what changed; the number of messages."""
        told: int = (await self._run("announce", pool)).payload["told"]
        return told

    # --- the pool ----------------------------------------------------------------------------

    async def metrics(self, pool: str) -> PoolMetrics:
        return PoolMetrics(**(await self._run("metrics", pool)).payload)

    async def waiting(self, pool: str, *, offset: int, limit: int) -> list[Queued]:
        """One page of the queue, in order; ``limit`` is at most 1000."""
        reply = await self._run("list", pool, offset=offset, limit=limit)
        return [Queued(**item) for item in reply.payload.get("items", [])]

    async def configure(self, pool: str, changes: dict[str, Any]) -> None:
        """Keep settings (names of PoolPolicy) that win over the defaults; None forgets one."""
        await self._run("configure", pool, changes=json.dumps(changes))
        await self._answer(self._redis.sadd(names.POOLS_KEY, pool))

    async def pools(self) -> list[str]:
        """The default pool and every one an admin made, sorted."""
        members = await self._answer(self._redis.smembers(names.POOLS_KEY))
        return sorted({DEFAULT_POOL, *(name.decode() for name in members)})

    # --- workers -----------------------------------------------------------------------------

    async def register_worker(
        self,
        pool: str,
        worker: str,
        *,
        identity: dict[str, Any],
        slots: int,
        token_hash: str,
        presented_hash: str,
    ) -> bool:
        """Keep a worker; False when another one has this id.

        ``identity`` (url, kind, upstream_key) stays until it registers again.
        """
        facts = {"slots": slots, "token_hash": token_hash, "identity": json.dumps(identity)}
        reply = await self._run(
            "register_worker",
            pool,
            worker=worker,
            facts=json.dumps(facts),
            token_hash=presented_hash,
        )
        return reply.tag == "registered"

    async def report_worker(
        self,
        pool: str,
        worker: str,
        report: WorkerReport,
        *,
        token_hash: str = "",
        identity: dict[str, Any] | None = None,
    ) -> Reported | Unknown | Foreign:
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
        reply = await self._run(
            "report_worker",
            pool,
            worker=worker,
            report=json.dumps(facts),
            token_hash=token_hash,
            lease_ms=WORKER_LEASE_MS,
        )
        match reply.tag:
            case "reported":
                return Reported(
                    reply.payload["ready"], reply.payload.get("reason"), reply.payload["draining"]
                )
            case "unknown":
                return Unknown()
            case _:
                return Foreign()

    async def drain_worker(
        self, pool: str, worker: str, *, token_hash: str = ""
    ) -> None | Unknown | Foreign:
        """No new requests for it; with ``token_hash`` only by its own token."""
        reply = await self._run("drain_worker", pool, worker=worker, token_hash=token_hash)
        match reply.tag:
            case "unknown":
                return Unknown()
            case "foreign":
                return Foreign()
            case _:
                return None

    async def release_worker(self, pool: str, worker: str) -> bool:
        """Forget a worker; False when there was none."""
        return (await self._run("release_worker", pool, worker=worker)).tag == "released"

    async def workers(self, pool: str) -> list[Worker]:
        """The registry, sorted by id."""
        payload = (await self._run("list_workers", pool)).payload
        found = [_worker(pool, facts) for facts in payload.get("workers", [])]
        return sorted(found, key=lambda worker: worker.worker_id)

    async def expire_workers(self, pool: str) -> list[str]:
        """Ids of the workers that just fell silent."""
        lost: list[str] = (await self._run("expire_workers", pool)).payload.get("lost", [])
        return lost

    # --- of no pool --------------------------------------------------------------------------

    def users_with_news(self) -> AsyncIterator[str | None]:
        """Ids of users whose news was published; None when some may have been missed."""
        return users_with_news(self._redis)

    async def signing_key(self, new: str) -> str:
        """The key that signs user tokens: ``new`` for the first caller, then the same for all."""
        await self._answer(self._redis.set(names.SIGNING_KEY, new, nx=True))
        key: bytes = await self._answer(self._redis.get(names.SIGNING_KEY))
        return key.decode()

    async def _answer(self, call: Any) -> Any:
        try:
            return await call
        except (RedisError, OSError) as error:
            raise StoreUnavailable from error

    async def _run(self, name: str, pool: str, **given: str | int) -> scripts.Reply:
        contract = self._contracts[name]
        given |= {"now_ms": self._clock.now_ms(), "policy": self._policy_json(pool)}
        try:
            raw = await self._scripts[name](
                keys=names.pool_keys(pool), args=scripts.arguments(contract, given)
            )
        except (RedisError, OSError) as error:
            logs.event(log, "store_failed", logging.WARNING, script=name, error=error)
            raise StoreUnavailable from error
        reply = scripts.parse(contract, raw)
        for move in reply.transitions:
            _log_move(pool, move)
        return reply

    def _policy_json(self, pool: str) -> str:
        policy = asdict(self._policy) if self._policy else {}
        known = {key: value for key, value in policy.items() if value is not None}
        return json.dumps({"pool": pool, **known}, separators=(",", ":"))


def _log_move(pool: str, move: scripts.Transition) -> None:
    logs.event(
        moves,
        "ticket_moved",
        pool=pool,
        ticket_id=move.ticket_id,
        user_id=move.user_id,
        source=move.source or "new",
        target=move.target,
        reason=move.reason,
    )


def _worker(pool: str, facts: dict[str, Any]) -> Worker:
    identity = json.loads(facts["identity"])
    report = json.loads(facts.get("report", "{}"))
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
        in_flight=report.get("in_flight", 0),
        upstream_key=identity.get("upstream_key"),
        token_hash=facts.get("token_hash"),
        load=report.get("load"),
        hardware=report.get("hardware") or identity.get("hardware"),
        agent_info=report.get("agent_info") or identity.get("agent_info"),
    )
