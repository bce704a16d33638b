"""What one machine costs: by the time it is billed, exactly, and never a guess."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission.accounting.cost import HOUR_MS, MICRO, Uptime, divide
from admission.instance import Order
from tests.accounting.conftest import AT_MS
from tests.fleet.words import machine

BEGIN_MS = AT_MS // HOUR_MS * HOUR_MS
NEVER_MS = 2**60
DOLLAR = 1 * MICRO


def uptime(**changes: Any) -> Uptime:
    """A machine at a dollar an hour, billed from BEGIN_MS on."""
    given = {"instance_id": "i-1", "price_per_hour": 1.0, "launched_ms": BEGIN_MS, **changes}
    return Uptime(**given)


def total(one: Uptime, now_ms: int = NEVER_MS) -> int:
    return one.cost(0, NEVER_MS, now_ms)


def test_it_costs_its_price_for_as_long_as_it_is_billed() -> None:
    assert total(uptime(ended_ms=BEGIN_MS + 2 * HOUR_MS)) == 2 * DOLLAR
    assert total(uptime(), now_ms=BEGIN_MS + HOUR_MS // 2) == DOLLAR // 2
    assert total(uptime(price_per_hour=0.0), now_ms=NEVER_MS) == 0
    assert total(uptime(price_per_hour=0.000001), now_ms=BEGIN_MS + HOUR_MS) == 1


def test_of_a_time_only_what_lies_in_it() -> None:
    one = uptime(ended_ms=BEGIN_MS + 3 * HOUR_MS)
    assert one.cost(BEGIN_MS + HOUR_MS, BEGIN_MS + 2 * HOUR_MS, NEVER_MS) == DOLLAR
    assert one.cost(BEGIN_MS - HOUR_MS, BEGIN_MS + HOUR_MS, NEVER_MS) == DOLLAR
    assert one.cost(BEGIN_MS + 3 * HOUR_MS, NEVER_MS, NEVER_MS) == 0
    assert one.cost(NEVER_MS, 0, NEVER_MS) == 0


def test_what_is_billed_at_least_is_billed_of_one_that_ended_sooner() -> None:
    one = uptime(ended_ms=BEGIN_MS + 10_000, least_ms=60_000, price_per_hour=60.0)
    assert total(one) == DOLLAR
    assert total(one, now_ms=BEGIN_MS + 30_000) == DOLLAR // 2, "what is not over is not told"
    assert total(msgspec.structs.replace(one, ended_ms=BEGIN_MS + 90_000)) == DOLLAR * 3 // 2


@pytest.mark.parametrize("ended_ms", [BEGIN_MS - HOUR_MS, BEGIN_MS, 0, -5])
def test_one_that_ended_before_it_began_costs_nothing(ended_ms: int) -> None:
    one = uptime(ended_ms=ended_ms)
    assert total(one) == 0
    assert list(one.hours(0, NEVER_MS, NEVER_MS)) == []
    assert total(msgspec.structs.replace(one, least_ms=60_000)) == DOLLAR // 60


def test_a_clock_that_went_back_takes_nothing_back() -> None:
    assert total(uptime(), now_ms=BEGIN_MS - HOUR_MS) == 0
    assert uptime(ended_ms=BEGIN_MS + HOUR_MS).end_ms(BEGIN_MS + 1) == BEGIN_MS + 1


@pytest.mark.parametrize("price", [None, math.nan, math.inf, -1.0])
def test_a_price_that_is_none_is_not_0(price: float | None) -> None:
    assert not uptime(price_per_hour=price).is_priced
    assert uptime(price_per_hour=price).per_hour == 0
    assert uptime(price_per_hour=0.0).is_priced


def test_the_largest_there_can_be() -> None:
    one = uptime(price_per_hour=1e9, launched_ms=0, ended_ms=100 * 365 * 24 * HOUR_MS)
    assert total(one) == 100 * 365 * 24 * 1_000_000_000 * MICRO


def test_an_instance_is_billed_from_its_launch() -> None:
    order = Order("aws", "gpu", "g5", price_per_hour=2.0, currency="EUR", billed_least_s=60)
    assert Uptime.of(machine(order=order)) is None
    one = Uptime.of(machine(order=order, launched_ms=5, ended_ms=9, worker_id="rack-1"))
    assert one == Uptime(
        instance_id="i-1",
        worker="rack-1",
        provider="aws",
        pool="gpu",
        type="g5",
        currency="EUR",
        price_per_hour=2.0,
        launched_ms=5,
        ended_ms=9,
        least_ms=60_000,
    )
    other = Uptime.of(machine(launched_ms=5))
    assert other is not None
    assert (other.worker, other.price_per_hour) == ("i-1", None)


spans = st.integers(0, 100 * HOUR_MS)


@given(
    st.floats(0, 1e6, allow_nan=False),
    spans,
    st.none() | spans,
    st.sampled_from([0, 60_000, 3 * HOUR_MS]),
    st.lists(spans, min_size=2, max_size=8),
    spans,
)
def test_the_parts_of_a_time_come_to_the_whole(
    price: float, began: int, ended: int | None, least: int, cuts: list[int], now: int
) -> None:
    one = uptime(price_per_hour=price, launched_ms=began, ended_ms=ended, least_ms=least)
    cuts.sort()
    whole = one.cost(cuts[0], cuts[-1], now)
    assert sum(one.cost(a, b, now) for a, b in zip(cuts, cuts[1:], strict=False)) == whole
    hours = list(one.hours(cuts[0], cuts[-1], now))
    assert sum(micro for _, micro in hours) == whole
    assert [hour for hour, _ in hours] == sorted({hour for hour, _ in hours})
    assert all(micro >= 0 and hour % HOUR_MS == 0 for hour, micro in hours)


@given(
    st.integers(0, 10**18),
    st.lists(st.floats(0, 1e15, allow_nan=False), min_size=1, max_size=50).filter(any),
)
def test_shares_come_to_exactly_what_is_shared(whole: int, weights: list[float]) -> None:
    parts = divide(whole, weights)
    assert sum(parts) == whole
    assert min(parts) >= 0
    assert [part for part, weight in zip(parts, weights, strict=True) if not weight and part] == []


def test_shares_are_as_large_as_their_weights() -> None:
    assert divide(100, [1, 3]) == [25, 75]
    assert divide(10, [1, 1, 1]) == [3, 4, 3]
    assert divide(7, [0, 5, 0]) == [0, 7, 0]
