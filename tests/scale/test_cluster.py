"""Redis Cluster, 3 masters: pools spread over them, each moved whole by its scripts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.crc import key_slot
from redis.exceptions import ResponseError

from admission.clock import ManualClock
from admission.domain import PoolPolicy, Status, Ticket
from admission.outcomes import Confirmed, Joined, Left
from admission.store import connection, names
from admission.store.connection import UnfitServer, check_server, listener, open_redis
from admission.store.fleet_store import FleetStore
from admission.store.redis_store import RedisStore
from tests.fleet.words import asked, happened, machine, taken
from tests.scale.processes import Admission, admission
from tests.scale.servers import SLOTS, Cluster, cluster, until
from tests.store.room import new_id

POOLS = ("default", "a", "b", "c", "d", "e")
CLUSTER = {"VESTIBULE_REDIS_MODE": "cluster"}


def test_the_pools_of_these_tests_lie_on_every_master() -> None:
    slots = {key_slot(names.pool_key(pool, "queue").encode()) for pool in POOLS}
    assert {slot * 3 // SLOTS for slot in slots} == {0, 1, 2}


@asynccontextmanager
async def _client(made: Cluster) -> AsyncIterator[Redis]:
    client = open_redis(made.url, mode="cluster")
    try:
        yield client
    finally:
        await client.aclose()


async def _join(store: RedisStore, pool: str, user: str, **flags: Any) -> Ticket:
    outcome = await store.join(pool, user, ticket=new_id(user), **flags)
    assert isinstance(outcome, Joined)
    return outcome.ticket


async def _heard(pubsub: PubSub, offered: set[str]) -> None:
    """Wait until each of them was told of the slot; from other masters it comes a little later."""
    missing = set(offered)
    while missing:
        event = await pubsub.get_message(timeout=5.0)
        assert event is not None, f"not told: {missing}"
        if event["type"] == "pmessage" and b"slot_available" in event["data"]:
            missing.discard(event["channel"].decode().removeprefix(names.USER_CHANNEL))


async def _a_turn_in_every_pool(redis: Redis) -> None:
    """Everything a ticket lives through, in all pools at once."""
    clock = ManualClock()
    store = RedisStore(redis, clock, PoolPolicy(capacity=1))
    await check_server(redis)
    await store.load()
    async with listener(redis) as pubsub:
        await pubsub.psubscribe("queue_status:*")
        for pool in POOLS:
            await store.configure(pool, {})
        crowd = await asyncio.gather(
            *(
                _join(store, pool, f"{pool}-{i}", will_return=True)
                for pool in POOLS
                for i in range(9)
            )
        )
        assert [ticket.status for ticket in crowd].count(Status.DRAFT) == len(POOLS)
        assert await store.pools() == sorted(POOLS)
        offered = {ticket.user_id for ticket in crowd if ticket.status == "draft"}
        await _heard(pubsub, offered)
    for ticket in crowd:
        if ticket.status != "draft":
            continue
        pool, user = ticket.pool, ticket.user_id
        assert isinstance(await store.confirm(pool, user), Confirmed)
        (second, third) = [item.user_id for item in await store.waiting(pool, offset=0, limit=2)]
        assert isinstance(await store.leave(pool, user), Left)
        seen = await store.status(pool, second)
        assert isinstance(seen, Ticket)
        assert seen.status == "draft"
    clock.advance_ms(300_000)
    for pool in POOLS:
        await store.expire(pool)
        await store.announce(pool)
        counts = await store.metrics(pool)
        assert (counts.draft, counts.active, counts.waiting) == (1, 0, 6)


async def _a_machine_of_the_fleet(redis: Redis) -> None:
    """Its keys are of one slot: a command is taken with its effect and its history."""
    clock = ManualClock()
    store, fence = FleetStore(redis, clock, history_kept=1), await taken(redis, clock, "a")
    assert await store.ask(asked())
    [(entry, _)] = await store.commands()
    one = machine()
    assert await store.take(fence, entry, [(one, 0)], [happened(one), happened(one)]) == "taken"
    await store.drain((await store.history())[-1].entry)
    await store.note(fence, [happened("m", "orphan")])
    assert await store.instances() == [one]
    assert [each.event.name for each in await store.history()] == ["orphan"]


async def test_every_pool_lives_its_life_on_its_own_master(valkey_binary: str) -> None:
    async with cluster(valkey_binary) as made, _client(made) as redis:
        await _a_turn_in_every_pool(redis)
        await _a_machine_of_the_fleet(redis)
        lone = open_redis(made.masters[0].url)
        with pytest.raises(UnfitServer, match="set VESTIBULE_REDIS_MODE=cluster"):
            await check_server(lone)
        await lone.aclose()
        evicting = made.masters[2].client
        await evicting.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(UnfitServer, match="set it to noeviction"):
            await check_server(redis)


@pytest.mark.soak
async def test_the_matrix_of_servers(any_binary: str) -> None:
    async with cluster(any_binary) as made, _client(made) as redis:
        await _a_turn_in_every_pool(redis)
        await _a_machine_of_the_fleet(redis)


@pytest.mark.soak
async def test_a_burst_waits_for_a_connection(
    any_binary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS_MAX", 2)
    monkeypatch.setattr(connection, "LISTENERS_MAX", 0)
    async with cluster(any_binary) as made, _client(made) as redis:
        store = RedisStore(redis, ManualClock(), PoolPolicy(capacity=1))
        crowd = await asyncio.gather(*(_join(store, "a", f"u{i}") for i in range(500)))
        assert [ticket.status for ticket in crowd].count(Status.DRAFT) == 1


@pytest.mark.soak
async def test_the_service_lives_on_when_a_master_dies(any_binary: str) -> None:
    """The dead master has the only pool; its replica takes over, and the cluster's bus tells."""
    async with cluster(any_binary, replicas=3) as made:
        holder = key_slot(names.pool_key("default", "queue").encode()) * 3 // SLOTS
        async with admission(made.url, **CLUSTER, VESTIBULE_PROCESSES="2") as service:
            before = [await service.join(f"u{i}", will_return=True) for i in range(9)]
            stream = service.event("u3")
            assert (await anext(stream))["position"] == 1
            await made.masters[holder].client.wait(1, 5000)
            await made.masters[holder].kill()
            await _all_there(service, before)
            assert (await service.call("POST", "/queue/leave/u0"))[0] == 200
            async for ticket in stream:
                if ticket["status"] == "draft":
                    break
            seen = await service.metrics()
            assert (seen["draft"], seen["active"], seen["waiting"]) == (3, 0, 5)
            await _switch_back(made, holder)
            await _all_there(service, before[4:])


async def _switch_back(made: Cluster, holder: int) -> None:
    """The old master comes back as a replica and is made master by hand: clients are sent on."""
    old = made.masters[holder]
    await old.start()
    await until(old.in_step, "the old master is not in step")
    asked_at = [float("-inf")]

    async def took_over() -> bool:
        """Asked every 6 s: the others may refuse their votes, and the asking ends after 5."""
        now = asyncio.get_running_loop().time()
        if now - asked_at[0] > 6:
            asked_at[0] = now
            with suppress(ResponseError):  # the master does not know its replica yet
                await old.ask("CLUSTER FAILOVER")
        return await old.is_master()

    await until(took_over, "the old master did not take over")


async def _all_there(service: Admission, joined: list[tuple[int, Any]]) -> None:
    for joined_status, view in joined:
        assert joined_status == 200
        status, now = await service.settled(f"/queue/status/{view['user_id']}")
        assert (status, now.get("ticket_id")) == (200, view["ticket_id"])
