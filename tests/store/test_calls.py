"""Calls share batches on the way to Redis, and nothing else: not a reply, an error, nor an end."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from admission.clock import RedisClock
from admission.domain import PoolPolicy, Ticket
from admission.errors import StoreUnavailable
from admission.outcomes import Joined, Unknown
from admission.store import names
from admission.store.connection import open_redis
from admission.store.lanes import Lanes
from admission.store.redis_store import RedisStore
from tests.api.calls import until
from tests.api.valkey import OwnValkey, own_valkey
from tests.store.room import POOL, join

MANY = 2_000


@pytest.fixture
async def server() -> AsyncIterator[OwnValkey]:
    async with own_valkey() as own:
        yield own


async def users_of(store: RedisStore, number: int) -> list[str]:
    users = [f"user{i}" for i in range(number)]
    await asyncio.gather(*(join(store, user) for user in users))
    return users


async def times(redis: Redis, command: str) -> int:
    """How often the server ran a command since it was last asked to forget."""
    found = (await redis.info("commandstats")).get(f"cmdstat_{command}", {})
    return int(found.get("calls", 0))


async def test_each_of_thousands_of_calls_gets_its_own_reply(store: RedisStore) -> None:
    users = await users_of(store, MANY)
    seen = await asyncio.gather(*(store.status(POOL, user) for user in users))
    assert [t.user_id for t in seen if isinstance(t, Ticket)] == users
    assert len({t.ticket_id for t in seen if isinstance(t, Ticket)}) == MANY


async def test_calls_of_one_turn_travel_together(store: RedisStore, redis: Redis) -> None:
    users = await users_of(store, 64)
    before = (await redis.info("stats"))["total_reads_processed"]
    await asyncio.gather(*(store.status(POOL, user) for user in users))
    assert (await redis.info("stats"))["total_reads_processed"] - before < len(users) / 4


async def test_nobody_else_notices_callers_who_give_up(store: RedisStore) -> None:
    users = await users_of(store, MANY)
    calls = [asyncio.create_task(store.status(POOL, user)) for user in users]
    for number, call in enumerate(calls):
        if number % 100 == 0:
            await asyncio.sleep(0)  # some are sent by now, some wait
        if number % 3 == 0:
            calls[number - number // 2].cancel()
            call.cancel()
    seen = await asyncio.gather(*calls, return_exceptions=True)
    kept = [(user, got) for user, got in zip(users, seen, strict=True) if isinstance(got, Ticket)]
    assert MANY / 4 < len(kept) < MANY
    assert all(got.user_id == user for user, got in kept)
    assert all(isinstance(got, Ticket | asyncio.CancelledError) for got in seen)


async def test_who_gives_up_before_being_sent_is_not_sent(store: RedisStore, redis: Redis) -> None:
    await redis.config_resetstat()
    call = asyncio.create_task(store.join(POOL, "gone", ticket="t"))
    await asyncio.sleep(0)  # it asked, and the lane did not begin
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await store.status(POOL, "gone") == Unknown()
    assert await times(redis, "evalsha") == 1


async def test_a_broken_pool_fails_its_own_calls_only(store: RedisStore, redis: Redis) -> None:
    users = await users_of(store, 50)
    await redis.set(names.pool_key("broken", "users"), "not a hash")
    pools = [POOL, "broken"] * 50
    seen = await asyncio.gather(
        *(store.status(pool, users[i // 2]) for i, pool in enumerate(pools)),
        return_exceptions=True,
    )
    assert [t.user_id for t in seen[::2] if isinstance(t, Ticket)] == users
    assert all(isinstance(error, StoreUnavailable) for error in seen[1::2])


async def test_what_cannot_be_sent_fails_alone(store: RedisStore) -> None:
    users = await users_of(store, 3)
    seen = await asyncio.gather(
        *(store.status(POOL, user) for user in (users[0], "\ud800", users[2])),
        return_exceptions=True,
    )
    assert isinstance(seen[1], UnicodeEncodeError)
    assert [t.user_id for t in seen if isinstance(t, Ticket)] == [users[0], users[2]]


async def test_a_server_that_forgot_the_scripts_is_told_them(
    store: RedisStore, redis: Redis
) -> None:
    users = await users_of(store, 200)
    await redis.script_flush()
    seen = await asyncio.gather(*(store.status(POOL, user) for user in users))
    assert [t.user_id for t in seen if isinstance(t, Ticket)] == users


async def test_a_restart_in_the_middle_loses_nothing_that_was_acknowledged(
    server: OwnValkey,
) -> None:
    redis = open_redis(server.url)
    store = RedisStore(redis, RedisClock(), PoolPolicy(capacity=2))
    await store.load()
    acknowledged: set[str] = set()
    stopped = asyncio.Event()

    async def more(number: int) -> None:
        wanted = len(acknowledged) + number

        async def reached() -> bool:
            return len(acknowledged) >= wanted

        await until(reached)

    async def caller(name: int) -> None:
        number = 0
        while not stopped.is_set():
            user, number = f"user{name}-{number}", number + 1
            try:
                outcome = await store.join(POOL, user, ticket=f"t-{user}")
            except StoreUnavailable:
                continue
            assert isinstance(outcome, Joined)
            assert outcome.ticket.user_id == user
            acknowledged.add(user)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for name in range(40):
            group.create_task(caller(name))
        await more(200)
        await server.kill()
        await server.start()
        await more(200)
        stopped.set()
    for user in acknowledged:
        assert isinstance(await store.status(POOL, user), Ticket), user
    await redis.aclose()


async def test_with_the_server_gone_everybody_is_told(server: OwnValkey) -> None:
    redis = open_redis(server.url)
    store = RedisStore(redis, RedisClock(), PoolPolicy())
    await store.load()
    await server.kill()
    async with asyncio.timeout(10):  # not one after the other, each with tries of its own
        seen = await asyncio.gather(
            *(store.status(POOL, f"user{i}") for i in range(500)), return_exceptions=True
        )
    assert all(isinstance(error, StoreUnavailable) for error in seen)
    await server.start()
    assert await store.status(POOL, "user0") == Unknown()
    await redis.aclose()


async def test_an_end_of_the_loop_leaves_nobody_waiting(redis: Redis) -> None:
    lanes = Lanes(redis)
    calls = [asyncio.create_task(lanes.send([b"PING"])) for _ in range(10)]
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task(), *calls}:
        task.cancel()  # what asyncio.run does at the end
    async with asyncio.timeout(5):
        seen = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, asyncio.CancelledError) for error in seen)
