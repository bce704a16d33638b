"""What an admin sees of the scheduler: its duties and who does them, and the past of pools."""

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from admission.accounting.history import Sample, keep
from admission.accounting.ledger import Ledger
from admission.attendance import file_tick
from admission.store.tick_store import LEASE_MS, LastRun, Word
from tests.accounting.conftest import MINUTE_MS, record
from tests.api.calls import Caller, caller_of
from tests.api.conftest import Served
from tests.conftest import Service

NOON_MS = 1_795_003_200_000  # 2026-11-18T12:00:00Z


@pytest.mark.parametrize("path", ["/admin/ticks", "/admin/history"])
async def test_only_admins(call: Caller, path: str) -> None:
    assert (await call("GET", path)).status == 403
    assert (await call.with_key(None)("GET", path)).status == 401


async def test_ticks_with_holder_last_run_and_last_error(service: Service) -> None:
    admin = caller_of(service, service.admin_key)
    assert (await admin("GET", "/admin/ticks")).json == {"ticks": [], "warnings": []}
    leases = await service.store.ticks.beat("host-1", {"drain": Word(1000), "prune": Word(600_000)})
    epoch = leases["prune"].epoch
    last = LastRun(1500, 250, 598_250, "LedgerUnavailable: away")
    word = Word(600_000, epoch, runs=2, failures=1, last=last, running_ms=100)
    await service.store.ticks.beat("host-1", {"prune": word})
    drain, prune = (await admin("GET", "/admin/ticks")).json["ticks"]
    assert drain == {
        "name": "drain",
        "holder": "host-1",
        "epoch": leases["drain"].epoch,
        "period": 1.0,
        "next_due": "2027-01-15T08:00:00.000Z",
        "running_since": None,
        "last_run": None,
        "last_duration": None,
        "last_success": None,
        "last_error": None,
        "last_error_at": None,
        "runs": 0,
        "failures": 0,
    }
    assert prune == {
        "name": "prune",
        "holder": "host-1",
        "epoch": epoch,
        "period": 600.0,
        "next_due": "2027-01-15T08:09:58.250Z",
        "running_since": "2027-01-15T07:59:59.900Z",
        "last_run": "2027-01-15T07:59:58.500Z",
        "last_duration": 0.25,
        "last_success": None,
        "last_error": "LedgerUnavailable: away",
        "last_error_at": "2027-01-15T07:59:58.500Z",
        "runs": 2,
        "failures": 1,
    }
    service.clock.advance_ms(LEASE_MS)
    again = (await admin("GET", "/admin/ticks")).json["ticks"]
    assert [each["holder"] for each in again] == [None, None]


async def test_schedulers_with_different_fleet_files_are_a_warning(service: Service) -> None:
    admin = caller_of(service, service.admin_key)
    for owner, digest in (("host-1", "aaaa"), ("host-2", "aaaa"), ("host-3", "bbbb")):
        assert (await admin("GET", "/admin/ticks")).json["warnings"] == []
        await service.store.ticks.beat(owner, {file_tick(digest): Word(1000)})
    [words] = (await admin("GET", "/admin/ticks")).json["warnings"]
    assert words.endswith("each does what its own says: host-1 has aaaa, host-3 has bbbb")
    service.clock.advance_ms(LEASE_MS)
    assert (await admin("GET", "/admin/ticks")).json == {"ticks": [], "warnings": []}


@pytest.fixture
async def past(served: Served, tmp_path: Path) -> AsyncIterator[Caller]:
    """An admin of a service with three minutes of history."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'usage.db'}")
    ledger.add([record(1, at_ms=NOON_MS + 10)])
    for minute in range(3):
        pool = Sample("default", "", 1, 4, 2 * minute, minute, wait_ms=1500, gpu_load=0.25)
        worker = Sample("default", "w-1", 1, 2, minute, 0)
        begin_ms = NOON_MS + minute * MINUTE_MS
        end_ms = begin_ms + MINUTE_MS
        keep(ledger, [pool, worker], begin_ms=begin_ms, end_ms=end_ms, forget_ms=0)
    ledger.close()
    async with served(VESTIBULE_STATE_DIR=str(tmp_path)) as service:
        yield caller_of(service, service.admin_key)


async def test_the_history_of_a_pool(past: Caller) -> None:
    reply = (await past("GET", "/admin/history?from=2026-11-18&step=60")).json
    assert (reply["step"], len(reply["history"])) == (60, 3)
    assert reply["history"][0] == {
        "begin": "2026-11-18T12:00:00.000Z",
        "pool": "default",
        "worker": None,
        "ready": 1.0,
        "slots": 4.0,
        "busy": 0.0,
        "use": 0.0,
        "waiting": 0.0,
        "waiting_max": 0,
        "estimated_wait": 1.5,
        "gpu_load": 0.25,
        "gpu_memory": None,
        "requests": 1,
        "completion_tokens": 5,
        "queued": 0.1,
        "first_token": 0.2,
        "duration": 0.7,
    }
    assert [row["use"] for row in reply["history"]] == [0, 0.5, 1]
    [row] = (await past("GET", "/admin/history?from=2026-11-18")).json["history"]
    assert (row["busy"], row["waiting_max"], row["queued"]) == (2, 2, 0.1)
    later = "/admin/history?from=2026-11-18T12:01:00Z&to=2026-11-18T12:02:00Z&step=60"
    assert len((await past("GET", later)).json["history"]) == 1
    assert (await past("GET", "/admin/history?from=2026-11-18&pool=other")).json["history"] == []


@pytest.mark.parametrize("worker", ["w-1", "*"])
async def test_the_history_of_workers_as_a_table(past: Caller, worker: str) -> None:
    reply = await past("GET", f"/admin/history?from=2026-11-18&step=60&worker={worker}&format=csv")
    assert reply.kind == "text/csv"
    assert 'filename="history.csv"' in reply.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    assert [(row["worker"], row["busy"], row["gpu_load"]) for row in rows] == [
        ("w-1", "0.0", ""),
        ("w-1", "1.0", ""),
        ("w-1", "2.0", ""),
    ]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("step=0", "step"),
        ("step=x", "step"),
        ("step=86401", "step"),
        ("pool=A", "pool"),
        ("worker=a/b", "worker"),
        ("from=yesterday", "from"),
        ("to=2026-11-18T12:00", "to"),
        ("format=xml", "format"),
    ],
)
async def test_a_wrong_field_is_named(service: Service, query: str, field: str) -> None:
    admin = caller_of(service, service.admin_key)
    reply = await admin("GET", f"/admin/history?{query}")
    assert (reply.status, reply.fields) == (422, {field})


async def test_without_a_database_it_says_so(service: Service) -> None:
    admin = caller_of(service, service.admin_key)
    reply = await admin("GET", "/admin/history")
    assert (reply.status, reply.json["code"]) == (503, "ledger_unavailable")
