"""The fake cloud, over which the fleet is simulated, keeps the contract that real ones keep."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from admission.clock import ManualClock
from admission.instance import Order
from tests.fleet.cloud import FakeCloud, Times
from tests.providers.contract import ProviderContract, World


class CloudWorld(World):
    order = Order("cloud", type="gpu.1", zone="a", options={"data": "1"})
    bad_order = Order("cloud", type="gpu.9", zone="a")

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.provider = self.cloud = FakeCloud(self.clock.now_ms, times=Times(lag=20_000))

    async def settle(self) -> None:
        self.clock.advance_ms(120_000)

    @contextmanager
    def _fault(self, kind: str) -> Iterator[None]:
        self.cloud.fault = lambda call: kind
        yield
        self.cloud.fault = lambda call: ""

    def no_answer(self) -> AbstractContextManager[None]:
        return self._fault("down")

    def lost_reply(self) -> AbstractContextManager[None]:
        return self._fault("lost")

    def throttled(self) -> AbstractContextManager[None]:
        return self._fault("throttled")

    @contextmanager
    def refusing(self, code: str) -> Iterator[None]:
        cloud, before = self.cloud, self.cloud.quota
        match code:
            case "PROVIDER_OUT_OF_STOCK":
                cloud.sold_out.add("a")
            case "PROVIDER_QUOTA_EXCEEDED":
                cloud.quota = 0
            case _:
                cloud.denied = True
        yield
        cloud.sold_out, cloud.quota, cloud.denied = set(), before, False

    async def stranger(self) -> str:
        return self.cloud.make("i-other", self.order, deployment="theirs").id

    async def delete_behind_our_back(self, provider_id: str) -> None:
        self.cloud.end(self.cloud.vms[provider_id])

    async def forget_owner(self, instance_id: str) -> None:
        self.cloud.end(self.cloud.vms[self.cloud.tokens[instance_id]])
        await self.settle()


class TestFakeCloud(ProviderContract):
    @pytest.fixture
    async def world(self) -> World:
        return CloudWorld()
