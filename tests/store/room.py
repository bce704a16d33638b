"""A pool and its clock in the short words of the store's tests: who joins, where they stand.

Knows the store's methods; not what any test expects of them.
"""

import itertools
import json
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, PoolMetrics, Status, Ticket, WorkerReport
from admission.outcomes import Joined, NoSession, Passed, SessionBusy, Unknown
from admission.store.names import USER_CHANNEL
from admission.store.redis_store import RedisStore

POOL = DEFAULT_POOL

_numbers = itertools.count(1)


def new_id(user: str) -> str:
    """A ticket id that no other call got."""
    return f"{user}-{next(_numbers)}"


async def join(store: RedisStore, user: str, **flags: Any) -> Ticket:
    """Join, which must succeed."""
    outcome = await store.join(POOL, user, ticket=new_id(user), **flags)
    assert isinstance(outcome, Joined), outcome
    return outcome.ticket


@dataclass
class Room:
    """One pool with a clock of the test."""

    store: RedisStore
    clock: ManualClock
    redis: Redis

    async def join(self, user: str, **flags: Any) -> Ticket:
        return await join(self.store, user, **flags)

    async def sit(self, *users: str) -> list[Ticket]:
        """Give each a session of full length by way of a confirmed draft."""
        for user in users:
            await self.join(user, will_return=True)
            await self.store.confirm(POOL, user)
        seen = [await self.see(user) for user in users]
        assert {ticket.status for ticket in seen} == {Status.ACTIVE}
        return seen

    async def see(self, user: str) -> Ticket:
        """The ticket as status tells it, which must be there."""
        ticket = await self.store.status(POOL, user)
        assert isinstance(ticket, Ticket), f"{user} is unknown"
        return ticket

    async def standing(self, user: str) -> str:
        """The status, "unknown", or for one whose turn is over the reason."""
        ticket = await self.store.status(POOL, user)
        return "unknown" if isinstance(ticket, Unknown) else ticket.reason or ticket.status

    async def standings(self, *users: str) -> list[str]:
        return [await self.standing(user) for user in users]

    async def use(
        self, user: str, request: str = "r", message: str = "m", concurrency: int = 4
    ) -> Passed | SessionBusy | NoSession:
        return await self.store.use(
            POOL, user, request=request, message=message, concurrency=concurrency
        )

    async def tick(self) -> int | None:
        return await self.store.expire(POOL)

    async def metrics(self) -> PoolMetrics:
        return await self.store.metrics(POOL)

    async def held(self) -> int:
        """Slots that are taken, as metrics tell it."""
        seen = await self.metrics()
        return seen.active + seen.draft + seen.finishing

    async def configure(self, **changes: Any) -> None:
        await self.store.configure(POOL, changes)

    async def dump(self) -> dict[bytes | str, bytes | None]:
        """Every key of the server, as the server would write it to disk."""
        return {key: await self.redis.dump(key) for key in sorted(await self.redis.keys("*"))}


def report(*, ready: bool = True, reason: str | None = None, slots: int = 1) -> WorkerReport:
    """What a worker says of itself."""
    return WorkerReport(ready=ready, reason=reason, models=("m",), slots=slots)


def name_of(key: bytes | str) -> str:
    """The last part of a key of a pool."""
    return (key.decode() if isinstance(key, bytes) else key).split(":")[-1]


@dataclass
class Ear:
    """Hears what is published for users, in the order in which it happened."""

    pubsub: PubSub

    async def heard(self) -> list[dict[str, Any]]:
        """All messages since the last call. A marker of our own tells that none is under way."""
        marker = new_id("marker")
        await self.pubsub.subscribe(marker)
        messages: list[dict[str, Any]] = []
        while True:
            event = await self.pubsub.get_message(timeout=5.0)
            assert event is not None, "the marker did not come"
            if event["channel"] == marker.encode():
                return messages
            if event["type"] in ("message", "pmessage"):
                messages.append(_read(event))

    async def of(self, user: str) -> list[dict[str, Any]]:
        """Like ``heard``, of one user."""
        return [message for message in await self.heard() if message["user_id"] == user]


def _read(event: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(event["data"])
    assert event["channel"].decode() == USER_CHANNEL + message["user_id"]
    return message
