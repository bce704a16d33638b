"""Down: when, who first, and who never."""

import pytest
from msgspec.structs import replace

from admission.instance import State
from scheduler.autoscale import FleetSpec
from tests.autoscale.scene import BOOT_MS, PLAIN, SPOT, Scene, member


def shrunk(scene: Scene, seconds: float, rate: float = 0.0) -> float | None:
    """Seconds until the first drain, or None."""
    began = scene.now_ms
    for _ in range(round(seconds / 10)):
        if any(decision.drains for decision in scene.run(10, rate)):
            return (scene.now_ms - began) / 1000
    return None


def test_a_surplus_goes_after_the_time_that_is_asked_and_not_before() -> None:
    scene = Scene(FleetSpec(surplus_after_ms=600_000))
    scene.ready(6)
    after = shrunk(scene, 900, rate=0.8)
    assert after is not None
    assert 600 <= after <= 650
    scene.run(300, rate=0.8)
    assert 8 < scene.slots <= 16


def test_with_idle_gpus_it_goes_sooner() -> None:
    scene = Scene(FleetSpec(surplus_after_ms=600_000, idle_after_ms=300_000))
    scene.gpu_load = 0.1
    scene.ready(6)
    after = shrunk(scene, 900, rate=0.1)
    assert after is not None
    assert 300 <= after <= 330


def test_unknown_gpu_load_is_not_idle() -> None:
    scene = Scene(FleetSpec(surplus_after_ms=600_000, idle_after_ms=300_000))
    scene.gpu_load = None
    scene.ready(6)
    after = shrunk(scene, 900, rate=0.1)
    assert after is not None
    assert after >= 600


def test_where_there_are_no_gpus_they_are_not_asked() -> None:
    scene = Scene(FleetSpec(idle_load=None, surplus_after_ms=600_000, idle_after_ms=300_000))
    scene.gpu_load = None
    scene.ready(6)
    after = shrunk(scene, 900, rate=0.1)
    assert after is not None
    assert after < 350


def test_what_was_wanted_lately_stays() -> None:
    scene = Scene(FleetSpec(surplus_after_ms=900_000))
    scene.ready(6)
    scene.run(1800, rate=1.9)
    after = shrunk(scene, 2400, rate=1.35)  # too little of a fall to be a slump
    assert after is not None
    assert after >= 900


def test_after_a_surge_it_goes_sooner() -> None:
    """A fall by two thirds, and by more than chance, is no dip."""
    after = {}
    for fall in (0.4, 1.35):
        scene = Scene(FleetSpec(surplus_after_ms=900_000, idle_after_ms=180_000))
        scene.ready(6)
        scene.run(1800, rate=1.9)
        after[fall] = shrunk(scene, 2400, rate=fall) or 0
    assert 180 <= after[0.4] <= 240
    assert after[1.35] >= 900


def test_while_somebody_waits_too_long_nobody_goes() -> None:
    """Whatever the formula says: the engine knows better why they wait."""
    for wait_ms, session_ms, leaves in (
        (60_000, None, False),
        (1_000, None, True),
        (30_000, 10_000, True),  # in a pool of sessions that is not too long
    ):
        scene = Scene(FleetSpec())
        scene.ready(5)
        scene.run(340, rate=0.1)
        drains = 0
        for _ in range(20):
            scene.now_ms += 10_000
            scene._live()
            facts = {"waiting": 1, "wait_ms": wait_ms, "session_ms": session_ms}
            drains += len(scene.decide(**facts).drains)
        assert bool(drains) is leaves


def test_never_under_the_least() -> None:
    scene = Scene(FleetSpec(workers_min=2))
    scene.ready(5)
    scene.run(3600)
    assert len(scene.members) == 2


def test_the_last_one_goes_only_after_nobody_came_for_long() -> None:
    scene = Scene(FleetSpec(zero_after_ms=1_800_000))
    scene.ready(3)
    scene.run(600, rate=0.2)
    scene.waiting = scene.in_use = 0
    scene.run(1500)
    assert len(scene.members) == 1
    scene.run(600)
    assert not scene.members


def test_a_loading_one_that_is_still_wanted_is_never_picked() -> None:
    scene = Scene(FleetSpec())
    scene.ready(2)
    scene.run(600, rate=0.7)
    scene.run(90, rate=1.6)
    loading = {id for id, m in scene.members.items() if m.loading}
    assert loading
    scene.run(BOOT_MS / 1000 + 20, rate=1.6)
    assert loading <= set(scene.members)
    assert all(scene.members[id].state == State.READY for id in loading)


def test_a_loading_one_that_is_not_wanted_any_more_ends_first() -> None:
    scene = Scene(FleetSpec(surplus_after_ms=300_000))
    scene.ready(3)
    scene.run(300, rate=0.5)
    scene.members["late"] = member("late", state=State.BOOTING, now_ms=scene.now_ms + 900_000)
    first = next(each for each in scene.run(60, rate=0.5) if each.acts)
    assert [act.id for act in first.terminations] == ["late"]
    assert "still loads" in first.terminations[0].reason


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"price_per_hour": 2.0, "in_use": 3}, {"price_per_hour": 1.0, "in_use": 0}),
        ({"in_use": 0, "gpu_load": 0.9}, {"in_use": 2, "gpu_load": 0.1}),
        ({"gpu_load": 0.1, "ready_ms": 1}, {"gpu_load": 0.9, "ready_ms": 2}),
        ({"ready_ms": 2}, {"ready_ms": 1}),
    ],
)
def test_the_least_useful_goes_first(
    one: dict[str, float | int], other: dict[str, float | int]
) -> None:
    """Dearest slot, fewest in use, lowest GPU load, youngest; each decides before the next."""
    for names in (("a", "b"), ("b", "a")):
        scene = Scene(FleetSpec(workers_min=1))
        scene.run(610)
        scene.members = {
            names[0]: replace(member(names[0], now_ms=scene.now_ms), **one),
            names[1]: replace(member(names[1], now_ms=scene.now_ms), **other),
        }
        decision = scene.decide()
        assert [act.id for act in decision.drains] == [names[0]]
        assert decision.drains[0].by_ms == scene.now_ms + scene.spec.drain_ms


def test_a_drain_ends_when_it_is_empty_or_its_time_is_over() -> None:
    scene = Scene(FleetSpec())
    by = scene.now_ms + 60_000
    scene.members = {
        "empty": member("empty", state=State.DRAINING, drain_by_ms=by),
        "busy": member("busy", state=State.DRAINING, in_use=1, drain_by_ms=by),
        "silent": member("silent", state=State.DRAINING, drain_by_ms=by),
    }
    assert not scene.decide().terminations  # its report may be older than the drain
    scene.now_ms += 5000
    scene._live()
    for id, facts in (("busy", {"in_use": 1}), ("silent", {"in_use": None, "heard_ms": None})):
        scene.members[id] = replace(scene.members[id], **facts)
    assert [act.id for act in scene.decide().terminations] == ["empty"]
    scene.now_ms = by
    assert {act.id for act in scene.decide().terminations} == {"empty", "busy", "silent"}


def test_what_its_provider_takes_back_is_left_at_once_and_replaced() -> None:
    scene = Scene(FleetSpec(workers_min=2), places=(SPOT,))
    scene.ready(1, SPOT)
    scene.members["taken"] = member("taken", SPOT, ends_ms=scene.now_ms + 120_000)
    decision = scene.decide()
    assert [(act.id, act.by_ms) for act in decision.drains] == [("taken", scene.now_ms + 120_000)]
    assert len(decision.launches) == 1


@pytest.mark.parametrize("bound", [{"workers_max": 2}, {"hourly_budget": 2.5}])
def test_a_bound_that_was_lowered_is_kept_whatever_is_wanted(bound: dict[str, float]) -> None:
    scene = Scene(FleetSpec.of(bound))
    scene.ready(4)
    scene.run(20, rate=1.4)
    assert scene.count(State.READY) == 2


def test_workers_that_somebody_else_manages_are_supply_and_left_alone() -> None:
    scene = Scene(FleetSpec())
    scene.ready(6, PLAIN, ours=False, price_per_hour=0.0)
    decisions = scene.run(1800, rate=0.5)
    assert not any(decision.acts for decision in decisions)


def test_so_many_stay_on_demand() -> None:
    scene = Scene(FleetSpec(ondemand_base=1, workers_min=2), places=(SPOT, PLAIN))
    first = scene.decide()
    assert [launch.place.market for launch in first.launches] == ["on-demand", "spot"]
    scene.do(first)
    scene.ready(3, SPOT)
    scene.run(1800)
    assert sorted(m.market for m in scene.members.values()) == ["on-demand", "spot"]


def test_what_somebody_else_ordered_counts_and_is_never_ended() -> None:
    scene = Scene(FleetSpec(workers_max=1, zero_after_ms=0))
    scene.ready(2, kept=True)
    scene.ready(1)
    scene.run(1800)
    assert sorted(scene.members) == ["w-0", "w-1"]
    assert not scene.history[-1].acts
