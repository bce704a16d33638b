"""The clockwork: what ends, ends without anybody calling; two are safe; a failure stops nothing."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Self

import pytest
from apscheduler.schedulers import base
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from admission import logs
from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, PoolPolicy, Status, Ticket
from admission.store.fence import Fence
from admission.store.names import USER_CHANNEL
from admission.store.redis_store import RedisStore
from scheduler import clockwork, leases, table
from scheduler.tick import Tick
from tests.api.calls import until
from tests.api.valkey import OwnValkey, own_valkey


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks and beats at twenty a second instead of one."""
    monkeypatch.setattr(table, "TICK_S", 0.05)
    monkeypatch.setattr(table, "WORKERS_S", 0.05)
    monkeypatch.setattr(leases, "BEAT_S", 0.05)


async def status(store: RedisStore, user: str) -> Status:
    ticket = await store.status(DEFAULT_POOL, user)
    assert isinstance(ticket, Ticket)
    return ticket.status


async def becomes(store: RedisStore, user: str, wanted: Status) -> None:
    async def is_so() -> bool:
        return await status(store, user) is wanted

    await until(is_so)


async def join(store: RedisStore, *users: str) -> None:
    for user in users:
        await store.join(DEFAULT_POOL, user, ticket=f"t-{user}")


async def test_a_draft_that_ran_out_goes_to_the_next(
    store: RedisStore, clock: ManualClock, quick: None
) -> None:
    await join(store, "a", "b", "c")
    async with clockwork.running(store, []):
        clock.advance_ms(300_000)
        await becomes(store, "c", Status.DRAFT)
    assert await status(store, "a") is Status.DISCONNECTED


async def test_two_clockworks_do_everything_once(
    redis: Redis, store: RedisStore, clock: ManualClock, quick: None
) -> None:
    other = RedisStore(redis, clock, PoolPolicy(capacity=2))
    users = [f"u{i}" for i in range(10)]
    await join(store, *users)
    async with redis.pubsub() as pubsub:
        await pubsub.psubscribe(f"{USER_CHANNEL}*")
        async with clockwork.running(store, []), clockwork.running(other, []):
            for _ in range(5):
                clock.advance_ms(300_000)
                await asyncio.sleep(0.15)  # both have ticked; what must not happen has no event
        messages = [m async for m in _said(pubsub)]
    offered = [m for m in messages if b'"slot_available"' in m]
    expired = [m for m in messages if b'"expired"' in m]
    assert len(expired) == len(set(expired)) == 10
    assert len([m for m in offered if b'"duration":300' in m]) == 8
    metrics = await store.metrics(DEFAULT_POOL)
    assert (metrics.draft, metrics.waiting, metrics.expired_total) == (0, 0, 10)


async def _said(pubsub: PubSub) -> AsyncIterator[bytes]:
    while message := await pubsub.get_message(timeout=0.1):
        if message["type"] == "pmessage":
            yield message["data"]


async def test_more_than_one_script_ends_is_not_left_for_a_second(
    store: RedisStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.05)  # a clock that leaps is as good as a long pause
    await store.configure(DEFAULT_POOL, {"capacity": 350})
    await join(store, *(f"u{i}" for i in range(350)))
    async with clockwork.running(store, []):
        clock.advance_ms(300_000)

        async def all_ended() -> bool:
            return (await store.metrics(DEFAULT_POOL)).expired_total == 350

        async with asyncio.timeout(2.5):  # the tick at latest after one second, then at once
            await until(all_ended)


@pytest.fixture
async def server() -> AsyncIterator[OwnValkey]:
    async with own_valkey() as running:
        yield running


async def test_ticks_go_on_after_redis_was_away(
    server: OwnValkey, clock: ManualClock, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    redis = Redis.from_url(server.url)
    store = RedisStore(redis, clock, PoolPolicy(capacity=2))
    await join(store, "a", "b", "c")
    async with clockwork.running(store, []):

        async def leads() -> bool:
            return all([each.runs for each in await store.ticks.all()] or [0])

        await until(leads)
        await server.kill()

        async def noticed() -> bool:
            said = {record.getMessage() for record in caplog.records}
            return {f"tick_without_store tick={t}" for t in ("expire", "announce", "workers")} | {
                "clockwork_unheard"
            } <= said

        await until(noticed)
        await server.start()
        clock.advance_ms(300_000)
        await becomes(store, "c", Status.DRAFT)
    await redis.aclose()


class Wall(datetime):
    """The wall clock of a host: its operator, or NTP, may set it."""

    behind = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) - cls.behind


@pytest.mark.parametrize("hours", [1, -1], ids=["back", "forward"])
async def test_a_wall_clock_that_is_set_changes_nothing(
    store: RedisStore, quick: None, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Whoever leads keeps the leases meanwhile: no other would tick for it."""
    for module in (base, clockwork):
        monkeypatch.setattr(module, "datetime", Wall)
    monkeypatch.setattr(Wall, "behind", timedelta())
    runs: list[float] = []

    async def note(_: Fence) -> None:
        runs.append(asyncio.get_running_loop().time())

    async def more() -> bool:
        return len(runs) > before + 2

    async with clockwork.running(store, [], also=[Tick("noted", "", 0.05, 5, note)]):
        before = 0
        await until(more)
        monkeypatch.setattr(Wall, "behind", timedelta(hours=hours))
        before = len(runs)
        async with asyncio.timeout(3):
            await until(more)
    assert min(b - a for a, b in pairwise(runs)) > 0.01


async def test_a_tick_that_fails_stops_no_other(
    store: RedisStore,
    clock: ManualClock,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(_: RedisStore, pace_ms: int) -> None:
        raise ValueError(f"broken {pace_ms}")

    monkeypatch.setattr(table, "announce_tick", broken)
    await join(store, "a", "b", "c")
    async with clockwork.running(store, []):
        clock.advance_ms(300_000)
        await becomes(store, "c", Status.DRAFT)
    assert "tick_failed tick=announce" in caplog.text


async def test_a_tick_that_ends_while_the_clockwork_stops_is_no_error(
    store: RedisStore, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    began = asyncio.Event()

    async def ends_when_told(_: Fence) -> None:
        began.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    tick = Tick("patient", "waits", 0.05, 10, ends_when_told)
    async with clockwork.running(store, [], also=[tick]):
        await began.wait()
    assert "JobLookupError" not in caplog.text


def test_a_tick_that_waits_long_for_a_database_is_not_a_line_each_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # pytest's own stay
    logs.configure()
    scheduler = logging.getLogger("apscheduler.scheduler")
    assert not scheduler.isEnabledFor(logging.WARNING)
    assert scheduler.isEnabledFor(logging.ERROR)
