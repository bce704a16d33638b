"""Records reach Redis in batches; what is lost is counted, and nothing else is."""

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from admission import background
from admission.accounting import journal as journal_module
from admission.accounting.journal import BATCH, Journal
from admission.accounting.record import Outcome, Record
from admission.errors import StoreUnavailable
from admission.store.usage_store import UsageStore
from tests.accounting.conftest import AT_MS, record


class Flaky(UsageStore):
    """A store whose Redis is away while ``away``, and which loses ``lost`` replies."""

    away, lost, calls = False, 0, 0

    async def append(self, records: object) -> int:
        self.calls += 1
        if self.away:
            raise StoreUnavailable
        taken = await super().append(records)  # type: ignore[arg-type]
        if self.lost:
            self.lost -= 1
            raise StoreUnavailable
        return taken


@pytest.fixture
def flaky(usage: UsageStore) -> Flaky:
    return Flaky(usage._redis, usage._clock)


async def written(store: UsageStore) -> list[Record]:
    return [msgspec.msgpack.decode(raw, type=Record) for _, raw in await store.oldest(1_000_000)]


async def test_a_record_comes_whole_with_an_id_and_an_instant(usage: UsageStore) -> None:
    journal = Journal(usage, lambda: AT_MS)
    given = record(id="", at_ms=0, first_token_ms=None, outcome=Outcome.CUT, estimated=True)
    journal.note(given)
    journal.note(record())
    await journal.flush()
    first, second = await written(usage)
    assert first == given
    assert first.id
    assert first.id != second.id
    assert first.at_ms == AT_MS


async def test_a_second_or_a_hundred_whichever_is_first(
    flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "EVERY_S", 0.2)
    journal = Journal(flaky)
    async with background.running("journal", journal.keep_sending):
        journal.note(record())
        await asyncio.sleep(0.05)
        assert await flaky.length() == 0
        await asyncio.sleep(0.3)
        assert (await flaky.length(), flaky.calls) == (1, 1)
        for _ in range(BATCH):
            journal.note(record())
        await asyncio.sleep(0.1)
        assert (await flaky.length(), flaky.calls) == (BATCH + 1, 2)


async def test_redis_away_keeps_the_newest_and_counts_the_others(
    flaky: Flaky, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal_module, "KEPT_MAX", 250)
    journal = Journal(flaky)
    flaky.away = True
    for number in range(300):
        journal.note(record(user=str(number)))
    with caplog.at_level(logging.ERROR):
        await journal.flush()
    assert "usage_lost records=250" in caplog.text
    assert journal.dropped == 50
    flaky.away = False
    await journal.flush()
    assert [r.user for r in await written(flaky)] == [str(n) for n in range(50, 300)]


async def test_a_lost_reply_sends_the_same_records_again(flaky: Flaky) -> None:
    journal = Journal(flaky)
    journal.note(record())
    flaky.lost = 1
    await journal.flush()
    await journal.flush()
    found = await written(flaky)
    assert len(found) == 2
    assert found[0] == found[1]  # SQL knows it by its id


async def test_a_full_stream_keeps_what_it_has_and_the_alarm_is_raised(
    flaky: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    flaky.records_max = 150
    journal = Journal(flaky)
    for number in range(170):
        journal.note(record(user=str(number)))
    with caplog.at_level(logging.ERROR):
        await journal.flush()
    assert "usage_waits records=20" in caplog.text
    await flaky.forget([entry for entry, _ in await flaky.oldest(100)])
    await journal.flush()
    assert [r.user for r in await written(flaky)] == [str(n) for n in range(100, 170)]


async def test_what_overflows_while_a_batch_is_under_way_is_counted_once(
    flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "KEPT_MAX", 100)
    journal = Journal(flaky)
    for number in range(100):
        journal.note(record(user=str(number)))
    sending = asyncio.create_task(journal.flush())
    await asyncio.sleep(0)
    for number in range(100, 130):
        journal.note(record(user=str(number)))
    await sending
    found = {r.user for r in await written(flaky)}
    assert len(found) + journal.dropped == 130


def test_a_record_of_the_future_or_the_past_can_be_read() -> None:
    class Newer(Record, kw_only=True):
        extra: int = 7

    class Older(msgspec.Struct, array_like=True, kw_only=True):
        id: str = ""
        at_ms: int = 0

    newer = msgspec.msgpack.decode(msgspec.msgpack.encode(Newer(id="a")), type=Record)
    assert newer == Record(id="a")
    older = msgspec.msgpack.decode(msgspec.msgpack.encode(Older(id="a", at_ms=3)), type=Record)
    assert older == Record(id="a", at_ms=3)


@pytest.mark.parametrize(
    ("changes", "speed"),
    [
        ({}, 10.0),  # 4 tokens after the first in 400 ms
        ({"completion_tokens": 1}, None),
        ({"first_token_ms": None}, None),
        ({"total_ms": 300}, None),
    ],
)
def test_tokens_per_second(changes: dict[str, Any], speed: float | None) -> None:
    assert record(**changes).tokens_per_s == speed
