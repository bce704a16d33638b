"""Up: why, how many, and within which bounds."""

import pytest
from msgspec.structs import replace

from admission.instance import INSTANCE_ID, State
from scheduler.autoscale import FleetSpec, Memory, decide
from tests.autoscale.scene import BOOT_MS, PLAIN, Scene, member


def test_a_load_that_fits_asks_for_nothing() -> None:
    scene = Scene(FleetSpec())
    scene.ready(3)
    decisions = scene.run(600, rate=0.6)  # 6 of 12 slots
    assert not any(decision.acts for decision in decisions)
    assert decisions[-1].reason.startswith("as it is: waits of at most 5 s")


def test_more_load_is_met_before_anybody_waits_long() -> None:
    scene = Scene(FleetSpec())
    scene.ready(3)
    scene.run(600, rate=0.6)
    scene.run(1200, rate=2.0)  # 20 slots
    assert 20 < scene.slots <= 32
    assert scene.waiting < 1


def test_booting_capacity_is_supply() -> None:
    scene = Scene(FleetSpec())
    scene.ready(1)
    scene.run(120, rate=0.2)
    first = scene.run(60, rate=1.5)
    ordered = sum(len(decision.launches) for decision in first)
    more = sum(len(decision.launches) for decision in scene.run(150, rate=1.5))
    assert ordered >= 4
    assert more <= 2  # the backlog still grows a little while they boot


def test_an_order_that_the_fleet_does_not_show_yet_is_supply_too() -> None:
    scene = Scene(FleetSpec(workers_min=2))
    first = scene.decide()
    assert len(first.launches) == 2
    scene.now_ms += 1000
    assert scene.decide().acts == 0  # the view is older than the order
    scene.now_ms += 60_000
    assert len(scene.decide().launches) == 2  # the order came to nothing


def test_the_estimated_wait_alone_is_reason_enough() -> None:
    """Counters that are missing forecast nothing; what the engine says still counts."""
    scene = Scene(FleetSpec(boot_ms=60_000))
    scene.ready(2)
    facts = {"arrived_total": None, "begun_total": None, "waiting": 14, "in_use": 8}
    assert not scene.decide(wait_ms=45_000, **facts).launches  # it may be over at once
    scene.now_ms += 35_000
    scene._live()
    decision = scene.decide(wait_ms=45_000, **facts)
    # 8 slots x 40 s over the target, within a boot of 60 s: 5.3 slots more
    assert len(decision.launches) == 2
    assert "the estimated wait is 45 s" in decision.reason
    scene.now_ms += 1000  # the fleet does not show them yet
    assert not scene.decide(wait_ms=45_000, **facts).launches


def test_slots_in_use_alone_are_reason_enough() -> None:
    scene = Scene(FleetSpec(saturation=0.9))
    scene.ready(2)
    facts = {"arrived_total": None, "begun_total": None, "in_use": 8}
    for _ in range(8):
        scene.decide(**facts)
        scene.now_ms += 10_000
        scene._live()
    decision = next(each for each in scene.history if each.launches)
    assert len(decision.launches) == 1
    assert "8.0 of 8 slots are in use" in decision.reason


def test_a_surge_is_met_at_once() -> None:
    scene = Scene(FleetSpec(workers_max=40))
    scene.ready(4)
    scene.run(900, rate=1.0)
    began = scene.now_ms
    while not scene.run(10, rate=4.0)[-1].launches:
        pass
    assert scene.now_ms - began <= 30_000
    assert "surge" in scene.history[-1].reason


@pytest.mark.parametrize(
    ("bounds", "most"),
    [
        ({"workers_max": 3}, 3),
        ({"hourly_budget": 4.5}, 4),
        ({}, 5),  # the place's quota
    ],
)
def test_bounds_hold_and_are_said(bounds: dict[str, float], most: int) -> None:
    place = PLAIN if bounds else replace(PLAIN, quota=5)
    scene = Scene(FleetSpec.of(bounds), places=(place,))
    scene.ready(1)
    scene.run(1200, rate=6.0)
    assert len(scene.members) == most
    assert "more is wanted, but" in scene.history[-1].reason


def test_more_than_a_pool_may_ever_grant_is_not_ordered() -> None:
    scene = Scene(FleetSpec(workers_max=100))
    scene.ready(1)
    for _ in range(60):
        scene._flow(6.0, 10_000)
        scene.now_ms += 10_000
        scene._live()
        scene.do(scene.decide(slots_most=10))
    assert len(scene.members) == 3


def test_a_drain_is_taken_back_before_anything_is_ordered() -> None:
    scene = Scene(FleetSpec(workers_min=3))
    kept = scene.ready(2)
    scene.members["d"] = member(
        "d", state=State.DRAINING, in_use=2, drain_by_ms=scene.now_ms + 60_000
    )
    decision = scene.decide()
    assert ([act.id for act in decision.undrains], decision.launches) == (["d"], ())
    scene.do(decision)
    assert scene.count(State.READY) == len(kept) + 1


@pytest.mark.parametrize(
    "facts",
    [
        {"drain_by_ms": 1},  # over
        {"ends_ms": 2_000_000_000_000},  # its provider takes it back
        {"heard_ms": None},  # silent
    ],
)
def test_a_drain_that_cannot_be_taken_back_is_left_alone(facts: dict[str, int | None]) -> None:
    scene = Scene(FleetSpec(workers_min=2))
    scene.ready(1)
    drained = member("d", state=State.DRAINING, in_use=1)
    scene.members["d"] = replace(drained, **facts)
    decision = scene.decide()
    assert (len(decision.undrains), len(decision.launches)) == (0, 1)


def test_who_comes_to_nobody_is_held_and_told_how_long_it_takes() -> None:
    scene = Scene(FleetSpec(boot_ms=BOOT_MS))
    assert scene.decide().cold_start_ms is None  # nobody is there
    scene.waiting, scene.arrived = 1, 1
    decision = scene.decide()
    assert (len(decision.launches), decision.cold_start_ms) == (1, BOOT_MS)
    scene.do(decision)
    scene.run(60)
    assert scene.history[-1].cold_start_ms == BOOT_MS - 60_000
    scene.run(180)
    assert scene.count(State.READY) == 1
    assert scene.history[-1].cold_start_ms is None


def test_a_boot_that_is_late_is_not_told_to_be_over() -> None:
    scene = Scene(FleetSpec(boot_ms=100_000))
    scene.members["a"] = member("a", state=State.BOOTING, now_ms=scene.now_ms - 500_000)
    assert scene.decide(waiting=1).cold_start_ms == 10_000


def test_what_a_boot_takes_is_learnt() -> None:
    scene = Scene(FleetSpec(workers_min=1, boot_ms=600_000))
    scene.run(300)
    assert scene.memory.boot.mean_ms == BOOT_MS


@pytest.mark.parametrize("took_ms", [0, -5_000])
def test_a_boot_that_took_no_time_is_no_trouble(took_ms: int) -> None:
    scene = Scene(FleetSpec())
    scene.ready(1, ready_ms=scene.now_ms + took_ms)
    scene.waiting = 9
    scene.run(60, rate=0.5)
    assert scene.memory.boot_ms(scene.spec) >= 1000


def test_people_who_wait_for_long_sessions_are_counted_once() -> None:
    """Each takes one slot and no more, however long they wait."""
    scene = Scene(FleetSpec(wait_target_ms=60_000, workers_max=100), held_ms=1_200_000)
    scene.ready(10)
    scene.run(3600, rate=0.025)  # 30 of 40 slots
    scene.waiting += 60
    scene.arrived += 60
    scene.run(120, rate=0.025)
    assert 90 <= sum(m.slots for m in scene.members.values()) <= 120


def test_names_are_those_of_instances_and_never_twice() -> None:
    for pool in ("default", "x" * 64, "-" * 64, "x" * 63 + "y"):
        scene = Scene(FleetSpec(pool=pool, workers_min=9))
        ids = [launch.id for launch in scene.decide().launches]
        scene.now_ms += 1
        scene.memory = Memory()
        ids += [launch.id for launch in scene.decide().launches]
        assert all(INSTANCE_ID.fullmatch(id) for id in ids)
        assert len(set(ids)) == 18
    one, other = (
        decide(
            scene.demand(),
            scene.fleet(),
            FleetSpec(pool=pool, workers_min=1),
            Memory(),
            scene.now_ms,
        )[0]
        for pool in ("x" * 64, "x" * 63 + "y")
    )
    assert one.launches[0].id != other.launches[0].id
