"""Up: why, how many, and within which bounds."""

import math

import pytest
from msgspec.structs import replace

from admission.decided import Short
from admission.instance import INSTANCE_ID, State
from scheduler.autoscale import FleetSpec, Memory, decide
from scheduler.autoscale.decision import Why
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


@pytest.mark.parametrize(("boots", "more"), [(1.0, 12), (0.5, 24), (4.0, 3)])
def test_the_excess_is_cleared_within_one_boot_time(boots: float, more: int) -> None:
    """8 slots serve 240 turns of 10 s in a boot of 300 s; 12 more serve the other 360 in the
    next."""
    scene = Scene(FleetSpec(boot_ms=300_000, held_ms=10_000, clear_boots=boots, up_after_ms=0))
    scene.ready(2)
    facts = {"waiting": 600, "in_use": 8, "arrived_total": None, "begun_total": None}
    decision = scene.decide(wait_ms=None, **facts)
    assert decision.numbers["backlog"] == 360
    assert decision.numbers["wanted_slots"] == 8 + more
    assert len(decision.launches) == math.ceil(more / 4)


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
    ("bounds", "most", "why"),
    [
        ({"workers_max": 3}, 3, Why(Short.WORKERS_MAX, "3 workers are the most")),
        (
            {"hourly_budget": 4.5},
            4,
            Why(Short.BUDGET, "the budget of 4.5 an hour has no room for 1 more"),
        ),
        ({}, 5, Why(Short.QUOTA, "aws may have no more machines")),
    ],
)
def test_bounds_hold_and_are_said(bounds: dict[str, float], most: int, why: Why) -> None:
    place = PLAIN if bounds else replace(PLAIN, quota=5)
    scene = Scene(FleetSpec.of(bounds), places=(place,))
    scene.ready(1)
    scene.run(1200, rate=6.0)
    assert len(scene.members) == most
    last = scene.history[-1]
    assert last.short == why
    assert last.reason.startswith(f"more is wanted, but {why.words}: ")
    assert any(each.launches and each.short == why for each in scene.history)


def test_a_providers_room_is_for_all_of_its_places_together() -> None:
    places = (PLAIN, replace(PLAIN, zone="b"), replace(PLAIN, provider="rack", price_per_hour=9.0))
    scene = Scene(FleetSpec(workers_min=9), places=places)
    rooms = {"aws": 3, "rack": 2}
    decision, memory = decide(
        scene.demand(), scene.fleet(rooms=rooms), scene.spec, Memory(), scene.now_ms
    )
    assert [launch.place.provider for launch in decision.launches] == ["aws"] * 3 + ["rack"] * 2
    assert decision.short == Why(Short.QUOTA, "aws, rack may have no more machines")
    assert decision.reason.endswith("; no more, aws, rack may have no more machines")
    assert len(memory.pending) == 5
    again, _ = decide(
        scene.demand(), scene.fleet(rooms=rooms), scene.spec, memory, scene.now_ms + 1
    )
    assert not again.launches, "what is ordered and not seen yet takes its part"


def test_not_all_is_ordered_at_once() -> None:
    scene = Scene(FleetSpec(workers_min=60, workers_max=99))
    first = scene.decide()
    assert (len(first.launches), first.short) == (50, None)
    scene.do(first)
    scene.now_ms += 5_000
    assert len(scene.decide().launches) == 10


def _capped(scene: Scene, rate: float, slots_most: int, seconds: int = 600) -> None:
    for _ in range(seconds // 10):
        scene._flow(rate, 10_000)
        scene.now_ms += 10_000
        scene._live()
        scene.do(scene.decide(slots_most=slots_most))


def test_more_than_a_pool_may_ever_grant_is_not_ordered_and_that_is_said() -> None:
    scene = Scene(FleetSpec(workers_max=100))
    scene.ready(1)
    _capped(scene, 6.0, slots_most=10)
    assert len(scene.members) == 3
    last = scene.history[-1]
    assert last.short == Why(
        Short.SLOTS_MOST, "MAX_ACTIVE_USERS lets no more than 10 slots be used"
    )
    assert "more is wanted" in last.reason
    assert (last.numbers["slots_most"], last.numbers["supply_slots"]) == (10, 12)
    assert (last.numbers["wanted_slots"] or 0) > 60


def test_workers_whose_slots_nobody_may_use_go_also_while_more_is_wanted() -> None:
    scene = Scene(FleetSpec(workers_max=100))
    scene.ready(10)
    scene.in_use = 10
    crowd = {"slots_most": 10, "in_use": 10, "waiting": 100, "wait_ms": 600_000}
    for _ in range(60):
        scene.now_ms += 10_000
        scene._live()
        scene.do(scene.decide(**crowd))
        scene.members = {id: m for id, m in scene.members.items() if m.state == State.READY}
    assert len(scene.members) == 3
    assert scene.history[-1].short


def test_the_least_is_there_whatever_the_slots_are_good_for() -> None:
    scene = Scene(FleetSpec(workers_min=2))
    assert len(scene.decide(slots_most=4).launches) == 2


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
