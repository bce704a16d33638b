"""The budgets' tick: an alarm is told once, whoever dies where, and however many look."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from admission.accounting import budgets, uptimes
from admission.accounting.budgets import Alarm, Budget
from admission.accounting.cost import HOUR_MS
from admission.accounting.ledger import Ledger
from admission.clock import ManualClock
from admission.errors import StoreUnavailable
from admission.instance import BUDGET_ALARM, Instance, State
from admission.store.fence import Fence, Fenced
from admission.store.fleet_store import FleetStore
from scheduler.budgets import Budgets
from tests.accounting.test_costs import billed, keep
from tests.fleet.words import happened, taken

BUDGET = Budget(name="lab", amount=4, per="month")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'usage.db'}")
    yield ledger
    ledger.close()


@pytest.fixture
def fleet(redis: Redis, clock: ManualClock) -> FleetStore:
    return FleetStore(redis, clock)


@pytest.fixture
async def fence(redis: Redis, clock: ManualClock) -> Fence:
    return await taken(redis, clock, "one")


def running(ledger: Ledger, clock: ManualClock) -> Instance:
    """A machine at a dollar an hour, from now on."""
    one = msgspec.structs.replace(billed(), ended_ms=None, launched_ms=clock.now_ms())
    keep(ledger, one)
    return one


async def known(fleet: FleetStore, fence: Fence, ledger: Ledger, clock: ManualClock) -> None:
    """The same, in Redis too; its history is not there any more."""
    one = running(ledger, clock)
    await fleet.write(fence, one, 0, [happened(one)])


async def told(fleet: FleetStore) -> list[tuple[str, Any]]:
    return [
        (entry.event.detail["budget"], entry.event.detail["share"])
        for entry in await fleet.history()
        if entry.event.name == BUDGET_ALARM
    ]


async def test_an_alarm_is_logged_and_told_once(
    ledger: Ledger,
    fleet: FleetStore,
    fence: Fence,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await known(fleet, fence, ledger, clock)
    for _ in range(3):
        await Budgets(fleet, ledger, [BUDGET]).run(fence)  # each time as if it were started anew
    assert await told(fleet) == []
    clock.advance_ms(2 * HOUR_MS)
    for _ in range(3):
        await Budgets(fleet, ledger, [BUDGET]).run(fence)
    assert await told(fleet) == [("lab", 0.5)]
    [_, entry] = await fleet.history()
    assert entry.event.reason.startswith("50% of the budget lab is spent: 2.00 of 4 USD this month")
    assert entry.event.detail["used_up_at"]
    assert caplog.text.count("budget_alarm budget=lab") == 1
    clock.advance_ms(10 * HOUR_MS)
    await Budgets(fleet, ledger, [BUDGET]).run(fence)
    assert await told(fleet) == [("lab", 0.5), ("lab", 0.8), ("lab", 1.0)]


@pytest.mark.parametrize("step", ["before it is told", "after it was told", "of its reply"])
async def test_a_crash_at_any_step_neither_loses_nor_doubles_one(
    ledger: Ledger,
    fleet: FleetStore,
    fence: Fence,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    await known(fleet, fence, ledger, clock)
    clock.advance_ms(5 * HOUR_MS)
    tell, mark = fleet.tell, budgets.tell

    async def crash(*words: Any) -> None:
        if step == "of its reply":
            await tell(*words)
        raise StoreUnavailable

    def crash_after(ledger: Ledger, alarm: Alarm) -> None:
        raise StoreUnavailable

    if step == "after it was told":
        monkeypatch.setattr(budgets, "tell", crash_after)
    else:
        monkeypatch.setattr(fleet, "tell", crash)
    with pytest.raises(StoreUnavailable):
        await Budgets(fleet, ledger, [BUDGET]).run(fence)
    monkeypatch.setattr(budgets, "tell", mark)
    monkeypatch.setattr(fleet, "tell", tell)
    await fleet.note(fence, [happened("i-9", "meanwhile")])
    await Budgets(fleet, ledger, [BUDGET]).run(fence)
    assert await told(fleet) == [("lab", 0.5), ("lab", 0.8), ("lab", 1.0)]


async def test_two_that_look_at_once_and_one_that_slept(
    ledger: Ledger,
    fleet: FleetStore,
    fence: Fence,
    redis: Redis,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await known(fleet, fence, ledger, clock)
    clock.advance_ms(3 * HOUR_MS)
    two = [Budgets(fleet, ledger, [BUDGET]).run(fence) for _ in range(2)]
    await asyncio.gather(*two)
    assert await told(fleet) == [("lab", 0.5)]
    clock.advance_ms(HOUR_MS)
    other = await taken(redis, clock, "two")
    assert other.epoch != fence.epoch
    with pytest.raises(Fenced):
        await Budgets(fleet, ledger, [BUDGET]).run(fence)
    assert len(await told(fleet)) == 1
    await Budgets(fleet, ledger, [BUDGET]).run(other)
    assert len(await told(fleet)) == 3
    assert caplog.text.count("budget_alarm") == 3


async def test_what_redis_forgot_is_not_billed_for_ever(
    ledger: Ledger,
    fleet: FleetStore,
    fence: Fence,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = msgspec.structs.replace(billed("i-2"), state=State.READY, ended_ms=None)
    await fleet.write(fence, other, 0, [happened(other)])
    running(ledger, clock)
    keep(ledger, other, first=2)
    for _ in range(2):
        await Budgets(fleet, ledger, []).run(fence)
    assert uptimes.running(ledger) == {"i-2"}
    assert caplog.text.count("instance_forgotten instance_id=i-1") == 1


async def test_a_budget_that_is_taken_out_is_shown_no_more(
    ledger: Ledger, fleet: FleetStore, fence: Fence, clock: ManualClock
) -> None:
    await Budgets(fleet, ledger, [BUDGET]).run(fence)
    assert len(budgets.standings(ledger, clock.now_ms())) == 1
    await Budgets(fleet, ledger, []).run(fence)
    assert budgets.standings(ledger, clock.now_ms()) == []
