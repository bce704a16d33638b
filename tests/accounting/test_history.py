"""The history of pools and workers: written once an interval, summed up in steps, forgotten."""

from typing import Any

import pytest
from sqlalchemy import inspect, select, update

from admission.accounting import reports
from admission.accounting.history import EACH_WORKER, Period, Sample, history, keep
from admission.accounting.history_tables import samples
from admission.accounting.ledger import Ledger, LedgerUnavailable, UnfitLedger
from admission.accounting.tables import SCHEMA, metadata, schema
from tests.accounting.conftest import AT_MS, DAY_MS, HOUR_MS, MINUTE_MS, record

BEGIN_MS = AT_MS // HOUR_MS * HOUR_MS
POOL = Sample("default", "", ready=2, slots=4, busy=3, waiting=7, wait_ms=9000, gpu_load=0.5)
ONE = Sample("default", "w-1", ready=1, slots=2, busy=2, waiting=1, gpu_load=0.25, gpu_memory=0.9)
TWO = Sample("default", "w-2", ready=0, slots=2, busy=0, waiting=0)


def write(ledger: Ledger, minute: int, *seen: Sample, forget_ms: int = 0) -> int:
    begin_ms = BEGIN_MS + minute * MINUTE_MS
    end_ms = begin_ms + MINUTE_MS
    return keep(ledger, seen, begin_ms=begin_ms, end_ms=end_ms, forget_ms=forget_ms)


def read(ledger: Ledger, step_ms: int = MINUTE_MS, **more: Any) -> list[dict[str, Any]]:
    given = {"from_ms": 0, "to_ms": 2**60, "step_ms": step_ms, "pool": "default", **more}
    return history(ledger, Period(**given))


def test_an_interval_is_written_once_and_the_first_stands(ledger: Ledger) -> None:
    assert write(ledger, 0, POOL, ONE, TWO) == 3
    assert write(ledger, 0, Sample("default", "", 0, 0, 0, 0), ONE) == 0
    assert write(ledger, 1, POOL) == 1
    first, second = read(ledger)
    assert (first["since_ms"], second["since_ms"]) == (BEGIN_MS, BEGIN_MS + MINUTE_MS)
    assert (first["ready"], first["slots"], first["busy"], first["waiting"]) == (2, 4, 3, 7)
    assert (first["wait_ms"], first["gpu_load"], first["gpu_memory"]) == (9000, 0.5, None)


def test_requests_count_where_and_when_they_ended(ledger: Ledger) -> None:
    ledger.add(
        [
            record(1, at_ms=BEGIN_MS),
            record(2, at_ms=BEGIN_MS + MINUTE_MS - 1, worker="w-2", first_token_ms=None),
            record(3, at_ms=BEGIN_MS + MINUTE_MS),
            record(4, at_ms=BEGIN_MS, worker="gone"),
            record(5, at_ms=BEGIN_MS, pool="other"),
        ]
    )
    write(ledger, 0, POOL, ONE, TWO)
    [pool] = read(ledger)
    assert (pool["requests"], pool["first_tokens"], pool["first_token_ms"]) == (3, 2, 400)
    assert (pool["total_ms"], pool["queued_ms"], pool["completion_tokens"]) == (2100, 300, 15)
    one, two = read(ledger, worker=EACH_WORKER)
    assert (one["worker"], one["requests"], two["worker"], two["requests"]) == ("w-1", 1, "w-2", 1)
    assert read(ledger, worker="w-2") == [two]
    assert read(ledger, pool="other") == []


def test_steps_have_means_the_longest_queue_and_sums(ledger: Ledger) -> None:
    for minute, waiting in enumerate((0, 10, 2, 4)):
        ledger.add([record(minute, at_ms=BEGIN_MS + minute * MINUTE_MS)])
        write(ledger, minute, Sample("default", "", 1, 4, minute, waiting, wait_ms=minute or None))
    first, second = read(ledger, step_ms=2 * MINUTE_MS)
    assert (first["busy"], first["waiting"], first["waiting_max"], first["requests"]) == (
        0.5,
        5,
        10,
        2,
    )
    assert first["wait_ms"] == 1, "the mean of what was known"
    assert (second["since_ms"], second["busy"]) == (BEGIN_MS + 2 * MINUTE_MS, 2.5)
    [some] = read(ledger, from_ms=BEGIN_MS + MINUTE_MS, to_ms=BEGIN_MS + 2 * MINUTE_MS)
    assert some["waiting"] == 10


def test_what_is_old_goes_and_not_all_at_once(ledger: Ledger) -> None:
    for minute in (0, 1, 500, 1000):
        write(ledger, minute, POOL)
    write(ledger, 1001, forget_ms=BEGIN_MS + 600 * MINUTE_MS)
    assert [row["since_ms"] - BEGIN_MS for row in read(ledger)] == [
        500 * MINUTE_MS,
        1000 * MINUTE_MS,
    ]
    write(ledger, 1001, forget_ms=BEGIN_MS + 600 * MINUTE_MS)
    assert len(read(ledger)) == 1
    write(ledger, 1001, forget_ms=BEGIN_MS + DAY_MS)
    assert read(ledger) == []


def test_more_than_an_answer_holds_is_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admission.accounting.history.ROWS_MAX", 2)
    for minute in range(3):
        write(ledger, minute, POOL)
    with pytest.raises(reports.TooManyRows):
        read(ledger)
    assert len(read(ledger, step_ms=HOUR_MS)) == 1


def test_a_database_of_the_version_before_is_upgraded_by_who_writes(
    ledger: Ledger, url: str
) -> None:
    ledger.add([record(1)])
    with ledger.transaction() as connection:
        metadata.drop_all(connection, [samples])
        connection.execute(update(schema).values(version=1))
    reader = Ledger(url, writes=False)
    assert reports.used_models(reader)[0]["uses"] == 1, "what was there before can be read"
    with pytest.raises(LedgerUnavailable):
        history(reader, Period(0, 1, MINUTE_MS, "default"))
    upgraded = Ledger(url)
    assert write(upgraded, 0, POOL) == 1
    with upgraded.transaction() as connection:
        assert connection.execute(select(schema.c.version)).scalar_one() == SCHEMA == 3
    assert len(read(reader)) == 1
    assert reports.used_models(reader)[0]["uses"] == 1
    for each in (reader, upgraded):
        each.close()


def test_a_newer_one_is_refused_and_left_as_it_is(ledger: Ledger, url: str) -> None:
    write(ledger, 0, POOL)
    with ledger.transaction() as connection:
        connection.execute(update(schema).values(version=SCHEMA + 1))
        metadata.drop_all(connection, [samples])
    newer = Ledger(url)
    with pytest.raises(UnfitLedger, match=f"version {SCHEMA + 1}"):
        write(newer, 1, POOL)
    newer.close()
    with ledger.transaction() as connection:
        assert not inspect(connection).has_table(samples.name)
