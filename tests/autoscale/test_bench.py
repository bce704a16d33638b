"""The benchmark's simulation: nothing is lost in it, bills are right, equal p95 means equal p95."""

from random import Random

import pytest

from bench.autoscale.day import BILLED_LEAST_S, PRICE, SLOTS, Day, Machine
from bench.autoscale.frontier import CONTENDERS, OURS, Row, cost_at
from bench.autoscale.peers import Fixed, resize
from bench.autoscale.traffic import WARM_S, Load


def load(rate: float = 1.0, held: float = 8.0, minutes: float = 40) -> Load:
    """Poisson arrivals, exponential turns; no trace is needed."""
    chance, at, requests = Random(7), 0.0, []
    while (at := at + chance.expovariate(rate)) < 60 * minutes:
        requests.append((at, chance.expovariate(1 / held)))
    return Load("made", "", requests, 60 * minutes)


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_policy_serves_everybody_and_the_same_twice(name: str) -> None:
    made, contender = load(), CONTENDERS[name]
    outcomes = []
    for _ in range(2):
        day = Day(made, seed=3)
        day.start(3)
        outcomes.append(day.play(contender.make(contender.values[4])))
    assert outcomes[0] == outcomes[1]
    counted = sum(at >= WARM_S for at, _ in made.requests)
    assert len(outcomes[0].waits) == counted
    assert day.begun == len(made.requests)
    assert not day.in_use
    assert 0 < outcomes[0].use < 1.2


def test_ours_follows_a_load_that_doubles() -> None:
    early = load(1.0)
    later = [(at + early.ends, held) for at, held in load(2.0).requests]
    day = Day(Load("made", "", early.requests + later, 2 * early.ends), seed=3)
    day.start(3)
    day.play(CONTENDERS[OURS].make(5.0))
    assert len(day.ready) in (5, 6)


def test_a_fixed_fleet_costs_what_it_costs() -> None:
    day = Day(load(minutes=75), seed=1)
    day.start(3)
    outcome = day.play(Fixed(3))
    assert outcome.cost == pytest.approx(3 * PRICE)  # an hour after the warm-up
    assert outcome.launches == 3


def test_a_machine_that_ends_at_once_is_billed_a_minute() -> None:
    class Fickle:
        every = 1000.0

        def look(self, day: Day) -> None:
            resize(day, 2)
            resize(day, 1)

    day = Day(load(0.1, minutes=75), seed=1)
    day.start(1)
    outcome = day.play(Fickle())
    ordered = sum(1 for at in (1300.0, 2300.0, 3300.0, 4300.0) if at < 75 * 60)
    assert outcome.cost == pytest.approx((3600 + ordered * BILLED_LEAST_S) * PRICE / 3600)


def test_what_drains_finishes_and_what_is_taken_back_serves_again() -> None:
    made = Load("made", "", [(400.0, 100.0), (450.0, 10.0), (460.0, 10.0)], 1000.0)
    seen: list[tuple[float, int, Machine]] = []

    class Hesitant:
        every = 20.0

        def look(self, day: Day) -> None:
            (machine,) = day.machines
            if day.now == 420:
                day.drain(machine)
            if day.now == 480:
                day.undrain(machine)
            seen.append((day.now, day.in_use, machine))

    day = Day(made, seed=1)
    day.start(1)
    day.play(Hesitant())
    assert [in_use for now, in_use, _ in seen if now in (440, 460, 480, 500)] == [1, 1, 3, 1]
    assert day.machines[0].ended is None
    assert SLOTS >= 3


def test_costs_are_compared_at_equal_p95() -> None:
    def row(cost: float, p95: float) -> Row:
        return Row("x", 0, cost, 0, p95, 0, 1, 0)

    rows = [row(10, 9), row(20, 0), row(15, 9.5), row(4, 601), row(12, 9)]
    assert cost_at(rows, 0) == 20
    assert cost_at(rows, 9) == pytest.approx(10)
    assert cost_at(rows, 10**0.5 - 1) == pytest.approx(15)  # half way in log(p95 + 1)
    assert cost_at(rows, 100) == 10  # a queue that collapsed leads nowhere
    assert cost_at([row(10, 9)], 8) is None
    assert cost_at([row(4, 601)], 700) is None
