"""Every record counts once in SQL: its row, its sums, its model."""

import random
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from admission.accounting import ledger as ledger_module
from admission.accounting.ledger import Ledger, LedgerUnavailable, UnfitLedger, begin_of
from admission.accounting.record import Outcome, Record
from admission.accounting.reports import Question, TooManyRows, usage, used_models
from admission.accounting.tables import SCHEMA, requests, schema
from tests.accounting.conftest import AT_MS, DAY_MS, HOUR_MS, record

ALWAYS = 2**60


def sums(ledger: Ledger, span: str = "hour", **question: Any) -> list[dict[str, Any]]:
    return usage(ledger, Question(span, 0, ALWAYS, **question))


def rows(ledger: Ledger) -> int:
    with ledger.transaction() as connection:
        return len(connection.execute(select(requests.c.id)).all())


def test_a_record_comes_back_as_it_was(ledger: Ledger) -> None:
    given = record(estimated=True, outcome=Outcome.CUT, first_token_ms=None)
    ledger.add([given])
    with ledger.transaction() as connection:
        row = connection.execute(select(requests)).mappings().one()
    assert row["tokens_per_s"] is None
    assert Record(**{k: v for k, v in row.items() if k != "tokens_per_s"}) == given


def test_what_comes_again_counts_nowhere(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    assert ledger.add([record(1), record(2), record(2)]) == 2
    assert ledger.add([record(2), record(3)]) == 1
    assert ledger.add([record(1)]) == 0
    assert rows(ledger) == 3
    for span in ("hour", "day", "week"):
        [row] = sums(ledger, span)
        assert (row["requests"], row["prompt_tokens"], row["first_token_ms"]) == (3, 30, 600)
    assert used_models(ledger)[0]["uses"] == 3
    assert not caplog.records


def test_an_upstream_that_refused_or_failed_did_not_serve(ledger: Ledger) -> None:
    ledger.add([record(n, outcome=outcome) for n, outcome in enumerate(Outcome)])
    [row] = sums(ledger)
    assert (row["requests"], row["served"]) == (5, 3)


def test_sums_are_those_of_the_rows_whatever_the_order_and_the_repeats(ledger: Ledger) -> None:
    chance = random.Random(7)
    records = [
        record(
            number,
            at_ms=AT_MS + chance.randrange(20 * DAY_MS),
            user=chance.choice("ab"),
            model=chance.choice("xy"),
            project=chance.choice(["", "p"]),
            completion_tokens=chance.randrange(100),
        )
        for number in range(400)
    ]
    for _ in range(20):
        ledger.add(chance.sample(records, 60))
    ledger.add(records)
    for span in ("hour", "day", "week"):
        expected: dict[tuple[int, str], int] = {}
        for each in records:
            key = begin_of(span, each.at_ms), each.user
            expected[key] = expected.get(key, 0) + each.completion_tokens
        found = sums(ledger, span, by=("user",))
        assert {(r["begin_ms"], r["user"]): r["completion_tokens"] for r in found} == expected
    only = sums(ledger, "week", only=(("model", "x"), ("project", "p")))
    assert sum(r["requests"] for r in only) == sum(
        r.model == "x" and r.project == "p" for r in records
    )


@pytest.mark.parametrize(
    ("instant", "hour", "day", "week"),
    [
        ("2026-11-18T10:26:40", "2026-11-18T10", "2026-11-18", "2026-11-16"),
        ("2026-11-16T00:00:00", "2026-11-16T00", "2026-11-16", "2026-11-16"),
        ("2026-11-15T23:59:59", "2026-11-15T23", "2026-11-15", "2026-11-09"),
        ("2027-01-01T00:00:00", "2027-01-01T00", "2027-01-01", "2026-12-28"),
    ],
)
def test_hours_days_and_weeks_begin_in_utc(instant: str, hour: str, day: str, week: str) -> None:
    def ms(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)

    at_ms = ms(instant)
    begins = [begin_of(span, at_ms) for span in ("hour", "day", "week")]
    assert begins == [ms(hour + ":00"), ms(day), ms(week)]


def test_old_rows_go_in_portions_and_their_sums_stay(ledger: Ledger) -> None:
    ledger.add([record(n, at_ms=AT_MS + n * HOUR_MS) for n in range(10)])
    assert ledger.prune(AT_MS + 5 * HOUR_MS, most=3) == 3
    assert ledger.prune(AT_MS + 5 * HOUR_MS) == 2
    assert ledger.prune(AT_MS + 5 * HOUR_MS) == 0
    assert rows(ledger) == 5
    assert sum(row["requests"] for row in sums(ledger)) == 10


def test_models_tell_when_they_were_first_seen_and_last_used(ledger: Ledger) -> None:
    ledger.add([record(1, at_ms=AT_MS)])
    ledger.add([record(2, at_ms=AT_MS - 5), record(3, at_ms=AT_MS + 9), record(4, model="big")])
    assert used_models(ledger) == [
        {"model": "big", "first_ms": AT_MS, "last_ms": AT_MS, "uses": 1},
        {"model": "tiny", "first_ms": AT_MS - 5, "last_ms": AT_MS + 9, "uses": 3},
    ]


def test_two_that_write_the_same_at_once(url: str) -> None:
    """Each of four opens the new file by itself, as processes would."""
    records = [record(number, user=str(number % 7)) for number in range(300)]

    def write(seed: int) -> int:
        ledger, chance, new = Ledger(url), random.Random(seed), 0
        for _ in range(10):
            new += ledger.add(chance.sample(records, 100))
        new += ledger.add(records)
        ledger.close()
        return new

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(write, range(4))) == 300
    ledger = Ledger(url)
    assert (rows(ledger), sums(ledger)[0]["requests"]) == (300, 300)
    ledger.close()


def test_a_transaction_that_breaks_leaves_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.open()

    def broken(_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(ledger_module, "_models_of", broken)
        with pytest.raises(MemoryError):
            ledger.add([record()])
    assert rows(ledger) == 0
    assert ledger.add([record()]) == 1
    assert sums(ledger)[0]["requests"] == 1


def test_one_that_cannot_be_written_does_not_hold_up_the_others(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    bad = record(2)
    bad.model = None  # type: ignore[assignment]
    assert ledger.add([record(1), bad, record(3)]) == 2
    assert "usage_unwritable record=p-2" in caplog.text
    assert "ada" not in caplog.text


def test_the_file_is_its_owners_and_on_disk_before_the_stream_forgets(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.add([record()])
    for file in (tmp_path / "state").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with ledger.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_newer_database_is_refused_by_who_writes_and_who_reads(url: str, ledger: Ledger) -> None:
    with ledger.transaction() as connection:
        connection.execute(update(schema).values(version=SCHEMA + 1))
    for writes in (True, False):
        with pytest.raises(UnfitLedger, match=f"version {SCHEMA + 1}"):
            Ledger(url, writes=writes).open()


def test_who_reads_makes_and_changes_nothing(url: str, tmp_path: Path) -> None:
    reader = Ledger(url, writes=False)
    with pytest.raises(LedgerUnavailable):
        sums(reader)
    assert not list(tmp_path.iterdir())
    Ledger(url).add([record()])
    assert sums(reader)[0]["requests"] == 1
    with pytest.raises(LedgerUnavailable):
        reader.add([record(2)])


def test_a_database_that_is_none_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    path.write_text("this is no database, and long enough to be seen as none" * 20)
    with pytest.raises(LedgerUnavailable):
        Ledger(f"sqlite:///{path}").open()


def test_a_locked_file_is_waited_for(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "LOCKED_S", 0.1)
    ledger.open()
    quick = Ledger(f"sqlite:///{tmp_path / 'state' / 'usage.db'}")
    other = sqlite3.connect(tmp_path / "state" / "usage.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailable):
        quick.add([record()])
    other.execute("COMMIT")
    other.close()
    assert quick.add([record()]) == 1


def test_too_many_rows_are_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("admission.accounting.reports.ROWS_MAX", 2)
    ledger.add([record(n, user=str(n)) for n in range(3)])
    with pytest.raises(TooManyRows):
        sums(ledger, by=("user",))
    assert len(sums(ledger, by=("user",), only=(("user", "1"),))) == 1
