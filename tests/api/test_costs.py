"""What machines cost, how fast, and the budgets, over HTTP: for admins."""

import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from admission.accounting.budgets import Budget, look
from admission.accounting.cost import BY, HOUR_MS
from admission.accounting.ledger import Ledger
from admission.clock import ManualClock
from admission.openapi import VIEWS
from admission.store.fence import Fence
from scheduler.budgets import Budgets
from tests.accounting.conftest import record
from tests.accounting.test_costs import BEGIN_MS, billed, keep
from tests.api.calls import Caller, caller_of
from tests.api.conftest import Served
from tests.api.test_fleet_events import streamed
from tests.conftest import Service
from tests.fleet.words import happened, taken

DAY = "2026-11-18"
SPAN = f"from={DAY}&to=2026-11-19"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'usage.db'}")


@pytest.fixture
async def fence(redis: Redis, clock: ManualClock) -> Fence:
    return await taken(redis, clock, "a")


@pytest.fixture
async def charged(served: Served, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Service]:
    """A service over a database with two machines, of which one did something for two users."""
    keep(ledger, billed(hours=2), billed("i-2", price_per_hour=None))
    ledger.add(
        [
            record(1, worker="i-1", user="@ada", model="=1+1"),
            record(2, worker="i-1", user="bob", project="bio"),
        ]
    )
    ledger.close()
    async with served(VESTIBULE_STATE_DIR=str(tmp_path)) as service:
        yield service


async def get(service: Service, query: str = "", path: str = "/admin/costs") -> Any:
    admin = caller_of(service, service.admin_key)
    reply = await admin("GET", f"{path}?{query}")
    assert reply.status == 200, reply.text
    return reply


@pytest.mark.parametrize("path", ["/admin/costs", "/admin/costs/now"])
async def test_only_admins(call: Caller, path: str) -> None:
    assert (await call("GET", path)).status == 403
    assert (await call.with_key(None)("GET", path)).status == 401


async def test_costs_by_user(charged: Service) -> None:
    found = (await get(charged, f"{SPAN}&by=user")).json
    assert {name: found[name] for name in ("by", "from", "to")} == {
        "by": "user",
        "from": "2026-11-18T00:00:00.000Z",
        "to": "2026-11-19T00:00:00.000Z",
    }
    ada, bob, nobody = found["costs"]
    assert ada == {
        **dict.fromkeys(("begin", "pool", "model", "project", "key", "instance")),
        "user": "@ada",
        "currency": "USD",
        "cost": 0.5,
        "used": 0.5,
        "unused": 0,
        "prompt_tokens": 10,
        "completion_tokens": 5,
    }
    assert bob["user"] == "bob"
    assert (nobody["user"], nobody["cost"], nobody["unused"]) == (None, 1, 1)
    assert found["totals"] == [{"currency": "USD", "cost": 2, "used": 1, "unused": 1}]
    assert found["unpriced"] == {
        "instances": 1,
        "hours": 1,
        "prompt_tokens": 0,
        "completion_tokens": 0,
    }


@pytest.mark.parametrize("by", BY)
async def test_as_a_table_it_is_the_same(charged: Service, by: str) -> None:
    as_json = (await get(charged, f"{SPAN}&by={by}")).json["costs"]
    reply = await get(charged, f"{SPAN}&by={by}&format=csv")
    assert f'filename="costs-by-{by}.csv"' in reply.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    assert set(rows[0]) == set(VIEWS["CostRow"])
    for row, expected in zip(rows, as_json, strict=True):
        for name, value in expected.items():
            shown = "" if value is None else str(value)
            formula = isinstance(value, str) and value.startswith(("=", "@"))
            assert row[name] == (f"'{shown}" if formula else shown)
    assert sum(float(row["cost"]) for row in rows) == 2


async def test_hours_and_days_have_a_begin_and_the_default_is_pools(charged: Service) -> None:
    hours = (await get(charged, f"{SPAN}&by=hour")).json["costs"]
    assert [row["begin"] for row in hours] == [
        "2026-11-18T11:00:00.000Z",
        "2026-11-18T12:00:00.000Z",
    ]
    [day] = (await get(charged, f"{SPAN}&by=day")).json["costs"]
    assert (day["begin"], day["cost"]) == ("2026-11-18T00:00:00.000Z", 2)
    found = (await get(charged, SPAN)).json
    assert (found["by"], found["costs"][0]["pool"]) == ("pool", "default")
    part = (await get(charged, f"from={DAY}T11:59:00Z&to={DAY}T11:59:30Z&by=hour")).json
    assert [row["cost"] for row in part["costs"]] == [1], "whole hours"
    assert part["from"] == "2026-11-18T11:00:00.000Z"
    for odd in ("from=0001-01-01T00:00:00%2B14:00&to=2026-11-19", f"from={DAY}&to=9999-12-31"):
        assert (await get(charged, odd)).json["totals"][0]["cost"] == 2
    for empty in ("from=0001-01-01&to=0001-01-02", f"from={DAY}&to={DAY}", "to=9999-12-31"):
        assert (await get(charged, empty)).status == 200


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("by=colour", "by"),
        ("by=", "by"),
        ("format=xml", "format"),
        ("from=yesterday", "from"),
        ("to=2026-11-18T11:00", "to"),
        ("from=2026-11-19&to=2026-11-18", "from"),
        ("from=9999-12-31", "from"),
    ],
)
async def test_a_wrong_word_is_named(charged: Service, query: str, field: str) -> None:
    admin = caller_of(charged, charged.admin_key)
    reply = await admin("GET", f"/admin/costs?{query}")
    assert (reply.status, reply.json["field"]) == (422, field)


async def test_how_fast_and_how_the_budgets_stand(charged: Service, ledger: Ledger) -> None:
    running = msgspec.structs.replace(billed("i-3"), ended_ms=None)
    keep(ledger, running, first=9)
    budget = Budget(name="lab", amount=10, pool="default", per="day")
    now_ms = BEGIN_MS + 5 * HOUR_MS
    look(ledger, [budget], now_ms)
    found = (await get(charged, path="/admin/costs/now")).json
    [row] = found["burn"]
    assert (row["pool"], row["currency"], row["per_hour"], row["instances"]) == (
        "default",
        "USD",
        1,
        1,
    )
    assert row["month_expected"] >= row["month"] >= row["today"]
    [shown] = found["budgets"]
    assert set(shown) == set(VIEWS["Budget"])
    assert (shown["budget"], shown["pool"], shown["amount"]) == ("lab", "default", 10)
    assert shown["looked_at"] == "2026-11-18T16:00:00.000Z"
    ledger.close()


async def test_an_alarm_is_an_event_of_its_own_kind(
    admin: Caller, service: Service, fence: Fence, ledger: Ledger
) -> None:
    one = msgspec.structs.replace(billed(), ended_ms=None, launched_ms=service.clock.now_ms())
    await service.store.fleet.write(fence, one, 0, [happened(one)])
    keep(ledger, one)
    service.clock.advance_ms(6 * HOUR_MS)
    async with streamed(admin) as stream:
        await stream.block()
        budget = Budget(name="lab", amount=10)
        await Budgets(service.store.fleet, ledger, [budget]).run(fence)
        block = await stream.block()
    assert block["event"] == "budget"
    told = json.loads(block["data"])
    assert told["reason"].startswith("50% of the budget lab is spent: 6.00 of 10 USD this month")
    assert {name: told[name] for name in ("budget", "share", "spent", "amount", "pool")} == {
        "budget": "lab",
        "share": 0.5,
        "spent": 6,
        "amount": 10,
        "pool": None,
    }
    ledger.close()


async def test_without_a_database_it_says_so(served: Served, tmp_path: Path) -> None:
    async with served(VESTIBULE_STATE_DIR=str(tmp_path)) as service:
        admin = caller_of(service, service.admin_key)
        for path in ("/admin/costs", "/admin/costs/now"):
            reply = await admin("GET", path)
            assert (reply.status, reply.json["code"]) == (503, "ledger_unavailable")
