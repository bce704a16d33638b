"""Many processes at once on one server: no slot twice, no user twice, no ghost.

Each store here has connections of its own, as a process of its own would.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from admission.clock import Clock, ManualClock, RedisClock
from admission.domain import Status, Ticket
from admission.outcomes import Confirmed, Joined, Left
from admission.store.redis_store import RedisStore
from scheduler import ticks
from tests.store.conftest import StoresOf
from tests.store.room import POOL, Ear, join

CLIENTS = 8

both_clocks = pytest.mark.parametrize("clock", [ManualClock(), RedisClock()], ids=["test", "redis"])


def spread(stores: list[RedisStore], users: list[str], **flags: Any) -> list[Any]:
    """One join for each user, over all stores in turn; to be gathered."""
    return [join(stores[n % len(stores)], user, **flags) for n, user in enumerate(users)]


async def held(store: RedisStore) -> int:
    seen = await store.metrics(POOL)
    return seen.active + seen.draft + seen.finishing


async def admitted(store: RedisStore) -> int:
    return (await store.metrics(POOL)).admitted_total


@both_clocks
@pytest.mark.parametrize(
    ("flags", "status"), [({"auto_confirm": True}, Status.ACTIVE), ({}, Status.DRAFT)]
)
async def test_of_50_at_once_exactly_as_many_win_as_there_are_slots(
    stores_of: StoresOf, clock: Clock, flags: dict[str, Any], status: Status
) -> None:
    stores = stores_of(CLIENTS, clock, capacity=8)
    tickets = await asyncio.gather(*spread(stores, [f"u{n}" for n in range(50)], **flags))
    won = [ticket for ticket in tickets if ticket.status == status]
    waiting = [ticket.position for ticket in tickets if ticket.status == Status.WAITING]
    assert len(won) == 8
    assert sorted(waiting) == list(range(1, 43))
    assert await held(stores[0]) == 8


@both_clocks
async def test_50_joins_of_one_user_are_one_ticket(stores_of: StoresOf, clock: Clock) -> None:
    stores = stores_of(CLIENTS, clock, capacity=8)
    tickets = await asyncio.gather(*spread(stores, ["a"] * 50, auto_confirm=True))
    assert len({ticket.ticket_id for ticket in tickets}) == 1
    seen = await stores[0].metrics(POOL)
    assert (seen.active, seen.admitted_total, seen.waiting) == (1, 1, 0)


@both_clocks
async def test_parallel_confirms_are_one_session(stores_of: StoresOf, clock: Clock) -> None:
    stores = stores_of(CLIENTS, clock, capacity=1)
    draft = await join(stores[0], "a")
    outcomes = await asyncio.gather(
        *(store.confirm(POOL, "a", ticket=draft.ticket_id) for store in stores)
    )
    sessions = {o.ticket.expires_ms for o in outcomes if isinstance(o, Confirmed)}
    assert len(sessions) == 1
    assert all(isinstance(outcome, Confirmed) for outcome in outcomes)
    assert (await stores[0].metrics(POOL)).admitted_total == 1


async def test_a_leave_that_races_the_tick_leaves_no_ghost(stores_of: StoresOf) -> None:
    clock = ManualClock()
    leaving, ticking, reading = stores_of(3, clock, capacity=1, session_ms=1000)
    for number in range(40):
        await join(reading, "s", auto_confirm=True)
        await join(reading, "a", auto_confirm=True)
        clock.advance_ms(1000)  # the slot is offered by whichever comes first
        left, _, _ = await asyncio.gather(
            leaving.leave(POOL, "a"), ticking.expire(POOL), reading.heartbeat(POOL, "s")
        )
        assert isinstance(left, Left), number
        assert left.status == Status.DISCONNECTED
        assert await held(reading) == 0
        await ticking.expire(POOL)
        assert await held(reading) == 0


async def test_two_clockworks_do_everything_once(stores_of: StoresOf, ear: Ear) -> None:
    clock = ManualClock()
    stores = stores_of(4, clock, capacity=3, session_ms=120_000)
    for number in range(9):
        await join(stores[0], f"u{number}", will_return=True)
    for number in range(3):
        await stores[0].confirm(POOL, f"u{number}")
    clock.advance_ms(60_000)  # reminders are due
    await asyncio.gather(*(ticks.announce_tick(store) for store in stores))
    clock.advance_ms(60_000)  # and so are the ends
    await asyncio.gather(*(ticks.expire_tick(store) for store in stores))
    await asyncio.gather(*(ticks.announce_tick(store) for store in stores))
    said = [json.dumps(message, sort_keys=True) for message in await ear.heard()]
    assert len(said) == len(set(said))
    statuses = [json.loads(message)["status"] for message in said]
    assert (statuses.count("expiring_soon"), statuses.count("expired")) == (3, 3)
    assert await held(stores[0]) == 3


@pytest.fixture
async def referee(redis: Redis) -> AsyncIterator["Referee"]:
    async with redis.pubsub() as pubsub:
        await pubsub.psubscribe("queue_status:*", "limit")
        yield Referee(redis, pubsub)


class Referee:
    """Replays what the server published, in its order, and judges each grant by the limit then."""

    def __init__(self, redis: Redis, pubsub: Any) -> None:
        self._redis = redis
        self._pubsub = pubsub

    async def limit(self, slots: int) -> None:
        """From here on no grant may leave more than ``slots`` taken."""
        await self._redis.publish("limit", slots)

    async def judge(self) -> int:
        """The number of grants; fails at one above the limit."""
        await self._redis.publish("limit", "end")
        limit, holders, grants = 0, set(), 0
        while True:
            event = await self._pubsub.get_message(timeout=5.0)
            assert event is not None
            if event["type"] != "pmessage":
                continue
            if event["channel"] == b"limit":
                if event["data"] == b"end":
                    return grants
                limit = int(event["data"])
                continue
            said = json.loads(event["data"])
            if said["status"] == "disconnected":
                holders.discard(said["user_id"])
            elif said["status"] in ("slot_available", "connected"):
                grants += said["user_id"] not in holders
                holders.add(said["user_id"])
                assert len(holders) <= limit


@pytest.mark.parametrize(
    "clock",
    [ManualClock(), pytest.param(RedisClock(), marks=pytest.mark.long)],
    ids=["test", "redis"],
)
async def test_capacity_changed_under_load_is_never_exceeded_by_a_grant(
    stores_of: StoresOf, clock: Clock, referee: Referee
) -> None:
    stores = stores_of(CLIENTS, clock, capacity=0)
    done = asyncio.Event()

    async def live(user: str, store: RedisStore) -> None:
        """Joins and leaves without a pause, confirming when it can."""
        while not done.is_set():
            ticket = await join(store, user, auto_confirm=user.endswith("0"))
            if ticket.status == Status.DRAFT:
                await store.confirm(POOL, user)
            await store.leave(POOL, user)

    crowd = [
        asyncio.create_task(live(f"u{number}", stores[number % CLIENTS])) for number in range(24)
    ]
    admin = stores[0]
    for slots in (8, 2, 6, 1, 7, 0, 3):
        await referee.limit(8)  # while it changes, whichever comes first
        await admin.configure(POOL, {"capacity": slots})
        before = await admitted(admin)
        while await held(admin) > slots:
            pass  # nobody is evicted: those who were there leave by themselves
        await referee.limit(slots)
        while slots and await admitted(admin) < before + 40:
            pass
    done.set()
    await asyncio.gather(*crowd)
    assert await referee.judge() >= 6 * 40


async def test_lowering_capacity_evicts_nobody_and_admits_nobody(stores_of: StoresOf) -> None:
    [store] = stores_of(1, RedisClock(), capacity=3)
    for user in "abcd":
        await join(store, user)
    await store.configure(POOL, {"capacity": 1})
    assert await held(store) == 3
    for user in "ab":
        await store.leave(POOL, user)
        assert (await store.metrics(POOL)).waiting == 1
    await store.leave(POOL, "c")
    seen = await store.metrics(POOL)
    assert (seen.draft, seen.waiting) == (1, 0)


async def test_a_lost_reply_may_be_asked_for_again(stores_of: StoresOf) -> None:
    """The caller repeats what it does not know to have happened, with a new ticket id."""
    first, second = stores_of(2, RedisClock(), capacity=1)
    one = await join(first, "a", auto_confirm=True, client="c")
    again = await second.join(POOL, "a", ticket="other", auto_confirm=True, client="c")
    assert isinstance(again, Joined)
    assert (again.new, again.ticket.ticket_id) == (False, one.ticket_id)
    assert [(await store.leave(POOL, "a")) for store in (first, second)] == [
        Left(Status.ACTIVE, Status.DISCONNECTED),
        Left(Status.DISCONNECTED, Status.DISCONNECTED),
    ]


async def test_redis_own_clock_ends_a_lease(stores_of: StoresOf) -> None:
    [store] = stores_of(1, RedisClock(), capacity=1, draft_ms=50)
    draft = await join(store, "a")
    assert draft.expires_ms == draft.now_ms + 50
    waited = await join(store, "b", will_return=True)
    async with asyncio.timeout(5):
        while (await store.waiting(POOL, offset=0, limit=1)) != []:
            await store.expire(POOL)
    offered = await store.status(POOL, "b")
    assert isinstance(offered, Ticket)
    assert offered.expires_ms
    assert offered.expires_ms >= draft.expires_ms + 50
    assert waited.status == Status.WAITING
