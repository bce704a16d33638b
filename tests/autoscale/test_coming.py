"""What who waits is told of the machines that are on their way."""

from typing import Any

import pytest
from msgspec.structs import replace

from admission.domain import Coming
from admission.instance import State
from scheduler.autoscale import FleetSpec
from scheduler.autoscale.coming import coming
from scheduler.autoscale.decision import Act, Decision
from scheduler.autoscale.memory import Boot, Memory
from tests.autoscale.scene import BOOT_MS, PLAIN, START_MS, Scene, member

SPEC = FleetSpec(boot_ms=100_000)
NOTHING = Decision(reason="")


def told(scene: Scene, decision: Decision = NOTHING) -> list[Coming]:
    """What is said after a decision."""
    machines = coming(scene.fleet(), decision, scene.memory, scene.spec, scene.now_ms)
    assert machines is not None
    return machines


def booting(scene: Scene, id: str = "a", *, ordered_s: int, **facts: Any) -> None:
    ordered_ms = scene.now_ms - 1000 * ordered_s
    found = member(id, state=State.BOOTING, now_ms=ordered_ms)
    scene.members[id] = replace(found, **facts)


def test_the_first_machine_is_told_from_its_order_until_it_is_ready() -> None:
    scene = Scene(FleetSpec(boot_ms=BOOT_MS))
    scene.decide()
    assert told(scene) == []  # nobody is there
    scene.waiting, scene.arrived = 1, 1
    decision = scene.decide()
    [launch] = decision.launches
    spread_ms = BOOT_MS // 4
    assert told(scene, decision) == [Coming(launch.id, PLAIN.slots, BOOT_MS, spread_ms)]
    scene.do(decision)
    scene.run(60)
    assert told(scene) == [Coming(launch.id, PLAIN.slots, BOOT_MS - 60_000, spread_ms)]
    scene.run(180)
    assert scene.count(State.READY) == 1
    assert told(scene) == []


def test_a_second_machine_is_told_while_the_first_one_works() -> None:
    scene = Scene(SPEC)
    scene.ready(2)
    booting(scene, ordered_s=40)
    assert told(scene) == [Coming("a", PLAIN.slots, 60_000, 25_000)]


def test_a_boot_that_is_late_is_not_told_to_be_over_and_is_the_less_sure_the_later() -> None:
    scene = Scene(SPEC)
    booting(scene, ordered_s=500)
    assert told(scene) == [Coming("a", PLAIN.slots, 10_000, 425_000)]


def test_how_sure_it_is_is_learnt() -> None:
    scene = Scene(SPEC, memory=Memory(boot=Boot(60_000.0, 8_000.0, START_MS)))
    booting(scene, ordered_s=0)
    assert told(scene) == [Coming("a", PLAIN.slots, 68_000, 10_000)]


@pytest.mark.parametrize(
    "facts",
    [
        {"state": State.TERMINATING},
        {"state": State.READY},
        {"state": State.DRAINING},
        {"ends_ms": START_MS + 60_000},
        {"usable": False},
    ],
    ids=["ended", "ready", "drains", "taken back", "unusable"],
)
def test_what_will_not_serve_is_not_told(facts: dict[str, Any]) -> None:
    scene = Scene(SPEC)
    booting(scene, ordered_s=40, **facts)
    assert told(scene) == []


def test_what_the_decision_itself_gives_up_is_not_told() -> None:
    scene = Scene(SPEC)
    booting(scene, ordered_s=40)
    assert told(scene, Decision(reason="", terminations=(Act("a", ""),))) == []


def test_a_machine_goes_by_its_workers_name() -> None:
    scene = Scene(SPEC)
    booting(scene, ordered_s=40, worker_id="rack-1")
    assert [each.worker_id for each in told(scene)] == ["rack-1"]


def test_of_instances_that_are_not_known_nothing_is_told() -> None:
    scene = Scene(SPEC)
    fleet = scene.fleet(members=None)
    assert coming(fleet, NOTHING, scene.memory, scene.spec, scene.now_ms) is None
