"""Amazon EC2 as moto knows it: real calls in EC2's own XML, without its delays and its noes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import boto3
import pytest
from moto import mock_aws
from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, WorkerReport
from admission.instance import Command, Instance, Kind, Order
from admission.store.fence import Fence
from admission.store.redis_store import RedisStore
from admission.store.tick_store import TickStore, Word
from infra.providers.aws import Ec2
from scheduler.fleet.duties import duties
from scheduler.fleet.port import Refused
from tests.providers.aws_world import calls, settings, wire
from tests.providers.contract import ID, OTHER, ProviderContract, World

CODES = {
    "PROVIDER_OUT_OF_STOCK": "InsufficientInstanceCapacity",
    "PROVIDER_QUOTA_EXCEEDED": "VcpuLimitExceeded",
    "PROVIDER_DENIED": "UnauthorizedOperation",
}


class MotoWorld(World):
    """Moto makes machines run with the next call, and never refuses: `Wire` does."""

    bad_order = Order("aws", type="g6e.xlarge", zone="eu-central-1z")

    def __init__(self) -> None:
        self.client, self.wire = calls().client(), wire()
        self.wire.heal()
        subnets = self.client.describe_subnets()["Subnets"][:2]
        self.subnets = {each["AvailabilityZone"]: each["SubnetId"] for each in subnets}
        self.order = Order("aws", type="g6e.xlarge", zone=next(iter(self.subnets)))
        image = self.client.register_image(Name="gpu")["ImageId"]
        made = self.client.create_launch_template(
            LaunchTemplateName="worker", LaunchTemplateData={"ImageId": image}
        )
        self.template = made["LaunchTemplate"]["LaunchTemplateId"]
        self.provider = self.ec2 = self.of("ours")

    def of(self, deployment: str, **more: Any) -> Ec2:
        """With a template, as Terraform makes one."""
        plain = {"image": "", "user_data": "", "instance_profile": "", "security_groups": ()}
        of_images = {"root_device": "/dev/sda1"}  # of all that moto has
        more = plain | of_images | more
        it = settings(subnets=self.subnets, launch_template=self.template, **more)
        return Ec2("aws", it, deployment, calls())

    async def settle(self) -> None:
        await self.ec2.machines()  # moto goes on when it is asked

    def no_answer(self) -> AbstractContextManager[None]:
        return self.wire.breaking("down")

    @contextmanager
    def lost_reply(self) -> Iterator[None]:
        changes = ("RunInstances", "TerminateInstances")
        self.wire.fault = lambda asked: "lost" if asked in changes else ""
        yield
        self.wire.fault = lambda asked: ""

    def throttled(self) -> AbstractContextManager[None]:
        return self.wire.breaking("RequestLimitExceeded")

    def refusing(self, code: str) -> AbstractContextManager[None]:
        return self.wire.breaking(CODES[code], "RunInstances")

    async def stranger(self) -> str:
        return (await self.of("theirs").launch(OTHER, self.order)).provider_id

    async def delete_behind_our_back(self, provider_id: str) -> None:
        self.client.terminate_instances(InstanceIds=[provider_id])

    async def forget_owner(self, instance_id: str) -> None:
        (machine,) = await self.ec2.machines()
        (disk, *_) = await self.ec2.volumes(instance_id, machine.provider_id)
        told = self.client.describe_volumes(VolumeIds=[disk.provider_volume_id])["Volumes"][0]
        await self.ec2.terminate(machine.provider_id)
        self.client.create_volume(
            AvailabilityZone=machine.zone,
            Size=5,
            TagSpecifications=[{"ResourceType": "volume", "Tags": told["Tags"]}],
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[MotoWorld]:
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # a thousand, for three seconds
    with mock_aws():
        yield MotoWorld()


async def test_a_fabric_adapter_is_one_interface_with_the_groups_in_the_zones_subnet(
    world: MotoWorld,
) -> None:
    """Moto makes an interface of these words, and forgets its kind; it has no placement groups."""
    image = world.client.register_image(Name="efa")["ImageId"]
    boto3.client("iam").create_instance_profile(InstanceProfileName="worker")
    (group,) = world.client.describe_security_groups()["SecurityGroups"]
    it = settings(
        subnets=world.subnets,
        types={"p5.48xlarge": 8, "g6.xlarge": 8},
        prices={"p5.48xlarge": 60.0},
        image=image,
        security_groups=(group["GroupId"],),
        root_device="/dev/sda1",
        efa=True,
    )
    ec2, zone = Ec2("aws", it, "ours", calls()), next(iter(world.subnets))
    order = Order("aws", type="p5.48xlarge", zone=zone)
    with pytest.raises(Refused, match="g6.xlarge has no Elastic Fabric Adapter"):
        await ec2.launch(OTHER, Order("aws", type="g6.xlarge", zone=zone))
    machine = await ec2.launch(ID, order)
    (said,) = world.wire.words["RunInstances"]["NetworkInterfaces"]
    assert said.keys() == {
        *("DeviceIndex", "InterfaceType", "SubnetId", "Groups", "DeleteOnTermination"),
    }
    found = world.client.describe_instances(InstanceIds=[machine.provider_id])
    (told,) = found["Reservations"][0]["Instances"]
    assert told["SubnetId"] == world.subnets[zone]
    (interface,) = told["NetworkInterfaces"]
    assert [each["GroupId"] for each in interface["Groups"]] == [group["GroupId"]]
    assert interface["Attachment"]["DeviceIndex"] == 0


class TestMoto(ProviderContract):
    @pytest.fixture
    def world(self, world: MotoWorld) -> World:
        return world


class Clockwork:
    """One scheduler over the real store and moto, whose ticks are run by hand."""

    def __init__(self, redis: Redis, store: RedisStore, clock: ManualClock, ec2: Ec2) -> None:
        self.store, self.clock = store, clock
        ec2.lag_s = 0.0  # moto has only one mind
        self.ticks = duties(store, [ec2], clock)
        self.leases = TickStore(redis, clock)

    async def run(self, seconds: int, beat: WorkerReport | None = None) -> Instance:
        """Ticks every 5 s; with ``beat`` a heartbeat before each."""
        words = {tick.key: Word(10_000) for tick in self.ticks}
        for _ in range(0, seconds, 5):
            self.clock.advance_ms(5_000)
            if beat:
                await self.store.report_worker(DEFAULT_POOL, "aws-1", beat, token_hash="own")
            held = await self.leases.beat("me", words)
            for tick in self.ticks:
                epoch = held[tick.key].epoch
                assert epoch
                await tick.run(Fence(tick.key, epoch))
        it = await self.store.fleet.instance("aws-1")
        assert it
        return it

    async def ask(self, kind: Kind, **more: Any) -> None:
        now_ms = self.clock.now_ms()
        asked = Command(f"{kind}-{now_ms}", kind, now_ms, "ops", ("aws-1",), **more)
        assert await self.store.fleet.ask(asked)


def well() -> WorkerReport:
    return WorkerReport(True, None, ("m",), 2, 0, engine={"state": "serving"})


async def test_a_machine_goes_from_its_order_to_the_archive(
    redis: Redis, store: RedisStore, clock: ManualClock, world: MotoWorld
) -> None:
    """0 to 100 %, and back to nothing, with its disks and its history."""
    ec2 = world.of("ours", keep_data_disk=True)
    works = Clockwork(redis, store, clock, ec2)
    await works.ask(Kind.PROVISION, order=world.order)
    it = await works.run(30)
    assert (it.state, it.progress) == ("booting", 40)
    assert it.address
    assert sorted((v.is_boot, v.delete_on_terminate) for v in it.volumes) == [
        (False, False),
        (True, True),
    ]
    identity = {"url": f"https://{it.address}:9001", "kind": "agent", "models": []}
    await store.register_worker(
        DEFAULT_POOL, it.id, identity=identity, slots=2, token_hash="own", presented_hash=""
    )
    it = await works.run(10, WorkerReport(False, "fetches", (), 2, engine={"state": "fetching"}))
    assert it.progress == 50
    it = await works.run(10, well())
    assert (it.state, it.progress) == ("ready", 100)
    await works.ask(Kind.DRAIN, drain_s=600)
    await works.run(10, well())
    it = await works.run(60)
    assert (it.state, it.error_code) == ("terminated", "")
    assert [(v.is_boot, v.state) for v in it.volumes] == [(False, "kept"), (True, "deleted")]
    assert await ec2.machines() == []
    (kept,) = world.client.describe_volumes()["Volumes"]
    assert kept["State"] == "available"
    assert await store.workers(DEFAULT_POOL) == []
    await works.ask(Kind.ARCHIVE)
    assert (await works.run(5)).state == "archived"
    names = [entry.event.name for entry in await store.fleet.history()]
    told = [
        "request",
        "create",
        "see_volumes",
        "become_ready",
        "drain",
        "terminate",
        "lose_machine",
    ]
    assert [name for name in names if name in told] == told
    assert names[-5:] == ["keep_volume", "delete_volume", "lose_volume", "end", "archive"]
