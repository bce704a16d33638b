"""Machines and disks that are nobody's are found, given a record, and ended; others' never."""

from typing import Any

import pytest

from admission.instance import Kind
from scheduler.fleet import orphans
from scheduler.fleet.orphans import Sweep
from tests.fleet.yard import ORDER, Yard

GRACE_S = orphans.GRACE_MS // 1000


@pytest.fixture
def yard() -> Yard:
    return Yard()


async def sweep(yard: Yard, seconds: int) -> None:
    """A sweep each minute, and the reconciler in between."""
    for _ in range(0, seconds, 60):
        await yard.sweep.tick(yard.store.lease("orphans"))
        await yard.run(60)


async def test_a_machine_of_ours_that_nobody_knows_is_adopted_and_ended(yard: Yard) -> None:
    vm = yard.cloud.make("i-lost", ORDER)
    await sweep(yard, GRACE_S)
    assert "i-lost" not in yard.store.kept
    await sweep(yard, 600)
    it = yard.it("i-lost")
    assert (it.state, it.error_code, it.provider_id) == ("terminated", "ORPHAN", vm.id)
    assert it.order.zone == "a"
    assert yard.cloud.alive() == []
    assert yard.cloud.disks_left() == []


async def test_another_deployments_machine_is_left_alone(yard: Yard) -> None:
    vm = yard.cloud.make("i-theirs", ORDER, deployment="theirs")
    await sweep(yard, GRACE_S * 3)
    assert yard.store.kept == {}
    assert yard.cloud.runs(vm)
    assert yard.cloud.foreign_touched == []


async def test_it_is_only_reported_where_that_is_wished_and_once(yard: Yard) -> None:
    yard.sweep = Sweep(yard.cloud, yard.store, end=False)
    vm = yard.cloud.make("i-lost", ORDER)
    await sweep(yard, GRACE_S * 2)
    assert yard.store.kept == {}
    [line] = yard.lines("i-lost")
    assert (line.name, line.ok, line.reason) == ("orphan", False, vm.id)
    assert yard.cloud.runs(vm)


@pytest.mark.parametrize("tag", ["", "Not an Id!"])
async def test_a_machine_whose_tag_is_no_id_gets_one(yard: Yard, tag: str) -> None:
    vm = yard.cloud.make(tag, ORDER)
    await sweep(yard, GRACE_S + 600)
    [it] = yard.store.kept.values()
    assert it.id.startswith("orphan-vm-0001-")
    assert (it.state, it.provider_id) == ("terminated", vm.id)
    assert yard.cloud.alive() == []


async def test_a_second_machine_under_a_known_id_is_ended_and_the_first_is_not(yard: Yard) -> None:
    await yard.up("i-1")
    first = yard.vm()
    second = yard.cloud.make("i-1", ORDER)
    yard.agents.of[second.id] = yard.agents.of[first.id]  # it has no agent of its own
    await sweep(yard, GRACE_S + 600)
    assert yard.it("i-1").state == "ready"
    assert [vm.id for vm in yard.cloud.alive()] == [first.id]


async def test_one_that_appears_after_its_end_is_an_orphan_while_its_disks_are_deleted(
    yard: Yard,
) -> None:
    """A launch that slept on its way: its disk is in use until the machine is ended, too."""
    yard.cloud.sold_out = {"a"}
    yard.cloud.fault = lambda call: "down" if call == "volumes" else ""
    await yard.order("i-1")
    await yard.run(900, lambda: yard.it("i-1").ended_ms is not None)
    vm = yard.cloud.make("i-1", ORDER)
    yard.cloud.fault = lambda call: ""
    await yard.run(60)
    assert yard.it("i-1").state == "terminating"
    assert yard.cloud.runs(vm)
    await sweep(yard, GRACE_S + 900)
    assert yard.cloud.alive() == []
    assert yard.cloud.disks_left() == []
    assert {it.state for it in yard.store.kept.values()} == {"terminated"}


async def test_who_slept_after_the_intent_leaves_the_launch_to_the_next_tick(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await yard.order()
    write = yard.store.write

    async def slow(*given: Any) -> bool:
        yard.clock.advance_ms(31_000)
        return await write(*given)

    monkeypatch.setattr(yard.store, "write", slow)
    await yard.tick()
    assert (yard.names()[-1], yard.cloud.vms) == ("try_launch", {})
    monkeypatch.undo()
    await yard.tick()
    assert len(yard.cloud.vms) == 1


async def test_a_machine_that_is_made_just_now_is_none(yard: Yard) -> None:
    """Its launch was done and its reply is lost: there is a record, without its name."""
    yard.cloud.fault = lambda call: "lost" if call == "launch" else ""
    await yard.order("i-1")
    for _ in range(20):
        await yard.tick()
        await yard.sweep.tick(yard.store.lease("orphans"))
        yard.pass_s(20)
    assert list(yard.store.kept) == ["i-1"]
    assert yard.it().state == "provisioning"


async def test_what_comes_back_after_its_end_is_ended_again(yard: Yard) -> None:
    """As when a scheduler that slept asks for it once more."""
    await yard.order("i-1")
    await yard.ask(Kind.TERMINATE, "i-1")
    await yard.run(10)
    assert yard.it().state == "terminated"
    await yard.cloud.launch("i-1", ORDER)
    await sweep(yard, GRACE_S + 600)
    assert "reappear" in yard.names()
    assert yard.it().state == "terminated"
    assert yard.cloud.alive() == []
    assert yard.cloud.disks_left() == []


async def test_a_disk_that_was_left_is_deleted_and_a_kept_one_stays(yard: Yard) -> None:
    await yard.up("i-1")
    await yard.ask(Kind.TERMINATE, "i-1", drain_s=0)
    await yard.run(400)
    ended_ms = yard.it().ended_ms
    yard.cloud.leave_disk(yard.vm())
    yard.cloud.leave_disk(yard.vm())
    kept = list(yard.cloud.disks.values())[-1]
    kept.ours_to_delete = False
    await sweep(yard, GRACE_S + 600)
    assert yard.names().count("reopen") == 1
    assert (yard.it().state, yard.it().ended_ms) == ("terminated", ended_ms)
    assert yard.cloud.disks_left() == [kept]


async def test_disks_of_nobody_get_a_record_and_are_deleted(yard: Yard) -> None:
    yard.cloud.end(yard.cloud.make("i-lost", ORDER))
    for disk in yard.cloud.disks.values():
        disk.goes_with_it = False
    await sweep(yard, GRACE_S + 900)
    it = yard.it("i-lost")
    assert (it.state, [volume.state for volume in it.volumes]) == ("terminated", ["deleted"])
    assert yard.cloud.disks_left() == []


async def test_a_disk_that_its_owner_keeps_is_nobodys_business(yard: Yard) -> None:
    yard.cloud.end(yard.cloud.make("i-lost", ORDER))
    for disk in yard.cloud.disks.values():
        disk.goes_with_it = disk.ours_to_delete = False
    await sweep(yard, GRACE_S * 2)
    assert yard.store.kept == {}
    assert len(yard.cloud.disks_left()) == 1


@pytest.mark.parametrize("call", ["machines", "orphan_volumes"])
async def test_half_a_list_makes_no_orphans(yard: Yard, call: str) -> None:
    yard.cloud.make("i-lost", ORDER)
    yard.cloud.fault = lambda name: "down" if name == call else ""
    await sweep(yard, GRACE_S * 2)
    assert yard.store.kept == {}


async def test_a_machine_that_nobody_can_look_at_is_no_orphan_yet(yard: Yard) -> None:
    yard.cloud.make("i-lost", ORDER)
    yard.cloud.fault = lambda name: "down" if name == "look" else ""
    await sweep(yard, GRACE_S * 2)
    assert yard.store.kept == {}
