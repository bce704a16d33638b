"""An account of Amazon EC2 that is `tests.providers.ec2`, and what its tests can do to it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import pytest

from admission.clock import ManualClock
from admission.instance import Order
from infra.providers.aws import Ec2, Settings
from infra.providers.aws.calls import Calls
from tests.providers.contract import OTHER, World
from tests.providers.ec2 import FakeEc2, Wire

REGION = "eu-central-1"
SUBNETS = {"eu-central-1a": "subnet-0a", "eu-central-1b": "subnet-0b"}
ZONES = {subnet: zone for zone, subnet in SUBNETS.items()}
ORDER = Order("aws", type="g6e.xlarge", zone="eu-central-1a", model="org/model")
SPOT = Order("aws", type="g6e.xlarge", zone="eu-central-1b", market="spot")


def settings(**more: Any) -> Settings:
    of_ours: dict[str, Any] = {
        "region": REGION,
        "subnets": SUBNETS,
        "types": {"g6e.xlarge": 16, "g6.xlarge": 8},
        "markets": ("on-demand", "spot"),
        "image": "ami-0a",
        "user_data": "worker.sh",
        "instance_profile": "worker",
        "security_groups": ("sg-0a",),
        "disk": 100,
        "data_disk": 200,
    }
    return Settings(**of_ours | more)


@cache
def calls() -> Calls:
    """One client for all tests: to make one takes a fifth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "none")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        made = Calls(REGION)
        made.client()._get_credentials()
    return made


@cache
def wire() -> Wire:
    return Wire(calls().client())


class Ec2World(World):
    order = ORDER
    bad_order = Order("aws", type="g6e.xlarge", zone="eu-central-1z")

    def __init__(self, lag_ms: int = 0, **more: Any) -> None:
        self.clock = ManualClock()
        self.cloud = FakeEc2(self.clock.now_ms, ZONES, lag_ms=lag_ms)
        self.wire = wire()
        self.wire.heal()
        self.cloud.attach(calls().client())
        self.provider = self.ec2 = self.of("ours", **more)

    def of(self, deployment: str, *, script: bytes = b"#!", **more: Any) -> Ec2:
        def clock() -> float:
            return self.clock.now_ms() / 1000

        return Ec2("aws", settings(**more), deployment, calls(), user_data=script, clock=clock)

    async def settle(self) -> None:
        self.clock.advance_ms(120_000)

    def no_answer(self) -> AbstractContextManager[None]:
        return self.wire.breaking("down")

    def lost_reply(self) -> AbstractContextManager[None]:
        return self._lost()

    @contextmanager
    def _lost(self) -> Iterator[None]:
        """Only what changes something: else nothing would be changed."""
        changes = ("RunInstances", "TerminateInstances")
        self.wire.fault = lambda asked: "lost" if asked in changes else ""
        yield
        self.wire.fault = lambda asked: ""

    def throttled(self) -> AbstractContextManager[None]:
        return self.wire.breaking("RequestLimitExceeded")

    @contextmanager
    def refusing(self, code: str) -> Iterator[None]:
        match code:
            case "PROVIDER_OUT_OF_STOCK":
                self.cloud.sold_out = {"eu-central-1a"}
            case "PROVIDER_QUOTA_EXCEEDED":
                self.cloud.quota = 0
            case _:
                self.wire.fault = lambda asked: (
                    "UnauthorizedOperation" if asked == "RunInstances" else ""
                )
        yield
        self.cloud.sold_out, self.cloud.quota = set(), 100
        self.wire.fault = lambda asked: ""

    async def stranger(self) -> str:
        return (await self.of("theirs").launch(OTHER, ORDER)).provider_id

    async def delete_behind_our_back(self, provider_id: str) -> None:
        self.cloud.end(self.cloud.vms[provider_id])

    async def forget_owner(self, instance_id: str) -> None:
        """Somebody told EC2 to keep its disks, and ended it."""
        vm = next(iter(self.cloud.vms.values()))
        for disk in self.cloud.disks.values():
            disk.goes = False
        self.cloud.end(vm)
        await self.settle()

    def close(self) -> None:
        self.cloud.detach(calls().client())
