"""The ticks as a schedule calls them: all or some, twice at once, each bounded."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from redis import Redis as BlockingRedis

from admission.accounting.ledger import Ledger
from admission.accounting.reports import Question, usage
from admission.clock import ManualClock
from admission.errors import StoreUnavailable
from admission.settings import SettingsError
from admission.store import names
from scheduler import functions
from scheduler.functions import LIMITS_S, Ticks, TicksFailed
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


def test_a_schedule_runs_all_and_an_input_some(ticks_of: TicksOf) -> None:
    ticks = ticks_of()
    assert ticks(SCHEDULED) == {"done": list(LIMITS_S)}
    assert ticks({"ticks": ["expire", "announce"]}) == {"done": ["expire", "announce"]}
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

    async def hangs(_: Ticks) -> None:
        await asyncio.Event().wait()

    async def fails(_: Ticks) -> None:
        raise StoreUnavailable

    async def works(_: Ticks) -> None:
        ran.append("workers")

    monkeypatch.setattr(Ticks, "_expire", hangs)
    monkeypatch.setattr(Ticks, "_announce", fails)
    monkeypatch.setattr(Ticks, "_workers", works)
    monkeypatch.setattr(functions, "LIMITS_S", {**LIMITS_S, "expire": 0.05})
    with pytest.raises(TicksFailed, match=r"expire: not done.*; announce: StoreUnavailable"):
        ticks_of()(SCHEDULED)
    assert ran == ["workers"]


def test_what_was_used_comes_into_sql_where_one_is_named(
    ticks_of: TicksOf, empty: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'usage.db'}"
    with BlockingRedis.from_url(empty) as client:
        for n in range(3):
            client.xadd(names.USAGE_KEY, {"r": msgspec.msgpack.encode(record(n))})
        ticks_of()(SCHEDULED)
        assert client.xlen(names.USAGE_KEY) == 3, "nowhere to bring it: it waits"
        ticks_of(VESTIBULE_DATABASE_URL=url)(SCHEDULED)
        assert client.xlen(names.USAGE_KEY) == 0
    found = usage(Ledger(url), Question("day", 0, 2**60))
    assert sum(row["requests"] for row in found) == 3


def test_without_redis_none_is_begun(empty: str) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL"):
        Ticks(service_settings())
    away = Ticks(service_settings(REDIS_URL="redis://127.0.0.1:1"))
    with pytest.raises(StoreUnavailable):
        away(SCHEDULED)
    away.close()
