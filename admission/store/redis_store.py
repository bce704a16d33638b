"""The queue's store on Redis: one method per script, its reply as a typed outcome.

Knows how to call the scripts and read their replies; the rules themselves are in ``lua/``.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

from redis.asyncio import Redis

from admission.clock import Clock
from admission.domain import (
    DEFAULT_POOL,
    DEFAULT_PRIORITY,
    Change,
    Places,
    PoolMetrics,
    PoolPolicy,
    Queued,
    Status,
    Ticket,
    Worker,
    WorkerReport,
)
from admission.outcomes import (
    Alive,
    Confirmed,
    Ended,
    Foreign,
    Joined,
    Left,
    NoSession,
    NotConfirmed,
    Occupied,
    Passed,
    Refused,
    Reported,
    SessionBusy,
    Unknown,
)
from admission.store import names
from admission.store.calls import Calls
from admission.store.connection import answering
from admission.store.key_store import KeyStore
from admission.store.news import changes
from admission.store.rate_store import RateStore
from admission.store.scripts import Reply
from admission.store.thread_store import ThreadStore

PASS_STEP = 100  # tickets one script looks at in a pass: some ms of Redis' time
WORKER_LEASE_MS = 30_000
"""How long a worker's report is good for (DESIGN section 9)."""


class RedisStore:
    """All state of all pools. Safe to share between tasks; any number may serve one Redis.

    Every method raises StoreUnavailable when Redis does not answer; the call may or may not have
    happened, and repeating it is safe.
    """

    def __init__(self, redis: Redis, clock: Clock, policy: PoolPolicy | None) -> None:
        """``policy`` is the service's; None in a process that only runs ticks, which takes the one
        the service left in Redis: two processes must not hold to two capacities."""
        self._redis = redis
        self.keys = KeyStore(redis)
        self.rates = RateStore(redis)
        self.threads = ThreadStore(redis, clock)
        self._policy = policy
        self._calls = Calls(redis, clock, policy)

    async def load(self) -> None:
        """Send every script to Redis, which compiles it: a bad one fails here, not under load.
        Leave the service's settings there."""
        await self._calls.load()
        if self._policy is not None:
            for pool in await self.pools():
                await self._calls.run("configure", pool, changes="{}")

    async def drained(self) -> None:
        """Returns when no call is under way, as before Redis is closed."""
        await self._calls.drained()

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
        request: str = "",
        auto_confirm: bool = False,
        will_return: bool = False,
        client: str = "",
        priority: str = DEFAULT_PRIORITY,
    ) -> Joined | Refused:
        """Give ``user`` a place (``ticket`` is for the id of a new one), or the one they have; in a
        request pool a place for each ``request``."""
        reply = await self._calls.run(
            "join",
            pool,
            user=user,
            ticket=ticket,
            request=request,
            auto_confirm=int(auto_confirm),
            will_return=int(will_return),
            client=client,
            priority=priority,
        )
        match reply.tag:
            case "joined" | "known":
                return Joined(Ticket.of(reply.payload), new=reply.tag == "joined")
            case reason:
                return Refused(reason)

    async def confirm(
        self, pool: str, user: str, *, ticket: str = ""
    ) -> Confirmed | NotConfirmed | Unknown:
        """Draft to session; already confirmed is the same session."""
        reply = await self._calls.run("confirm", pool, user=user, ticket=ticket)
        match reply.tag:
            case "confirmed" | "active":
                return Confirmed(Ticket.of(reply.payload))
            case "unknown":
                return Unknown()
            case reason:
                return NotConfirmed(reason, Ticket.of(reply.payload))

    async def leave(
        self, pool: str, user: str, *, client: str = "", ticket: str = ""
    ) -> Left | Unknown:
        """End the turn, or with ``client`` only detach that chat."""
        return _left(await self._calls.run("leave", pool, user=user, client=client, ticket=ticket))

    async def cancel(self, pool: str, user: str, *, ticket: str = "") -> Left | Unknown:
        """An admin's word: end the turn and cut what runs."""
        return _left(await self._calls.run("cancel", pool, user=user, ticket=ticket))

    async def heartbeat(
        self, pool: str, user: str, *, client: str = "", ticket: str = ""
    ) -> Alive | Ended | Unknown:
        """Renew presence, with ``client`` the use of the session, or a request pool's lease."""
        reply = await self._calls.run("heartbeat", pool, user=user, client=client, ticket=ticket)
        match reply.tag:
            case "alive":
                return Alive(Ticket.of(reply.payload))
            case "ended":
                return Ended(Ticket.of(reply.payload))
            case _:
                return Unknown()

    async def status(self, pool: str, user: str, *, ticket: str = "") -> Ticket | Unknown:
        """The user's latest ticket, or in a request pool the one named; without any side effect."""
        reply = await self._calls.run("status", pool, user=user, ticket=ticket)
        return Unknown() if reply.tag == "unknown" else Ticket.of(reply.payload)

    # --- requests of a session -----------------------------------------------------------------

    async def use(
        self,
        pool: str,
        user: str,
        *,
        request: str,
        message: str = "",
        concurrency: int,
        ticket: str = "",
    ) -> Passed | SessionBusy | NoSession:
        """Begin or renew one request; only who holds a slot passes. In a request pool that is who
        joined with this ``request``, or holds the ``ticket`` that is named."""
        reply = await self._calls.run(
            "use",
            pool,
            user=user,
            request=request,
            message=message,
            concurrency=concurrency,
            ticket=ticket,
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
        await self._calls.run("done", pool, ticket=ticket, request=request)

    # --- the tick --------------------------------------------------------------------------------

    async def expire(self, pool: str) -> int | None:
        """End what is due, offer what is free; ms until the next deadline, None without one."""
        reply = await self._calls.run("expire", pool)
        next_ms: int | None = reply.payload.get("next_ms")
        return next_ms

    async def announce(self, pool: str, *, pace_ms: int = 0) -> int:
        """Tell who waits, or holds a slot, what changed; the number of messages.

        Nothing when the last pass, of whichever process, began less than ``pace_ms`` ago.
        """
        told = await self._pass("announce", pool, pace_ms=pace_ms)
        return 0 if told is None else told + (await self._pass("remind", pool) or 0)

    async def _pass(self, name: str, pool: str, **given: int) -> int | None:
        """Run a script step by step, so that none keeps Redis from others; what they told."""
        told, cursor = 0, ""
        while True:
            reply = await self._calls.run(name, pool, cursor=cursor, limit=PASS_STEP, **given)
            if reply.tag == "early":
                return None
            told += int(reply.payload["told"])
            cursor = reply.payload.get("cursor", "")
            if not cursor:
                return told

    # --- those attached to a process -------------------------------------------------------------

    async def attend(self, pool: str, tickets: Sequence[str]) -> None:
        """Renew the presence of those of ``tickets`` that wait; 1 to 1,000 of them."""
        await self._calls.run("attend", pool, tickets=json.dumps(tickets))

    async def positions(self, pool: str, tickets: Sequence[str]) -> Places:
        """Where 1 to 1,000 tickets stand, without any side effect."""
        return Places(
            **(await self._calls.run("positions", pool, tickets=json.dumps(tickets))).payload
        )

    # --- the pool ----------------------------------------------------------------------------

    async def metrics(self, pool: str) -> PoolMetrics:
        return PoolMetrics(**(await self._calls.run("metrics", pool)).payload)

    async def waiting(self, pool: str, *, offset: int, limit: int) -> list[Queued]:
        """One page of the queue, in order; ``limit`` is at most 1000."""
        reply = await self._calls.run("list", pool, offset=offset, limit=limit)
        return [Queued(**item) for item in reply.payload.get("items", [])]

    async def configure(self, pool: str, changes: dict[str, Any]) -> None | Occupied:
        """Keep settings (names of PoolPolicy) that win over the defaults; None forgets one."""
        reply = await self._calls.run("configure", pool, changes=json.dumps(changes))
        if reply.tag == "occupied":
            return Occupied()
        await self._add(pool)
        return None

    async def pause(self, pool: str, paused: bool | None) -> None:
        """Stop admitting, or go on; None is the service's own setting."""
        await self._calls.run("pause", pool, paused=json.dumps(paused))
        await self._add(pool)

    async def set_capacity(self, pool: str, capacity: int | str | None) -> int:
        """Slots, "auto" or None for the service's own setting; the slots there are now."""
        reply = await self._calls.run("set_capacity", pool, capacity=json.dumps(capacity))
        await self._add(pool)
        slots: int = reply.payload["capacity"]
        return slots

    async def close_pool(self, pool: str) -> None | Occupied:
        """End everybody's turn there and forget the pool; not while a worker serves it."""
        tag = "closing"
        while tag == "closing":
            tag = (await self._calls.run("close_pool", pool)).tag
        if tag == "staffed":
            return Occupied()
        await self._answer(self._redis.srem(names.POOLS_KEY, pool))
        return None

    async def _add(self, pool: str) -> None:
        await self._answer(self._redis.sadd(names.POOLS_KEY, pool))

    async def pools(self) -> list[str]:
        """The default pool and every one an admin made, sorted."""
        members = await self._answer(self._redis.smembers(names.POOLS_KEY))
        return sorted({DEFAULT_POOL, *(name.decode() for name in members)})

    async def kind(self, pool: str) -> str:
        """Whether this is a "session" or a "request" pool."""
        kept = await self._answer(self._redis.hget(names.pool_key(pool, "pool"), "settings"))
        own = self._policy.kind if self._policy else PoolPolicy.kind
        kind: str = (json.loads(kept) if kept else {}).get("kind") or own
        return kind

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
        reply = await self._calls.run(
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
        reply = await self._calls.run(
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
        reply = await self._calls.run("drain_worker", pool, worker=worker, token_hash=token_hash)
        match reply.tag:
            case "unknown":
                return Unknown()
            case "foreign":
                return Foreign()
            case _:
                return None

    async def release_worker(self, pool: str, worker: str) -> bool:
        """Forget a worker; False when there was none."""
        return (await self._calls.run("release_worker", pool, worker=worker)).tag == "released"

    async def workers(self, pool: str) -> list[Worker]:
        """The registry, sorted by id."""
        payload = (await self._calls.run("list_workers", pool)).payload
        found = [_worker(pool, facts) for facts in payload.get("workers", [])]
        return sorted(found, key=lambda worker: worker.worker_id)

    async def expire_workers(self, pool: str) -> list[str]:
        """Ids of the workers that just fell silent."""
        lost: list[str] = (await self._calls.run("expire_workers", pool)).payload.get("lost", [])
        return lost

    # --- of no pool --------------------------------------------------------------------------

    def changes(self) -> AsyncIterator[Change]:
        """What changed, as it happens; and when some of it may have been missed."""
        return changes(self._redis)

    async def _answer(self, call: Any) -> Any:
        with answering():
            return await call


def _left(reply: Reply) -> Left | Unknown:
    if reply.tag == "unknown":
        return Unknown()
    return Left(Status(reply.payload["previous"]), Status(reply.payload["status"]))


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
