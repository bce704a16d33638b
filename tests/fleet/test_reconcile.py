"""What a tick does, and leaves, over the fake cloud; chance is `test_simulation`'s."""

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from admission.errors import StoreUnavailable
from admission.instance import Instance, Kind, Order, State
from admission.store.fence import Fenced
from admission.store.fleet_store import NewerRecord
from scheduler.fleet import reconcile
from scheduler.fleet.judge import judge
from scheduler.fleet.port import Gone, Machine, Refused, Unclear
from scheduler.fleet.steps import Step
from scheduler.fleet.table import NotAllowed
from tests.fleet.cloud import FakeCloud, Vm
from tests.fleet.yard import ORDER, Yard


@pytest.fixture
def yard() -> Yard:
    return Yard()


async def test_a_whole_life_stands_in_its_history(yard: Yard) -> None:
    await yard.up("i-1", order=Order("cloud", type="gpu.1", zone="a", options={"kept": "1"}))
    await yard.ask(Kind.TERMINATE, "i-1", drain_s=0)
    await yard.run(400)
    it = yard.it()
    assert (it.state, it.progress, it.error_code) == ("terminated", 100, "")
    milestones = ["start", "address", "install", "answer", "load", "warm", "pass_health"]
    reached = [name for name in yard.names() if name in milestones]
    assert reached == milestones
    assert yard.names()[:3] == ["request", "try_launch", "create"]
    end = ["terminate", "lose_machine", "keep_volume", "delete_volume", "lose_volume", "end"]
    assert yard.names()[-6:] == end
    assert [(v.is_boot, v.state) for v in it.volumes] == [(False, "kept"), (True, "deleted")]
    assert yard.cloud.alive() == []
    assert [disk.ours_to_delete for disk in yard.cloud.disks_left()] == [False]
    assert yard.workers.all == {}


async def test_the_intent_is_written_before_the_provider_is_asked(yard: Yard) -> None:
    told: list[tuple[str, str, int | None]] = []
    yard.cloud.heard = lambda call, about: told.append((call, yard.it().state, yard.it().tried_ms))
    await yard.order()
    await yard.tick()
    assert told[0] == ("launch", "provisioning", yard.clock.now_ms())
    await yard.ask(Kind.TERMINATE, "i-1")
    await yard.run(60)
    assert {state for call, state, _ in told if call == "terminate"} == {"terminating"}


async def test_a_refused_order_keeps_its_code_to_the_end(yard: Yard) -> None:
    yard.cloud.sold_out = {"a"}
    await yard.order()
    await yard.run(500)
    it = yard.it()
    assert (it.state, it.progress, it.error_code) == ("terminated", 5, "PROVIDER_OUT_OF_STOCK")
    assert "nothing left in a" in it.error


async def test_a_refusal_without_a_code_of_ours_is_shown_in_the_providers_words(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def launch(self: FakeCloud, instance_id: str, order: Order) -> None:
        raise Refused("Strange", "no such luck")

    monkeypatch.setattr(FakeCloud, "launch", launch)
    await yard.order()
    await yard.tick()
    assert (yard.it().error_code, yard.it().error) == ("PROVIDER_REFUSED", "Strange: no such luck")


async def test_a_provider_that_throttles_is_left_alone_by_all(yard: Yard) -> None:
    calls: list[str] = []
    yard.cloud.heard = lambda call, about: calls.append(call)
    yard.cloud.fault = lambda call: "throttled"
    for number in range(20):
        await yard.order(f"i-{number}")
    await yard.tick()
    assert len(calls) == 1
    for _ in range(60):  # a minute
        yard.pass_s(1)
        await yard.tick()
    assert 3 <= len(calls) <= 60
    yard.cloud.fault = lambda call: ""
    await yard.run(90)
    assert len(yard.cloud.vms) == 20


async def test_an_instance_without_an_answer_is_asked_about_less_and_less(yard: Yard) -> None:
    calls: list[int] = []
    yard.cloud.heard = lambda call, about: calls.append(yard.clock.now_ms())
    yard.cloud.fault = lambda call: "down"
    await yard.order()
    await yard.run(300)
    pauses = [after - before for before, after in zip(calls, calls[1:], strict=False)]
    assert len(calls) < 20
    assert max(pauses) <= 65_000
    assert pauses[-1] > pauses[0]
    assert [line.reason for line in yard.lines() if not line.ok] == ["down"]  # told once


async def test_a_slow_answer_holds_up_only_so_many_and_those_left_out_come_first_next_time(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "AT_ONCE", 2)
    asked: list[str] = []

    async def slow(self: FakeCloud, instance_id: str, order: Order) -> None:
        asked.append(instance_id)
        yard.clock.advance_ms(15_000)
        raise Unclear("busy")

    monkeypatch.setattr(FakeCloud, "launch", slow)
    for number in range(6):
        await yard.order(f"i-{number}")
    await yard.tick()
    first = list(asked)
    assert 2 <= len(first) < 6
    await yard.tick()
    assert asked[len(first)] not in first


async def test_a_call_that_hangs_ends(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.fleet.patience.CALL_S", 0.01)

    async def hangs(self: FakeCloud, instance_id: str, order: Order) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(FakeCloud, "launch", hangs)
    await yard.order()
    await yard.tick()
    assert yard.lines()[-1].reason == "no answer within 0.01 s"


async def test_an_adapters_mistake_stops_no_other_instance(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    launch = FakeCloud.launch

    async def broken(self: FakeCloud, instance_id: str, order: Order) -> object:
        if instance_id == "i-1":
            raise KeyError("Instances")
        return await launch(self, instance_id, order)

    monkeypatch.setattr(FakeCloud, "launch", broken)
    await yard.order("i-1")
    await yard.order("i-2")
    await yard.tick()
    assert (yard.it("i-1").state, yard.it("i-2").state) == ("provisioning", "booting")
    assert "provider_failed" in caplog.text


async def test_a_record_of_a_newer_service_is_left_alone(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def newer(*_: object) -> bool:
        raise NewerRecord("i-1")

    await yard.order()
    monkeypatch.setattr(yard.store, "write", newer)
    await yard.tick()
    assert yard.cloud.vms == {}


async def test_who_lost_the_lease_stops(yard: Yard) -> None:
    await yard.order()
    old = yard.store.lease("instances")
    yard.store.lease("instances")
    with pytest.raises(Fenced):
        await yard.scheduler.tick(old)
    assert yard.cloud.vms == {}


async def test_without_the_store_nothing_is_done(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> bool:
        raise StoreUnavailable

    await yard.order()
    monkeypatch.setattr(yard.store, "write", away)
    with pytest.raises(StoreUnavailable):
        await yard.tick()
    assert yard.cloud.vms == {}


async def test_instances_of_other_providers_are_not_ours(yard: Yard) -> None:
    await yard.order(order=Order("elsewhere"))
    await yard.run(20)
    assert yard.names() == ["request"]


async def test_an_end_that_was_not_heard_is_asked_for_again_soon(yard: Yard) -> None:
    await yard.up("i-1")
    yard.cloud.fault = lambda call: "down" if call == "terminate" else ""
    await yard.ask(Kind.TERMINATE, "i-1", drain_s=0)
    await yard.tick()
    yard.cloud.fault = lambda call: ""
    await yard.run(15)
    assert not yard.cloud.runs(yard.vm())


@pytest.mark.parametrize(("lag_s", "seconds"), [(300.0, 300), (0.0, 60)])
async def test_where_lists_never_lag_what_is_gone_is_gone_at_once(
    yard: Yard, lag_s: float, seconds: int
) -> None:
    yard.cloud.lag_s, yard.cloud.times.delete = lag_s, 0
    yard.scheduler = yard.another()
    await yard.order()
    await yard.tick()
    yard.cloud.end(yard.vm())
    await yard.run(seconds - 10)
    assert (yard.it().state == "booting") == (lag_s > 0)
    await yard.run(100)
    assert (yard.it().state, yard.it().error_code) == ("terminated", "DELETED_BY_PROVIDER")


async def test_a_drained_worker_gets_nothing_new_and_may_be_taken_back(yard: Yard) -> None:
    await yard.up("i-1")
    await yard.ask(Kind.DRAIN, "i-1", drain_s=600)
    await yard.tick()
    assert yard.drained()
    await yard.ask(Kind.RESUME, "i-1")
    await yard.tick()
    assert not yard.drained()
    await yard.run(60)
    assert yard.it().state == "ready"


@pytest.mark.parametrize("forgets", [False, True])
async def test_an_agent_with_a_name_of_its_own_is_its_machines(yard: Yard, forgets: bool) -> None:
    """As on machines that somebody else runs; also where each tick is another scheduler's."""
    look = yard.cloud._machine

    def named(vm: Vm, at_ms: int) -> Machine:
        return msgspec.structs.replace(look(vm, at_ms), worker_id="gpu-7")

    def renamed() -> None:
        for name in [name for name in yard.workers.all if name != "gpu-7"]:
            worker = yard.workers.all.pop(name)
            yard.workers.all["gpu-7"] = replace(worker, worker_id="gpu-7")

    yard.cloud._machine = named  # type: ignore[method-assign]
    await yard.order()
    for _ in range(30):
        yard.pass_s(5)
        renamed()
        await yard.tick()
    assert yard.it().state == "ready"
    await yard.ask(Kind.TERMINATE, "i-1", drain_s=0)
    for _ in range(80):
        yard.pass_s(5)
        if forgets:
            yard.scheduler = yard.another()
        await yard.tick()
    assert yard.it().state == "terminated"
    assert yard.workers.all["gpu-7"].steered is False, "whoever runs it uses it for others"


async def test_a_drain_ends_with_its_last_request(yard: Yard) -> None:
    await yard.up("i-1")
    await yard.ask(Kind.DRAIN, "i-1", drain_s=3600)
    await yard.run(120, lambda: yard.it().state != "draining")
    assert yard.lines()[-1].name == "terminate" or "terminate" in yard.names()
    assert next(line for line in yard.lines() if line.name == "terminate").reason == (
        "nothing runs on it"
    )


async def test_a_scheduler_that_slept_while_it_drained_undoes_no_resume(yard: Yard) -> None:
    await yard.up("i-1")
    await yard.ask(Kind.DRAIN, "i-1", drain_s=600)
    word = yard.it().since_ms
    await yard.tick()
    yard.pass_s(5)
    await yard.ask(Kind.RESUME, "i-1")
    await yard.tick()
    await yard.workers.steer_worker("default", "i-1", draining=True, word=word)  # it wakes
    yard.pass_s(5)
    assert not yard.drained()


async def test_a_resumed_worker_is_not_ill_because_it_was_drained(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await yard.up("i-1")
    await yard.ask(Kind.DRAIN, "i-1", drain_s=36_000)
    await yard.tick()
    monkeypatch.setattr(yard.cloud.rng, "randint", lambda low, high: 0)
    yard.agents.of[yard.vm().id].in_flight = 1
    await yard.run(1_000)
    assert yard.it().state == "draining"
    await yard.ask(Kind.RESUME, "i-1")
    await yard.run(30)
    assert yard.it().state == "ready"


async def test_a_spot_machine_is_drained_with_what_time_is_left(yard: Yard) -> None:
    await yard.up("i-1", order=Order("cloud", type="gpu.1", zone="a", market="spot"))
    vm = yard.vm()
    yard.cloud.interrupt(vm)
    await yard.run(30, lambda: yard.it().state is State.DRAINING)
    assert vm.ends_ms is not None
    assert yard.it().drain_by_ms == vm.ends_ms - 10_000
    await yard.run(600)
    assert (yard.it().state, yard.it().error_code) == ("terminated", "SPOT_INTERRUPTED")


async def test_of_many_silent_at_once_none_is_ended_for_a_quarter_of_an_hour(yard: Yard) -> None:
    """Then it is rather Redis or our own network that was away."""
    names = ("i-1", "i-2", "i-3")
    await yard.up(*names)
    for vm in yard.cloud.vms.values():
        yard.agents.of[vm.id].dies_ms = yard.clock.now_ms()
    await yard.run(800)
    assert {yard.it(name).state for name in names} == {"ready"}
    await yard.run(300)
    assert {yard.it(name).error_code for name in names} == {"WORKER_LOST"}


async def test_one_silent_among_others_is_lost_after_3_minutes(yard: Yard) -> None:
    await yard.up("i-1", "i-2")
    yard.agents.of[yard.vm().id].dies_ms = yard.clock.now_ms()
    await yard.run(170)
    assert yard.it("i-1").state == "ready"
    await yard.run(60)
    assert yard.it("i-1").error_code == "WORKER_LOST"
    assert yard.it("i-2").state == "ready"


async def test_a_scheduler_that_just_began_believes_no_silence(yard: Yard) -> None:
    """Redis may have been away with us: heartbeats are on their way."""
    await yard.up("i-1", "i-2")
    for vm in yard.cloud.vms.values():
        yard.agents.of[vm.id].dies_ms = yard.clock.now_ms()
    yard.pass_s(3_600)
    yard.scheduler = yard.another()
    await yard.run(120)
    assert yard.it().state == "ready"


async def test_a_scheduler_that_did_not_look_for_long_has_seen_no_silence(yard: Yard) -> None:
    """As one that leads again after another did."""
    await yard.up("i-1", "i-2")
    yard.agents.of[yard.vm().id].dies_ms = yard.clock.now_ms()
    await yard.run(90)
    yard.pass_s(3_600)
    await yard.run(170)
    assert yard.it().state == "ready"
    await yard.run(60)
    assert yard.it().error_code == "WORKER_LOST"


async def test_a_machine_of_an_agent_that_the_provider_installs_is_advanced(yard: Yard) -> None:
    yard.cloud.times.install = 30_000
    calls: list[str] = []
    yard.cloud.heard = lambda call, about: calls.append(call)
    await yard.up("i-1")
    assert 3 <= calls.count("advance") <= 10


async def test_an_installation_that_is_refused_fails_with_its_code(yard: Yard) -> None:
    await yard.order()
    await yard.tick()
    yard.vm().failure = "SSH_NOT_ACCESSIBLE", "host key changed"
    await yard.run(30)
    assert (yard.it().error_code, yard.it().error) == ("SSH_NOT_ACCESSIBLE", "host key changed")
    await yard.run(400)
    assert (yard.it().state, yard.it().error_code) == ("terminated", "SSH_NOT_ACCESSIBLE")


async def test_an_end_before_the_launch_was_answered_leaves_nothing(yard: Yard) -> None:
    yard.cloud.fault = lambda call: "lost" if call == "launch" else ""
    await yard.order(order=ORDER)
    await yard.tick()
    assert yard.it().provider_id == ""
    assert len(yard.cloud.alive()) == 1
    await yard.ask(Kind.TERMINATE, "i-1")
    await yard.run(600)
    assert yard.it().state == "terminated"
    assert "find" in yard.names()
    assert yard.cloud.alive() == []
    assert yard.cloud.disks_left() == []


async def test_a_disk_that_is_in_use_is_waited_for_and_shown(yard: Yard) -> None:
    await yard.up("i-1")
    yard.vm()
    for disk in yard.cloud.disks.values():
        disk.goes_with_it = False
        disk.in_use_until_ms = yard.clock.now_ms() + 1_500_000
    await yard.ask(Kind.TERMINATE, "i-1", drain_s=0)
    await yard.run(1_000)
    assert (yard.it().state, yard.it().error_code) == ("terminating", "VOLUMES_DELETE_PENDING")
    await yard.run(900)
    assert (yard.it().state, yard.it().error_code) == ("terminated", "")
    assert yard.cloud.disks_left() == []


async def test_a_machine_that_fails_in_words_of_its_provider_fails_in_them(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = FakeCloud.look

    async def burns(self: FakeCloud, provider_id: str) -> Machine | Gone:
        found = await look(self, provider_id)
        assert isinstance(found, Machine)
        return msgspec.structs.replace(found, failure=("Strange", "it burns"))

    await yard.order()
    await yard.tick()
    with monkeypatch.context() as patch:
        patch.setattr(FakeCloud, "look", burns)
        await yard.run(10)
    assert (yard.it().error_code, yard.it().error) == ("PROVIDER_REFUSED", "Strange: it burns")


async def test_a_mistake_in_one_instance_stops_no_other(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def mistaken(it: Instance, *seen: Any) -> Step:
        if it.id == "i-1":
            raise NotAllowed("a mistake of ours")
        return judge(it, *seen)

    monkeypatch.setattr(reconcile, "judge", mistaken)
    await yard.order("i-1")
    await yard.up("i-2")
    assert "instance_stuck" in caplog.text
