"""The ticks as a schedule calls them: all or some, twice at once, each bounded."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from admission.accounting.ledger import Ledger
from admission.accounting.reports import Question, usage
from admission.clock import ManualClock
from admission.errors import StoreUnavailable
from admission.settings import SettingsError
from admission.store import names
from admission.store.redis_store import RedisStore
from admission.store.tick_store import TickStore, Word
from scheduler import table
from scheduler.functions import Ticks, TicksFailed
from scheduler.table import NAMES
from tests.accounting.conftest import record
from tests.conftest import service_settings
from tests.functions.conftest import Asking

SCHEDULED = {  # as EventBridge sends it without an input of one's own
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "123456789012",
    "time": "2026-11-21T20:00:00Z",
    "region": "eu-central-1",
    "resources": ["arn:aws:events:eu-central-1:123456789012:rule/vestibule"],
    "detail": {},
}

TicksOf = Callable[..., Ticks]


@dataclass
class Ending:
    """The context of an invocation that ends in so many ms, but for what it needs after."""

    left_ms: int

    def get_remaining_time_in_millis(self) -> int:
        return self.left_ms


@pytest.fixture
def ticks_of(empty: str, clock: ManualClock) -> Iterator[TicksOf]:
    """Makes functions of the schedule, each an environment of its own."""
    made: list[Ticks] = []

    def make(**changes: str) -> Ticks:
        made.append(Ticks(service_settings(**{"REDIS_URL": empty, **changes}), clock))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_schedule_runs_all_and_an_input_some(ticks_of: TicksOf, clock: ManualClock) -> None:
    ticks, without = ticks_of(), [*NAMES[NAMES.index("probe") :]]
    done = [name for name in NAMES if name not in without]
    assert ticks(SCHEDULED) == {"done": done, "left": without}
    assert ticks(SCHEDULED) == {"done": [], "left": [*NAMES]}, "they have just been done"
    clock.advance_ms(2_600)
    assert ticks_of()(SCHEDULED)["done"] == ["expire", "announce", "workers"]
    clock.advance_ms(60_000)
    some = ["expire", "announce"]
    assert ticks({"ticks": some}) == {"done": some, "left": []}
    for wrong in ("expire", ["no-such-tick"]):
        with pytest.raises(ValueError, match="announce"):
            ticks({"ticks": wrong})


def test_one_call_ends_all_that_is_due(
    ask: Asking, ticks_of: TicksOf, clock: ManualClock, empty: str
) -> None:
    """More than the 100 deadlines of one script."""
    ask("PUT", "/admin/pools/default", {"capacity": 250}, key="admin-key")
    for n in range(250):
        ask("POST", f"/queue/join/u{n}")
    clock.advance_ms(301_000)
    with BlockingRedis.from_url(empty) as client:
        drafts = names.pool_key("default", "drafts")
        assert client.zcard(drafts) == 250
        ticks_of()({"ticks": ["expire"]})
        assert client.zcard(drafts) == 0


def test_two_at_once_do_it_once(ask: Asking, ticks_of: TicksOf, clock: ManualClock) -> None:
    ask("PUT", "/admin/pools/default", {"capacity": 20}, key="admin-key")
    for n in range(40):
        ask("POST", f"/queue/join/u{n}")
    clock.advance_ms(301_000)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda each: each(SCHEDULED), [ticks_of() for _ in range(4)]))
    metrics = ask("GET", "/queue/metrics").json
    assert (metrics["expired_total"], metrics["draft"], metrics["waiting"]) == (20, 20, 0)


def test_a_tick_that_fails_or_hangs_stops_no_other(
    ticks_of: TicksOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    async def hangs(_: RedisStore) -> None:
        await asyncio.Event().wait()

    async def fails(_: RedisStore, pace_ms: int) -> None:
        raise StoreUnavailable

    async def works(_: RedisStore) -> None:
        ran.append("workers")

    monkeypatch.setattr(table, "expire_tick", hangs)
    monkeypatch.setattr(table, "announce_tick", fails)
    monkeypatch.setattr(table, "workers_tick", works)
    with pytest.raises(
        TicksFailed, match=r"expire: not done within 0\.1 s; announce: StoreUnavailable"
    ):
        ticks_of()(SCHEDULED, Ending(600))
    assert ran == ["workers"]


def test_what_was_used_comes_into_sql_where_one_is_named(
    ticks_of: TicksOf, empty: str, tmp_path: Path, clock: ManualClock
) -> None:
    url = f"sqlite:///{tmp_path / 'usage.db'}"
    with BlockingRedis.from_url(empty) as client:
        for n in range(3):
            client.xadd(names.USAGE_KEY, {"r": msgspec.msgpack.encode(record(n))})
        ticks_of()(SCHEDULED)
        assert client.xlen(names.USAGE_KEY) == 3, "nowhere to bring it: it waits"
        clock.advance_ms(60_000)
        ticks_of(VESTIBULE_DATABASE_URL=url)(SCHEDULED)
        assert client.xlen(names.USAGE_KEY) == 0
    found = usage(Ledger(url), Question("day", 0, 2**60))
    assert sum(row["requests"] for row in found) == 3


async def test_what_another_scheduler_leads_is_left_to_it(
    ticks_of: TicksOf, empty: str, clock: ManualClock
) -> None:
    redis = Redis.from_url(empty)
    await TickStore(redis, clock).beat("leader", {"expire": Word(1000), "announce": Word(1000)})
    await redis.aclose()
    done = await asyncio.to_thread(ticks_of(), SCHEDULED)
    assert done["done"] == ["workers", "agents"]
    assert done["left"][:2] == ["expire", "announce"]


def test_without_redis_none_is_begun(empty: str) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL"):
        Ticks(service_settings())
    with pytest.raises(SettingsError, match="VESTIBULE_FLEET: a function neither makes nor ends"):
        Ticks(service_settings(REDIS_URL="redis://127.0.0.1:1", VESTIBULE_FLEET="fleet.toml"))
    away = Ticks(service_settings(REDIS_URL="redis://127.0.0.1:1"))
    with pytest.raises(StoreUnavailable):
        away(SCHEDULED)
    away.close()
