"""Where is ordered: price, spot, failure budgets, cooldowns."""

from msgspec.structs import replace

from admission.decided import Short
from admission.instance import Instance, Order, State
from scheduler.autoscale import Failure, Fleet, FleetSpec, Memory
from scheduler.autoscale.decision import Why
from scheduler.autoscale.places import learn, open_places
from tests.autoscale.scene import PLAIN, SPOT, SPOT_B, START_MS, Scene

MINUTE = 60_000


def ordered(scene: Scene, times: int = 1) -> list[str]:
    """The places of the next orders, one decision after the other, half a minute apart."""
    names = []
    for _ in range(times):
        scene.now_ms += 31_000  # an order that failed is no longer pending
        scene._live()
        decision = scene.decide()
        scene.do(decision)
        names += [launch.place.name for launch in decision.launches]
    return names


def test_the_cheapest_slot_first_whatever_the_machine_costs() -> None:
    large = PLAIN.__class__(provider="aws", type="g5.12x", price_per_hour=3.0, slots=16)
    assert open_places((PLAIN, large), (), FleetSpec(), 0) == [large, PLAIN]
    assert open_places((PLAIN, SPOT, SPOT_B), (), FleetSpec(), 0) == [SPOT, SPOT_B, PLAIN]


def test_where_it_fails_it_falls_back_to_the_next_and_on_demand_last() -> None:
    spec = FleetSpec(workers_min=1, failures_most=1, cooldown_ms=600_000)
    scene = Scene(spec, places=(PLAIN, SPOT, SPOT_B))
    scene.sold_out = {SPOT.name, SPOT_B.name}
    assert ordered(scene, 5) == [SPOT.name, SPOT.name, SPOT_B.name, SPOT_B.name, PLAIN.name]


def test_a_cooldown_doubles_up_to_its_most_and_ends() -> None:
    spec = FleetSpec(failures_most=1, cooldown_ms=MINUTE, cooldown_most_ms=5 * MINUTE)
    records = learn((), [Failure("p", 1)], (), spec, 1)
    assert records[0].closed_until_ms == 0
    spans = []
    for at in (10, 20, 30, 40, 50):
        records = learn(records, [Failure("p", at)], (), spec, at)
        spans.append((records[0].closed_until_ms - at) // MINUTE)
    assert spans == [1, 2, 4, 5, 5]
    place = PLAIN.__class__(provider="p")
    closed = learn((), [Failure(place.name, at) for at in (1, 2)], (), spec, 2)
    assert open_places((place,), closed, spec, 2 + MINUTE - 1) == []
    assert open_places((place,), closed, spec, 2 + MINUTE) == [place]


def test_a_failure_counts_once_however_often_it_is_seen() -> None:
    scene = Scene(FleetSpec(failures_most=2))
    scene.failures = [Failure(SPOT.name, scene.now_ms)]
    for _ in range(5):
        scene.decide()
    assert scene.memory.places[0].failures == 1


def test_one_that_became_ready_gives_the_budget_back() -> None:
    spec = FleetSpec(failures_most=0)
    records = learn((), [Failure("p", 10), Failure("p", 20)], (), spec, 20)
    assert records[0].closed_until_ms
    assert learn(records, (), [("p", 15)], spec, 30) == records  # it was ready before it failed
    again = learn(records, (), [("p", 25)], spec, 30)
    assert (again[0].failures, again[0].closed_until_ms) == (0, 0)


def test_when_every_place_is_closed_it_says_until_when() -> None:
    scene = Scene(FleetSpec(workers_min=1, failures_most=0))
    scene.sold_out = {PLAIN.name}
    ordered(scene, 2)
    assert not scene.history[-1].launches
    assert "all places failed; the first opens again in 29 s" in scene.history[-1].reason


def test_without_a_place_it_says_so() -> None:
    scene = Scene(FleetSpec(workers_min=1), places=())
    assert "there is no place to order at" in scene.decide().reason


def test_instances_of_the_store_become_members_and_failures() -> None:
    order = Order(
        provider="aws", type="g5", zone="a", market="spot", price_per_hour=0.4, pool="default"
    )

    def instance(id: str, state: State, code: str = "") -> Instance:
        return Instance(id, order, state, 1, 0, START_MS, START_MS, START_MS, error_code=code)

    fleet = Fleet.of(
        START_MS,
        [
            instance("a", State.BOOTING),
            instance("b", State.PROVISIONING_FAILED, "PROVIDER_OUT_OF_STOCK"),
            instance("c", State.TERMINATED),
            instance("d", State.ARCHIVED, "STARTUP_TIMEOUT"),
            instance("e", State.TERMINATED, "VOLUMES_DELETE_PENDING"),
        ],
        [],
        [SPOT],
    )
    assert [(m.id, m.slots, m.place) for m in fleet.members or ()] == [("a", 4, SPOT.name)]
    assert fleet.failures == tuple(Failure(SPOT.name, START_MS, id) for id in ("b", "d"))


def test_old_offers_are_not_ordered_from_and_it_says_so() -> None:
    scene = Scene(FleetSpec(workers_min=1))
    dear = replace(PLAIN, provider="rack", price_per_hour=9.0)
    old = replace(PLAIN, told_ms=scene.now_ms - 40 * MINUTE)
    scene.places = (old, replace(dear, told_ms=scene.now_ms - 15 * MINUTE))
    assert [launch.place.provider for launch in scene.decide().launches] == ["rack"]
    scene.memory, scene.places = Memory(), (old,)
    decision = scene.decide()
    assert not decision.launches
    assert decision.short == Why(Short.OFFERS_OLD, "the offers of aws are 40 minutes old")
    scene.spec = FleetSpec(workers_min=1, offers_stale_ms=60 * MINUTE)
    assert scene.decide().launches


def test_what_is_closed_and_what_is_old_are_both_said() -> None:
    scene = Scene(FleetSpec(workers_min=1, failures_most=0))
    scene.sold_out = {PLAIN.name}
    ordered(scene, 1)
    scene.places = (PLAIN, replace(PLAIN, provider="rack", told_ms=scene.now_ms - 40 * MINUTE))
    ordered(scene, 1)
    short = scene.history[-1].short
    assert short
    assert short.code is Short.PLACES_CLOSED
    assert short.words.endswith(" opens again in 29 s, and the offers of rack are 40 minutes old")


def test_spot_alone_is_nothing_to_who_uses_none() -> None:
    for spec in (FleetSpec(workers_min=1, spot=False), FleetSpec(workers_min=1, ondemand_base=1)):
        decision = Scene(spec, places=(SPOT,)).decide()
        assert decision.short == Why(Short.NO_PLACE, "only spot machines are offered")
    plain = Scene(FleetSpec(workers_min=1, spot=False), places=(SPOT, PLAIN)).decide()
    assert [launch.place.market for launch in plain.launches] == ["on-demand"]
