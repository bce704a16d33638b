"""Knobs: bad ones are named and refused; office hours hold when the clock on the wall says."""

from datetime import UTC, datetime
from typing import Any

import pytest

from scheduler.autoscale import BadSpec, FleetSpec
from scheduler.autoscale.schedule import Hours, bounds
from scheduler.autoscale.spec import RANGES
from tests.autoscale.scene import Scene


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"workers_min": 3, "workers_max": 2}, "workers_min: 3 is above workers_max"),
        ({"workers_max": -1}, "workers_max: -1 is not between 0 and 10000"),
        ({"wait_target_ms": 5}, "wait_target_ms: 5 is not between 100 and 21600000"),
        ({"wait_target_ms": "5"}, "wait_target_ms: Expected `int | null`, got `str`"),
        ({"idle_load": 20}, "idle_load: 20.0 is not between 0 and 1"),
        ({"idle_after_ms": 900_000}, "idle_after_ms: 900000 is above surplus_after_ms"),
        ({"wait_target": 5}, "Object contains unknown field `wait_target`"),
        ({"hourly_budget": float("nan")}, "hourly_budget: nan is not between"),
        ({"schedule": [{"start": "9:00", "end": "17:00"}]}, "schedule[0]: start: '9:00' is not"),
        ({"schedule": [{"start": "09:00", "end": "24:30"}]}, "schedule[0]: end: '24:30' is not"),
        (
            {"schedule": [{"start": "09:00", "end": "17:00", "days": [7]}]},
            "schedule[0]: days: (7,)",
        ),
        (
            {"schedule": [{"start": "09:00", "end": "17:00", "timezone": "Mars/Base"}]},
            "schedule[0]: timezone: 'Mars/Base' is not known",
        ),
        (
            {"schedule": [{"start": "09:00", "end": "17:00", "workers_min": -1}]},
            "schedule[0]: workers_min: -1 is below 0",
        ),
    ],
)
def test_a_bad_knob_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(BadSpec) as error:
        FleetSpec.of(values)
    assert str(error.value).startswith(named)


def test_every_number_has_its_range() -> None:
    numbers = {
        name
        for name in FleetSpec.__struct_fields__
        if isinstance(getattr(FleetSpec(), name), int | float | None)
        and not isinstance(getattr(FleetSpec(), name), bool)
    }
    assert numbers == set(RANGES)


def test_what_is_left_out_goes_by_the_pools_kind() -> None:
    """A request is to begin within seconds; a session lasts, and a minute before it is little."""
    for session_ms, target_ms, held_ms in ((None, 5_000, 30_000), (600_000, 60_000, 600_000)):
        assert FleetSpec().target_ms(session_ms) == target_ms
        assert FleetSpec().turn_ms(session_ms) == held_ms
        chosen = FleetSpec(wait_target_ms=7_000, held_ms=9_000)
        assert (chosen.target_ms(session_ms), chosen.turn_ms(session_ms)) == (7_000, 9_000)


def test_who_sits_down_for_long_counts_as_long_from_the_first() -> None:
    """Before any session has ended: 8 of 8 slots, and nobody gets up within a boot."""
    wanted = {}
    for session_ms in (None, 1_200_000):
        scene = Scene(FleetSpec())
        scene.ready(2)
        scene.in_use = scene.begun = scene.arrived = 8
        for _ in range(2):
            scene.now_ms += 10_000
            scene._live()
            decision = scene.decide(session_ms=session_ms)
        wanted[session_ms] = decision.numbers["load"] or 0
        assert f"waits of at most {60 if session_ms else 5} s" in decision.reason
    assert wanted[None] < 1
    assert 6 < wanted[1_200_000] < 7


def test_the_first_who_comes_for_long_wants_one_machine() -> None:
    scene = Scene(FleetSpec())
    for _ in range(60):
        scene.now_ms += 10_000
        scene.waiting = scene.arrived = 1
        scene.do(scene.decide(session_ms=1_200_000))
    assert len(scene.members) == 1


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("moment", "holds"),
    [
        ("2027-01-15T06:59:59", False),  # a Friday, 07:59:59 in Berlin
        ("2027-01-15T07:00:00", True),
        ("2027-01-15T16:59:59", True),
        ("2027-01-15T17:00:00", False),
        ("2027-01-16T10:00:00", False),
        ("2027-07-15T06:00:00", True),  # a Thursday in summer: an hour earlier in UTC
        ("2027-07-15T05:59:59", False),
    ],
)
def test_office_hours_are_those_on_the_wall(moment: str, holds: bool) -> None:
    office = Hours(start="08:00", end="18:00", timezone="Europe/Berlin", workers_min=4)
    assert office.holds(at(moment)) is holds


@pytest.mark.parametrize(
    ("moment", "holds"),
    [
        ("2027-01-15T21:59:00", False),
        ("2027-01-15T22:00:00", True),
        ("2027-01-16T05:59:00", True),  # Saturday, but the night began on Friday
        ("2027-01-16T06:00:00", False),
        ("2027-01-16T22:00:00", False),
    ],
)
def test_hours_may_end_on_the_next_day(moment: str, holds: bool) -> None:
    assert Hours(start="22:00", end="06:00", days=(4,)).holds(at(moment)) is holds


def test_the_least_holds_a_boot_time_early_the_most_does_not() -> None:
    office = Hours(start="08:00", end="18:00", workers_min=4)
    closed = Hours(start="18:00", end="08:00", workers_max=1)
    early, late = at("2027-01-15T07:54:00"), at("2027-01-15T07:56:00")
    assert bounds((office,), 0, 10, early, 300_000) == (0, 10)
    assert bounds((office,), 0, 10, late, 300_000) == (4, 10)
    assert bounds((office, closed), 2, 10, at("2027-01-15T19:00:00"), 300_000) == (1, 1)
    assert bounds((office, closed), 0, 10, at("2027-01-15T09:00:00"), 300_000) == (4, 10)


def test_a_schedule_has_workers_ready_when_it_begins() -> None:
    office = Hours(start="08:10", end="09:00", workers_min=3)  # the scene begins at 08:00
    scene = Scene(FleetSpec(schedule=(office,), zero_after_ms=0))
    scene.run(290)
    assert not scene.members
    scene.run(310)
    assert scene.slots == 12
    scene.run(3600 + 900)
    assert not scene.members
