"""The queue's store on Redis: one method per script, its reply as a typed outcome.

Knows how to call the scripts and read their replies; the rules themselves are in ``lua/``.
"""

import json
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import fields, replace
from typing import Any

from redis.asyncio import Redis

from admission.clock import Clock
from admission.domain import (
    DEFAULT_POOL,
    DEFAULT_PRIORITY,
    Change,
    Coming,
    Places,
    PoolMetrics,
    PoolPolicy,
    Priority,
    Queued,
    Status,
    Ticket,
)
from admission.outcomes import (
    Alive,
    Confirmed,
    Ended,
    Joined,
    Kept,
    Left,
    NoSession,
    NotConfirmed,
    Occupied,
    Over,
    Passed,
    Refused,
    SessionBusy,
    Unknown,
)
from admission.store import names
from admission.store.calls import Calls
from admission.store.connection import answering
from admission.store.fleet_store import FleetStore
from admission.store.key_store import KeyStore
from admission.store.news import changes
from admission.store.rate_store import RateStore
from admission.store.registry import Registry
from admission.store.scripts import Reply
from admission.store.thread_store import ThreadStore
from admission.store.tick_store import TickStore
from admission.store.traffic_store import TrafficStore
from admission.store.usage_store import UsageStore

PASS_STEP = 100  # tickets one script looks at in a pass: some ms of Redis' time


class RedisStore(Registry):
    """All state of all pools. Safe to share between tasks; any number may serve one Redis.

    Every method raises StoreUnavailable when Redis does not answer; the call may or may not have
    happened, and repeating it is safe.
    """

    def __init__(self, redis: Redis, clock: Clock, policy: PoolPolicy | None) -> None:
        """``policy`` is the service's; None in a process that only runs ticks, which takes the one
        the service left in Redis: two processes must not hold to two capacities."""
        self._redis = redis
        self.fleet = FleetStore(redis, clock)
        self.keys = KeyStore(redis)
        self.rates = RateStore(redis)
        self.threads = ThreadStore(redis, clock)
        self.ticks = TickStore(redis, clock)
        self.traffic = TrafficStore(redis, clock)
        self.usage = UsageStore(redis, clock)
        self._policy = policy
        super().__init__(Calls(redis, clock, policy))

    async def load(self) -> None:
        """Send every script to Redis, which compiles it: a bad one fails here, not under load.
        Leave the service's settings there."""
        await self._calls.load()
        await self.leave_settings()

    async def leave_settings(self) -> None:
        """Leave the service's settings in Redis, for processes that have none."""
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
                return Passed(**{"deadline_ms": None, **reply.payload})
            case "busy":
                return SessionBusy(reply.payload["ticket_id"])
            case _:
                return NoSession(Ticket.of(reply.payload) if reply.payload else None)

    async def keep(
        self,
        pool: str,
        user: str,
        *,
        running: dict[str, str],
        ended: Sequence[str] = (),
        answered: Collection[str] = (),
    ) -> Kept | Over:
        """Renew all that this process runs of a session (the message by request, '' for none), give
        back what ``ended`` here, and count as use what was ``answered`` since the last call."""
        reply = await self._calls.run(
            "keep",
            pool,
            user=user,
            running=json.dumps(running),
            ended=json.dumps(list(ended)),
            answered=json.dumps(list(answered)),
        )
        if reply.tag == "active":
            return Kept(**reply.payload)
        return Over(tuple(reply.payload.get("lost", ())))

    def passed_ms(self) -> float:
        """Milliseconds on a clock of this process that measures spans of the store's time."""
        return self._calls.passed_ms()

    def silent_ms(self) -> float:
        """How long ago a script was last answered: Redis has been away for at most that long."""
        return self._calls.passed_ms() - self._calls.heard_ms

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

    async def expect_slots(self, pool: str, machines: Sequence[Coming]) -> None:
        """Say which machines of the pool are being started, all of them; to be said again within
        30 s. Who waits is told of them; those named before and not now come no more."""
        said = [
            [one.worker_id, max(0, one.slots), max(0, one.in_ms), max(0, one.spread_ms)]
            for one in machines
        ]
        await self._calls.run("expect_slots", pool, machines=json.dumps(said))

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

    async def policy(self, pool: str) -> PoolPolicy:
        """What the pool allows: what an admin put there wins over the service's."""
        kept = await self._answer(self._redis.hget(names.pool_key(pool, "pool"), "settings"))
        stored: dict[str, Any] = json.loads(kept) if kept else {}
        given = {f.name: stored[f.name] for f in fields(PoolPolicy) if f.name in stored}
        if "priorities" in given:
            classes = given["priorities"].items()
            given["priorities"] = {name: Priority(**each) for name, each in classes}
        return replace(self._policy or PoolPolicy(), **given)

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
