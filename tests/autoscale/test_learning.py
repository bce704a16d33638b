"""What is learnt counts once, and is not forgotten because somebody left."""

import pytest
from msgspec.structs import replace

from admission.instance import Instance, Order, State
from scheduler.autoscale import Demand, Fleet, FleetSpec
from scheduler.autoscale.places import Record, learn
from scheduler.autoscale.traffic import Traffic
from tests.autoscale.metrics import metrics

SPEC = FleetSpec()


def test_a_machine_that_failed_counts_once_whatever_becomes_of_it() -> None:
    order = Order("aws", type="g6", zone="a", market="spot")
    slow = Instance(
        "i-1", order, State.STARTUP_FAILED, 5, 40, 0, 1_000_000, 0, error_code="STARTUP_TIMEOUT"
    )
    ends = replace(slow, state=State.TERMINATING, since_ms=1_600_000)
    ended = replace(ends, ended_ms=1_660_000)
    other = replace(slow, id="i-2", since_ms=1_660_000)
    records: tuple[Record, ...] = ()
    for now_ms, seen in [
        (1_005_000, [slow]),
        (1_605_000, [ends]),
        (1_665_000, [ended]),
        (1_670_000, [ended, other]),
    ]:
        failures = Fleet.of(now_ms, seen, [], []).failures
        records = learn(records, failures, [], SPEC, now_ms)
    [record] = records
    assert (record.failures, record.closed_until_ms) == (2, 0)


def _watched(*came: int) -> Traffic:
    """After so many more in each look, five seconds apart."""
    traffic, arrived = Traffic(), 100
    for number, more in enumerate(came):
        arrived, now_ms = arrived + more, number * 5_000
        demand = Demand(
            at_ms=now_ms,
            waiting=0,
            in_use=4,
            capacity=8,
            arrived_total=arrived,
            begun_total=200 + number,
        )
        traffic = traffic.heard(demand, SPEC, now_ms)
    return traffic


def test_who_leaves_takes_nothing_back_of_what_was_learnt() -> None:
    usual = [int(not number % 12) for number in range(200)]
    before, after = _watched(*usual), _watched(*usual, -1, 1)
    assert before.rate is not None
    assert after.rate is not None
    assert after.seen_ms == before.seen_ms + 10_000
    assert after.rate < 2 * before.rate


def test_who_is_offered_a_slot_has_come() -> None:
    waits = Demand.of(metrics(waiting=3, admitted_total=7))
    drafted = Demand.of(metrics(waiting=2, draft=1, admitted_total=7))
    confirmed = Demand.of(metrics(waiting=2, admitted_total=8))
    assert waits.arrived_total == drafted.arrived_total == confirmed.arrived_total


def test_a_rate_that_grows_is_expected_to_grow_on_and_not_for_ever() -> None:
    """An hour in which every 12 minutes one more comes in each look: 10 % more in five minutes."""
    grows = _watched(*(number // 144 for number in range(720)))
    steady = _watched(*(4 for _ in range(720)))
    assert grows.rate is not None
    now, soon, late = (grows.rate_in(ms, SPEC) or 0.0 for ms in (0, 300_000, 1e9))
    assert 1.05 * now < soon < 1.15 * now < late <= 2 * now
    assert steady.rate_in(300_000, SPEC) == pytest.approx(4 / 5_000)
