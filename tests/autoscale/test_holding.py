"""Hold: what must be known before anything is done, and what a restart may not do."""

from typing import Any

import pytest
from msgspec.structs import replace

from admission.decided import Hold
from admission.domain import Worker
from admission.instance import Instance, Order, State
from scheduler.autoscale import Demand, Fleet, FleetSpec, Memory, decide
from scheduler.autoscale.decision import Why
from tests.autoscale.metrics import metrics
from tests.autoscale.scene import START_MS, Scene, member


def crowded() -> Scene:
    """Many wait, few slots: without a hold more would be ordered."""
    scene = Scene(FleetSpec(workers_min=4))
    scene.ready(2)
    scene.waiting, scene.in_use = 100, 8
    return scene


@pytest.mark.parametrize("field", ["waiting", "in_use", "capacity"])
def test_demand_with_a_hole_is_held(field: str) -> None:
    scene = crowded()
    before = scene.memory
    decision = scene.decide(**{field: None})
    assert decision.hold == Why(Hold.DEMAND_UNKNOWN, "the pool's demand is not known")
    assert decision.acts == 0
    assert scene.memory == before


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"at_ms": -31_000}, Why(Hold.DEMAND_OLD, "the pool's demand is 31 s old")),
        ({"paused": True}, Why(Hold.POOL_PAUSED, "the pool is paused")),
        (
            {"elastic": False},
            Why(
                Hold.CAPACITY_FIXED,
                "the pool's capacity is a fixed number (8): no worker changes it",
            ),
        ),
    ],
)
def test_demand_that_says_nothing_is_held(facts: dict[str, Any], why: Why) -> None:
    scene = crowded()
    if "at_ms" in facts:
        facts = {"at_ms": scene.now_ms + facts["at_ms"]}
    decision = scene.decide(**facts)
    assert (decision.acts, decision.hold) == (0, why)
    assert decision.reason == f"hold: {why.words}"


def test_without_demand_or_instances_it_holds() -> None:
    scene = crowded()
    unknown, _ = decide(None, scene.fleet(), scene.spec, Memory(), scene.now_ms)
    unread, _ = decide(
        scene.demand(), scene.fleet(members=None), scene.spec, Memory(), scene.now_ms
    )
    old, _ = decide(scene.demand(), scene.fleet(at_ms=0), scene.spec, Memory(), scene.now_ms)
    codes = (Hold.DEMAND_UNKNOWN, Hold.FLEET_UNKNOWN, Hold.FLEET_OLD)
    for decision, code in zip((unknown, unread, old), codes, strict=True):
        assert decision.hold
        assert (decision.acts, decision.hold.code) == (0, code)


def test_when_most_workers_are_silent_it_holds() -> None:
    scene = crowded()
    scene.ready(1)
    assert scene.decide().acts
    scene = crowded()
    scene.ready(1)
    for id in ("w-0", "w-1"):
        scene.members[id] = replace(scene.members[id], heard_ms=scene.now_ms - 31_000)
    decision = scene.decide()
    words = "2 of 3 workers are silent or unready all at once"
    assert (decision.acts, decision.hold) == (0, Why(Hold.WORKERS_SILENT, words))


def test_a_silent_worker_counts_for_a_while_and_then_is_replaced() -> None:
    scene = Scene(FleetSpec(workers_min=3))
    scene.ready(3)
    scene.members["w-0"] = replace(scene.members["w-0"], heard_ms=scene.now_ms - 31_000)
    assert not scene.decide().acts
    scene.members["w-0"] = replace(scene.members["w-0"], heard_ms=scene.now_ms - 181_000)
    assert len(scene.decide().launches) == 1


def test_while_a_worker_is_silent_nobody_drains() -> None:
    scene = Scene(FleetSpec())
    scene.ready(5)
    scene.run(700, rate=0.1)
    scene.ready(4)
    id = next(iter(scene.members))
    scene.members[id] = replace(scene.members[id], heard_ms=scene.now_ms - 31_000)
    assert not scene.decide().drains
    scene._live()
    assert scene.decide().drains


def test_a_restart_drains_nothing_before_it_has_watched() -> None:
    scene = Scene(FleetSpec(surplus_after_ms=600_000))
    scene.ready(6)
    scene.run(590, rate=0.1)
    scene.memory = Memory.load(None)
    assert not any(decision.drains for decision in scene.run(590, rate=0.1))
    assert any(decision.drains for decision in scene.run(60, rate=0.1))


def test_a_gap_is_a_restart_that_remembers_boots_and_places() -> None:
    scene = Scene(FleetSpec(workers_min=1))
    scene.run(600, rate=0.3)
    before = scene.memory
    assert before.boot.mean_ms
    assert before.traffic.rate
    scene.now_ms += 600_000
    scene._live()
    scene.decide()
    assert scene.memory.since_ms == scene.now_ms
    assert scene.memory.traffic.rate is None
    assert scene.memory.traffic.held_ms == before.traffic.held_ms
    assert scene.memory.boot == before.boot


def test_memory_survives_as_text() -> None:
    scene = Scene(FleetSpec())
    scene.ready(2)
    scene.run(600, rate=1.5)
    assert scene.memory.pending or scene.memory.peaks
    assert Memory.load(scene.memory.dump()) == scene.memory


@pytest.mark.parametrize(
    "data", [None, b"", b"{", b"[]", b'{"version": 2}', b'{"version": 1, "peaks": 3}', b"\xff"]
)
def test_memory_that_cannot_be_read_is_empty(data: bytes | None) -> None:
    assert Memory.load(data) == Memory()


def test_a_clock_that_went_back_is_a_restart() -> None:
    scene = Scene(FleetSpec())
    scene.ready(2)
    scene.run(600, rate=0.5)
    scene.now_ms -= 300_000
    assert scene.decide().acts == 0
    assert scene.memory.since_ms == scene.now_ms


def test_counters_that_began_anew_are_no_rate() -> None:
    scene = Scene(FleetSpec())
    scene.ready(2)
    scene.run(600, rate=0.5)
    scene.now_ms += 10_000
    scene._live()
    decision = scene.decide(arrived_total=3, begun_total=3)
    assert decision.acts == 0
    assert scene.memory.traffic.rate is None


def test_demand_is_read_from_the_pools_metrics() -> None:
    demand = Demand.of(metrics(active=3, draft=1, finishing=2, waiting=5, admitted_total=40))
    assert (demand.in_use, demand.waiting, demand.arrived_total, demand.begun_total) == (
        6,
        5,
        46,
        40,
    )
    assert (demand.elastic, demand.slots_most) == (True, 50)
    assert not Demand.of(metrics(settings={"capacity": 50, "max_active": 50})).elastic
    settings = {"capacity": "auto", "max_active": 50, "session_ms": 1_200_000}
    for kind, session_ms in (("session", 1_200_000), ("request", None)):
        found = Demand.of(metrics(settings={**settings, "kind": kind}))
        assert found.session_ms == session_ms


def test_a_worker_that_never_reported_is_silent_from_when_it_became_ready() -> None:
    scene = Scene(FleetSpec())
    scene.members["a"] = member("a", heard_ms=None, state=State.READY)
    assert not scene.decide().hold
    scene.now_ms += 31_000
    hold = scene.decide().hold
    assert hold
    assert hold.words == "1 of 1 workers are silent or unready all at once"


def test_one_that_is_not_ready_is_replaced_and_many_at_once_are_not() -> None:
    scene = Scene(FleetSpec(workers_min=3))
    scene.ready(3)
    scene.members["w-0"] = replace(scene.members["w-0"], usable=False)
    assert len(scene.decide().launches) == 1
    scene.members["w-1"] = replace(scene.members["w-1"], usable=False)
    assert scene.decide().hold


def worker(id: str, **facts: Any) -> Worker:
    known: dict[str, Any] = {
        "worker_id": id,
        "url": "",
        "kind": "agent",
        "pool": "default",
        "models": ("m",),
        "slots": 2,
        "ready": True,
        "draining": False,
        "reason": None,
        "first_seen_ms": START_MS,
        "last_seen_ms": START_MS,
        "load": {"gpu_load": 0.25},
        "in_flight": 1,
    }
    return Worker(**{**known, **facts})


def test_the_fleet_is_read_from_the_store() -> None:
    order = Order(provider="aws", type="g5", price_per_hour=1.5)
    instances = [
        Instance(id, order, State.READY, 1, 100, START_MS, START_MS, START_MS, ready_ms=START_MS)
        for id in ("fine", "silent", "broken", "leaving")
    ]
    unready = {"ready": False, "load": None}
    workers = [
        worker("fine"),
        worker("silent", **unready, reason="no heartbeat"),
        worker("broken", **unready, reason="checksum"),
        worker("leaving", **unready, reason="no heartbeat", draining=True),
        worker("static", kind="static"),
    ]
    fleet = Fleet.of(START_MS, instances, workers, [], slots_each=4, ends_ms={"fine": 7})
    found = {member.id: member for member in fleet.members or ()}
    assert {id: (m.usable, m.ours, m.slots) for id, m in found.items()} == {
        "fine": (True, True, 8),
        "silent": (True, True, 8),
        "broken": (False, True, 8),
        "leaving": (False, True, 8),
        "static": (True, False, 8),
    }
    fine = found["fine"]
    assert (fine.gpu_load, fine.in_use, fine.price_per_hour, fine.ends_ms) == (0.25, 1, 1.5, 7)
    assert fine.place == "aws/g5//on-demand"
    assert found["silent"].gpu_load is None
