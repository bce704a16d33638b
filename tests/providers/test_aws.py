"""Amazon EC2: the port's contract over a stateful fake of it, and what only EC2 has."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from admission.instance import Order, Volume
from scheduler.fleet.port import Gone, Machine, Power, Refused, Unclear
from tests.providers.aws_world import ORDER, SPOT, SUBNETS, Ec2World
from tests.providers.contract import ID, ProviderContract, World
from tests.providers.ec2 import HOUR_MS, FakeEc2


@pytest.fixture
def world() -> Iterator[Ec2World]:
    made = Ec2World()
    yield made
    made.close()


class TestEc2(ProviderContract):
    @pytest.fixture
    def world(self) -> Iterator[World]:
        made = Ec2World()
        yield made
        made.close()


# --- launch -------------------------------------------------------------------------------------


async def test_a_launch_says_everything_in_one_call(world: Ec2World) -> None:
    await world.ec2.launch(ID, SPOT)
    said = world.wire.words["RunInstances"]
    assert said["ClientToken"] == ID
    assert said["SubnetId"] == "subnet-0b"
    assert said["InstanceMarketOptions"]["SpotOptions"] == {
        "SpotInstanceType": "one-time",
        "InstanceInterruptionBehavior": "terminate",
    }
    tags = {
        each["ResourceType"]: {tag["Key"]: tag["Value"] for tag in each["Tags"]}
        for each in said["TagSpecifications"]
    }
    assert tags.keys() == {"instance", "volume", "spot-instances-request"}
    for each in tags.values():
        assert each["vestibule-instance"] == ID
        assert each["vestibule-deployment"] == "ours"
    assert tags["instance"]["vestibule-pool"] == "default"
    assert said["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "InstanceMetadataTags": "enabled",
    }
    kinds = {each["Ebs"]["VolumeType"] for each in said["BlockDeviceMappings"]}
    assert kinds == {"gp3"}
    assert all(each["Ebs"]["Encrypted"] for each in said["BlockDeviceMappings"])


async def test_on_demand_asks_for_no_spot_request(world: Ec2World) -> None:
    await world.ec2.launch(ID, ORDER)
    said = world.wire.words["RunInstances"]
    assert "InstanceMarketOptions" not in said
    assert {each["ResourceType"] for each in said["TagSpecifications"]} == {"instance", "volume"}
    tags = {each["Key"]: each["Value"] for each in said["TagSpecifications"][0]["Tags"]}
    assert tags["vestibule-model"] == "org/model"


async def test_a_template_is_launched_with_what_it_leaves_open(world: Ec2World) -> None:
    plain: dict[str, Any] = {"image": "", "user_data": "", "instance_profile": ""}
    plain |= {"security_groups": (), "disk": 0, "data_disk": 0}
    ec2 = world.of("ours", script=b"", launch_template="lt-0a", **plain)
    await ec2.launch(ID, ORDER)
    said = world.wire.words["RunInstances"]
    assert said["LaunchTemplate"] == {"LaunchTemplateId": "lt-0a", "Version": "$Default"}
    assert not said.keys() & {
        "ImageId",
        "UserData",
        "IamInstanceProfile",
        "SecurityGroupIds",
        "BlockDeviceMappings",
    }


async def test_an_elastic_fabric_adapter_is_the_machines_only_interface(world: Ec2World) -> None:
    world.cloud.efa = {"g6e.xlarge"}
    ec2 = world.of("ours", efa=True, placement_group="close")
    await ec2.launch(ID, ORDER)
    said = world.wire.words["RunInstances"]
    (interface,) = said["NetworkInterfaces"]
    assert interface["InterfaceType"] == "efa"
    assert interface["Groups"] == ["sg-0a"]
    assert said["Placement"] == {"GroupName": "close"}
    assert "SecurityGroupIds" not in said
    assert "SubnetId" not in said


async def test_a_type_without_an_elastic_fabric_adapter_is_refused(world: Ec2World) -> None:
    world.cloud.efa = {"g6e.xlarge"}
    ec2 = world.of("ours", efa=True)
    without = Order("aws", type="g6.xlarge")
    for _ in range(2):
        with pytest.raises(Refused, match="PROVIDER_INVALID_ORDER: efa: g6.xlarge has no"):
            await ec2.launch(ID, without)
    await ec2.launch(ID, ORDER)
    await world.of("ours").launch("i-9", without)  # asks for none
    assert world.wire.called.count("DescribeInstanceTypes") == 2, "once for each type"
    assert len(world.cloud.vms) == 2


async def test_who_may_not_ask_for_types_hears_ec2s_own_no(world: Ec2World) -> None:
    ec2 = world.of("ours", efa=True)
    with world.wire.breaking("InternalError", "DescribeInstanceTypes"), pytest.raises(Unclear):
        await ec2.launch(ID, ORDER)
    assert not world.cloud.vms
    with world.wire.breaking("UnauthorizedOperation", "DescribeInstanceTypes"):
        await ec2.launch(ID, ORDER)
    assert len(world.cloud.vms) == 1


async def test_who_names_no_zone_gets_the_same_one_however_often(world: Ec2World) -> None:
    """EC2's token is worth something in one zone only."""
    anywhere = Order("aws")
    world.cloud.lag_ms = 10_000_000  # nothing is found by its tag
    names = [f"i-{number}" for number in range(12)]
    for name in names * 2:
        await world.ec2.launch(name, anywhere)
    assert len(world.cloud.vms) == len(names)
    assert {vm.zone for vm in world.cloud.vms.values()} == set(SUBNETS)


async def test_a_launch_is_found_by_its_tag_where_the_token_does_not_help(world: Ec2World) -> None:
    await world.ec2.launch(ID, ORDER)
    changed = world.of("ours", disk=150)  # an operator edited the file
    again = await changed.launch(ID, SPOT)  # even in another zone
    assert again.provider_id == "i-00000001"
    assert len(world.cloud.vms) == 1


async def test_of_several_machines_with_its_tag_the_oldest_that_lives_is_it(
    world: Ec2World,
) -> None:
    """EC2 made a second one for another zone's token, or somebody copied the tags."""
    await world.ec2.launch(ID, ORDER)
    (ended,) = world.cloud.vms.values()
    world.cloud.end(ended)
    await world.settle()
    older = world.cloud.make(ended.words, "eu-central-1b")
    world.clock.advance_ms(1_000)
    world.cloud.make(ended.words, "eu-central-1a")
    for found in (await world.ec2.find(ID), await world.ec2.launch(ID, ORDER)):
        assert isinstance(found, Machine)
        assert found.provider_id == older.id
    assert len(await world.ec2.machines()) == 2  # the other one is an orphan


async def test_no_more_are_launched_than_the_capacity(
    world: Ec2World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also at the same time, and though the lists lag."""
    launched = FakeEc2.run_instances

    def slow(self: FakeEc2, **words: Any) -> dict[str, Any]:
        time.sleep(0.02)
        return launched(self, **words)

    monkeypatch.setattr(FakeEc2, "run_instances", slow)
    world.cloud.lag_ms = 60_000
    ec2 = world.of("ours", capacity=2)
    names = [f"i-{number}" for number in range(5)]
    made = await asyncio.gather(*(ec2.launch(n, ORDER) for n in names), return_exceptions=True)
    refused = [each for each in made if isinstance(each, Refused)]
    assert {each.code for each in refused} == {"PROVIDER_QUOTA_EXCEEDED"}
    assert (len(refused), len(world.cloud.vms)) == (3, 2)
    world.clock.advance_ms(60_000)
    (machine, *_) = [each for each in made if isinstance(each, Machine)]
    again = await ec2.launch(machine.instance_id, ORDER)  # it is there already
    assert again.provider_id == machine.provider_id
    await ec2.terminate(machine.provider_id)
    world.clock.advance_ms(120_000)
    assert isinstance(await ec2.launch("i-9", ORDER), Machine)


async def test_other_words_with_the_token_are_unclear_and_no_end(world: Ec2World) -> None:
    await world.ec2.launch(ID, ORDER)
    world.cloud.lag_ms = 60_000
    with pytest.raises(Unclear, match="IdempotentParameterMismatch"):
        await world.of("ours", disk=150).launch(ID, ORDER)


async def test_a_machine_that_ec2_ended_at_once_says_why(world: Ec2World) -> None:
    await world.ec2.launch(ID, ORDER)
    (vm,) = world.cloud.vms.values()
    world.cloud.end(vm, "Client.VolumeLimitExceeded")
    there = await world.ec2.look(vm.id)
    assert isinstance(there, Machine)
    assert there.failure == ("PROVIDER_QUOTA_EXCEEDED", "Client.VolumeLimitExceeded: it ends")
    await world.settle()
    assert await world.ec2.look(vm.id) == Gone(there.failure)
    with pytest.raises(Refused) as no:
        await world.ec2.launch(ID, ORDER)
    assert no.value.code == "PROVIDER_QUOTA_EXCEEDED"


async def test_a_machine_that_somebody_ended_is_gone_without_a_reason(world: Ec2World) -> None:
    machine = await world.ec2.launch(ID, ORDER)
    world.cloud.end(world.cloud.vms[machine.provider_id], "Client.UserInitiatedShutdown")
    await world.settle()
    assert await world.ec2.look(machine.provider_id) == Gone()


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (Order("aws", type="p5.48xlarge"), "type: one of g6e.xlarge, g6.xlarge, not p5.48xlarge"),
        (Order("aws", zone="us-east-1a"), "zone: one of"),
        (Order("aws", market="reserved"), "market: one of"),
        (Order("aws", options={"gpus": "2"}), "options: there are none, not gpus"),
        (Order("aws", model="a;b"), "model: becomes a tag"),
    ],
)
async def test_a_wrong_order_is_refused_without_a_call(
    world: Ec2World, order: Order, why: str
) -> None:
    with pytest.raises(Refused, match=f"PROVIDER_INVALID_ORDER: {why}"):
        await world.ec2.launch(ID, order)
    assert world.wire.called == []


# --- look ---------------------------------------------------------------------------------------


async def test_what_is_too_new_to_be_told_is_not_found_and_not_doubled(world: Ec2World) -> None:
    """The judge knows that it is new; a launch said again is safe by its token."""
    world.cloud.lag_ms = 60_000
    machine = await world.ec2.launch(ID, ORDER)
    assert await world.ec2.look(machine.provider_id) == Gone()
    assert await world.ec2.find(ID) == Gone()
    assert (await world.ec2.launch(ID, ORDER)).provider_id == machine.provider_id
    world.clock.advance_ms(60_000)
    assert isinstance(await world.ec2.look(machine.provider_id), Machine)


async def test_a_spot_machine_tells_its_notice(world: Ec2World) -> None:
    machine = await world.ec2.launch(ID, SPOT)
    await world.settle()
    (vm,) = world.cloud.vms.values()
    there = await world.ec2.look(machine.provider_id)
    assert isinstance(there, Machine)
    assert (there.market, there.ends_ms) == ("spot", None)
    world.cloud.interrupt(vm)
    world.clock.advance_ms(15_000)
    there = await world.ec2.look(machine.provider_id)
    assert isinstance(there, Machine)
    assert (there.power, there.ends_ms) == (Power.RUNNING, vm.marked_ms + 120_000)
    world.clock.advance_ms(110_000)
    there = await world.ec2.look(machine.provider_id)
    assert isinstance(there, Machine)
    assert there.power is Power.STOPPING
    assert there.failure == ("SPOT_INTERRUPTED", "Spot instance termination")
    await world.settle()
    assert await world.ec2.look(machine.provider_id) == Gone(there.failure)


async def test_a_spot_machine_may_be_taken_without_a_notice(world: Ec2World) -> None:
    machine = await world.ec2.launch(ID, SPOT)
    (vm,) = world.cloud.vms.values()
    world.cloud.end(vm, "Server.SpotInstanceTermination")
    there = await world.ec2.look(machine.provider_id)
    assert isinstance(there, Machine)
    assert there.ends_ms == world.clock.now_ms()


async def test_an_end_is_gone_while_ec2_shows_it_and_after(world: Ec2World) -> None:
    machine = await world.ec2.launch(ID, ORDER)
    await world.ec2.terminate(machine.provider_id)
    there = await world.ec2.look(machine.provider_id)
    assert isinstance(there, Machine)
    assert there.power is Power.STOPPING
    assert [each.power for each in await world.ec2.machines()] == [Power.STOPPING]
    for _ in range(2):
        world.clock.advance_ms(HOUR_MS)
        assert await world.ec2.look(machine.provider_id) == Gone()
        assert await world.ec2.find(ID) == Gone()
        assert await world.ec2.machines() == []
        await world.ec2.terminate(machine.provider_id)


async def test_gateways_reach_it_under_the_address_that_was_chosen(
    world: Ec2World, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = await world.ec2.launch(ID, ORDER)
    await world.settle()
    there = await world.of("ours", address="public").look(machine.provider_id)
    assert isinstance(there, Machine)
    assert there.address == ""  # the subnet gave it none
    there = await world.ec2.look(machine.provider_id)
    assert isinstance(there, Machine)
    assert there.address == "10.0.0.1"


# --- disks --------------------------------------------------------------------------------------


async def test_a_kept_disk_is_kept_before_and_after_its_machine(world: Ec2World) -> None:
    ec2 = world.of("ours", keep_data_disk=True)
    machine = await ec2.launch(ID, ORDER)
    await world.settle()
    found = {v.is_boot: v for v in await ec2.volumes(ID, machine.provider_id)}
    assert found[True].delete_on_terminate
    assert not found[False].delete_on_terminate
    by_tag = {v.provider_volume_id: v for v in await ec2.volumes(ID, "")}
    assert {name for name, v in by_tag.items() if not v.delete_on_terminate} == {
        found[False].provider_volume_id
    }
    await ec2.terminate(machine.provider_id)
    await world.settle()
    (left,) = await ec2.volumes(ID, machine.provider_id)
    assert left.provider_volume_id == found[False].provider_volume_id
    assert (left.delete_on_terminate, left.state) == (False, "detached")
    ((owner, lost),) = await ec2.orphan_volumes(frozenset())
    assert (owner, lost) == (ID, left)


async def test_a_disk_that_ec2_was_told_to_leave_is_ours_to_delete(world: Ec2World) -> None:
    machine = await world.ec2.launch(ID, ORDER)
    for disk in world.cloud.disks.values():
        disk.goes = False
    found = await world.ec2.volumes(ID, machine.provider_id)
    assert [each.delete_on_terminate for each in found] == [True, True]


async def test_a_disk_that_somebody_attached_is_theirs(world: Ec2World) -> None:
    machine = await world.ec2.launch(ID, ORDER)
    (vm,) = world.cloud.vms.values()
    disk = world.cloud.leave_disk(vm, "/dev/sdx", {"VolumeSize": 5, "DeleteOnTermination": False})
    disk.tags = {}
    found = {v.provider_volume_id: v for v in await world.ec2.volumes(ID, machine.provider_id)}
    assert not found[disk.id].delete_on_terminate
    assert all(v.delete_on_terminate for name, v in found.items() if name != disk.id)
    assert disk.id not in {
        v.provider_volume_id for _, v in await world.ec2.orphan_volumes(frozenset())
    }


async def test_a_disk_that_is_deleted_is_gone_though_ec2_still_tells_of_it(
    world: Ec2World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"VolumeId": "vol-0a", "State": "deleted", "VolumeType": "gp3", "Size": 1, "Tags": []}
    monkeypatch.setattr(FakeEc2, "describe_volumes", lambda self, **words: {"Volumes": [told]})
    assert await world.ec2.look_volume("vol-0a") == Gone()
    assert await world.ec2.volumes(ID, "") == []


async def test_a_deletion_that_has_begun_may_be_asked_for_again(world: Ec2World) -> None:
    await world.ec2.launch(ID, ORDER)
    await world.forget_owner(ID)
    await world.ec2.delete_volume("vol-00000001")
    found = await world.ec2.look_volume("vol-00000001")
    assert isinstance(found, Volume)
    assert found.state == "deleting"
    await world.ec2.delete_volume("vol-00000001")
    with world.wire.breaking("down"), pytest.raises(Unclear):
        await world.ec2.delete_volume("vol-00000002")
    with world.wire.breaking("Bizarre", "DeleteVolume"), pytest.raises(Unclear):
        await world.ec2.delete_volume("vol-00000002")
