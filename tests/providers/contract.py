"""The contract of the port (`scheduler.fleet.port`) as tests that any adapter can be given.

An adapter's test module makes a `World` of its own and a class that inherits `ProviderContract`::

    class TestEc2(ProviderContract):
        @pytest.fixture
        async def world(self) -> AsyncIterator[World]: ...

What an adapter cannot show is skipped, and says what is missing.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import ClassVar

import pytest

from admission.instance import Instance, Order, State, Volume
from scheduler.fleet.codes import CODES
from scheduler.fleet.port import Gone, Machine, Power, Provider, Refused, Unclear

ID, OTHER = "i-contract-1", "i-contract-2"


class World(ABC):
    """A provider, and what its tests can do to what is behind it."""

    provider: Provider
    order: Order  # a good one
    bad_order: Order | None = None  # one that is refused as PROVIDER_INVALID_ORDER
    disks: bool = True  # its machines have volumes that outlive them or can be seen
    starts_late: bool = False  # a machine runs only after `advance` or real minutes

    @abstractmethod
    async def settle(self) -> None:
        """Let happen what was begun: starts, deletions, lists that lag."""

    @abstractmethod
    def no_answer(self) -> AbstractContextManager[None]:
        """While it lasts, no call is done, and none is answered."""

    def lost_reply(self) -> AbstractContextManager[None]:
        """While it lasts, calls are done and their replies are lost."""
        pytest.skip("this world cannot lose a reply")

    def throttled(self) -> AbstractContextManager[None]:
        """While it lasts, every call is throttled."""
        pytest.skip("this world does not throttle")

    def refusing(self, code: str) -> AbstractContextManager[None]:
        """While it lasts, a launch meets what this code stands for."""
        pytest.skip(f"this world has no {code}")

    async def stranger(self) -> str:
        """Make a machine without this deployment's tag; its provider id."""
        pytest.skip("this world has no machines of others")

    async def delete_behind_our_back(self, provider_id: str) -> None:
        """Somebody else deletes the machine."""
        pytest.skip("nobody else can delete a machine of this world")

    async def forget_owner(self, instance_id: str) -> None:
        """End the machine so that only its disks are left."""
        pytest.skip("this world leaves no disks")


class ProviderContract:
    """Inherit it, and give a `world`."""

    REFUSALS: ClassVar = ["PROVIDER_OUT_OF_STOCK", "PROVIDER_QUOTA_EXCEEDED", "PROVIDER_DENIED"]

    @pytest.fixture
    async def world(self) -> World:
        raise NotImplementedError

    # --- launch ----------------------------------------------------------------------------------

    async def test_a_launch_said_twice_is_one_machine(self, world: World) -> None:
        first = await world.provider.launch(ID, world.order)
        again = await world.provider.launch(ID, world.order)
        await world.settle()
        assert first.provider_id
        assert first.instance_id == again.instance_id == ID
        assert again.provider_id == first.provider_id
        assert [m.instance_id for m in await world.provider.machines()] == [ID]

    async def test_two_ids_are_two_machines(self, world: World) -> None:
        if world.provider.capacity == 1:
            pytest.skip("it has one machine only")
        first = await world.provider.launch(ID, world.order)
        second = await world.provider.launch(OTHER, world.order)
        await world.settle()
        assert first.provider_id != second.provider_id
        assert {m.instance_id for m in await world.provider.machines()} == {ID, OTHER}

    async def test_a_launch_whose_reply_was_lost_is_found_and_not_doubled(
        self, world: World
    ) -> None:
        with world.lost_reply(), pytest.raises(Unclear):
            await world.provider.launch(ID, world.order)
        await world.settle()
        found = await world.provider.find(ID)
        assert isinstance(found, Machine)
        again = await world.provider.launch(ID, world.order)
        assert again.provider_id == found.provider_id
        assert len(await world.provider.machines()) == 1

    async def test_an_id_whose_machine_has_ended_gets_no_second_one(self, world: World) -> None:
        machine = await world.provider.launch(ID, world.order)
        await world.settle()
        await world.provider.terminate(machine.provider_id)
        await world.settle()
        try:
            again = await world.provider.launch(ID, world.order)
        except (Refused, Unclear):
            return
        # Where machines are not made but lent, the same one may be taken again.
        assert again.provider_id == machine.provider_id

    async def test_a_refusal_has_a_code_of_the_fleet(self, world: World) -> None:
        for code in self.REFUSALS:
            with world.refusing(code):
                with pytest.raises(Refused) as refused:
                    await world.provider.launch(ID, world.order)
                assert refused.value.code == code
                assert refused.value.code in CODES
                assert refused.value.detail
        await world.settle()
        assert await world.provider.find(ID) == Gone()

    async def test_an_order_that_is_wrong_is_refused(self, world: World) -> None:
        if world.bad_order is None:
            pytest.skip("this world refuses no order for its words")
        with pytest.raises(Refused) as refused:
            await world.provider.launch(ID, world.bad_order)
        assert refused.value.code == "PROVIDER_INVALID_ORDER"

    # --- look ------------------------------------------------------------------------------------

    async def test_a_machine_runs_and_has_an_address(self, world: World) -> None:
        machine = await world.provider.launch(ID, world.order)
        await world.settle()
        there = await world.provider.look(machine.provider_id)
        assert isinstance(there, Machine)
        assert there.provider_id == machine.provider_id
        assert there.instance_id == ID
        assert there.power is Power.RUNNING
        assert there.address
        assert await world.provider.find(ID) == there

    async def test_what_was_never_there_is_gone(self, world: World) -> None:
        launched = await world.provider.launch(ID, world.order)
        unknown = launched.provider_id[:-1] + ("0" if launched.provider_id[-1] != "0" else "1")
        assert await world.provider.look(unknown) == Gone()
        assert await world.provider.find(OTHER) == Gone()

    async def test_what_somebody_else_deleted_is_gone(self, world: World) -> None:
        machine = await world.provider.launch(ID, world.order)
        await world.settle()
        await world.delete_behind_our_back(machine.provider_id)
        await world.settle()
        assert await world.provider.look(machine.provider_id) == Gone()

    async def test_no_answer_says_nothing(self, world: World) -> None:
        provider = world.provider
        machine = await provider.launch(ID, world.order)
        await world.settle()
        with world.no_answer():
            for call in (
                lambda: provider.look(machine.provider_id),
                lambda: provider.find(ID),
                lambda: provider.terminate(machine.provider_id),
                lambda: provider.machines(),
                lambda: provider.launch(OTHER, world.order),
            ):
                with pytest.raises(Unclear):
                    await call()
            if world.disks:
                for ask in (
                    lambda: provider.volumes(ID, machine.provider_id),
                    lambda: provider.orphan_volumes(frozenset()),
                    lambda: provider.look_volume("vol-none"),
                ):
                    with pytest.raises(Unclear):
                        await ask()
        assert isinstance(await provider.look(machine.provider_id), Machine)

    async def test_a_throttled_call_says_so(self, world: World) -> None:
        machine = await world.provider.launch(ID, world.order)
        await world.settle()
        with world.throttled(), pytest.raises(Unclear) as unclear:
            await world.provider.look(machine.provider_id)
        assert unclear.value.throttled

    # --- the end ---------------------------------------------------------------------------------

    async def test_an_end_may_be_asked_for_again_at_any_time(self, world: World) -> None:
        machine = await world.provider.launch(ID, world.order)
        await world.settle()
        await world.provider.terminate(machine.provider_id)
        await world.provider.terminate(machine.provider_id)
        await world.settle()
        assert await world.provider.look(machine.provider_id) == Gone()
        await world.provider.terminate(machine.provider_id)
        assert await world.provider.look(machine.provider_id) == Gone()
        assert await world.provider.find(ID) == Gone()
        assert not await world.provider.machines()

    async def test_an_end_whose_reply_was_lost_is_one(self, world: World) -> None:
        machine = await world.provider.launch(ID, world.order)
        await world.settle()
        with world.lost_reply(), pytest.raises(Unclear):
            await world.provider.terminate(machine.provider_id)
        await world.settle()
        assert await world.provider.look(machine.provider_id) == Gone()

    # --- lists -----------------------------------------------------------------------------------

    async def test_machines_of_others_are_not_listed(self, world: World) -> None:
        foreign = await world.stranger()
        mine = await world.provider.launch(ID, world.order)
        await world.settle()
        listed = [machine.provider_id for machine in await world.provider.machines()]
        assert listed == [mine.provider_id]
        assert foreign not in listed

    async def test_what_is_offered_may_be_ordered(self, world: World) -> None:
        offers = await world.provider.offers()
        assert offers
        assert all(each.slots > 0 for each in offers)
        assert all(not each.price_per_hour or each.price_per_hour > 0 for each in offers)
        prices = [each.price_per_hour for each in offers if each.price_per_hour is not None]
        assert all(each > 0 for each in prices)

    async def test_a_step_of_the_installation_may_be_repeated(self, world: World) -> None:
        machine = await world.provider.launch(ID, world.order)
        await world.settle()
        there = await world.provider.look(machine.provider_id)
        assert isinstance(there, Machine)
        record = Instance(
            id=ID,
            order=world.order,
            state=State.BOOTING,
            version=2,
            progress=40,
            requested_ms=0,
            since_ms=0,
            moved_ms=0,
            provider_id=machine.provider_id,
            address=there.address,
        )
        for _ in range(2):
            there = await world.provider.advance(record, there)
            assert there.provider_id == machine.provider_id
            assert there.instance_id == ID

    # --- disks -----------------------------------------------------------------------------------

    async def test_disks_are_found_looked_at_and_deleted(self, world: World) -> None:
        self._needs_disks(world)
        provider = world.provider
        machine = await provider.launch(ID, world.order)
        await world.settle()
        found = await provider.volumes(ID, machine.provider_id)
        assert any(each.is_boot for each in found)
        assert all(each.size_gb > 0 and each.volume_type for each in found)
        names = {each.provider_volume_id for each in found}
        assert len(names) == len(found)
        for name in names:
            assert isinstance(await provider.look_volume(name), Volume)
        await provider.terminate(machine.provider_id)
        await world.settle()
        left = await provider.volumes(ID, machine.provider_id)
        assert {each.provider_volume_id for each in left} <= names
        assert {v.provider_volume_id for v in await provider.volumes(ID, "")} == {
            each.provider_volume_id for each in left
        }
        for each in left:
            await provider.delete_volume(each.provider_volume_id)
            await provider.delete_volume(each.provider_volume_id)
        await world.settle()
        for name in names:
            assert await provider.look_volume(name) == Gone()
            await provider.delete_volume(name)
        assert not await provider.volumes(ID, machine.provider_id)

    async def test_a_disk_in_use_is_not_said_to_be_deleted(self, world: World) -> None:
        self._needs_disks(world)
        machine = await world.provider.launch(ID, world.order)
        await world.settle()
        boot = next(v for v in await world.provider.volumes(ID, machine.provider_id) if v.is_boot)
        with pytest.raises(Unclear):
            await world.provider.delete_volume(boot.provider_volume_id)
        assert isinstance(await world.provider.look_volume(boot.provider_volume_id), Volume)

    async def test_disks_that_outlive_their_machine_are_told_with_its_id(
        self, world: World
    ) -> None:
        self._needs_disks(world)
        await world.provider.launch(ID, world.order)
        await world.settle()
        assert await world.provider.orphan_volumes(frozenset({ID})) == []
        await world.forget_owner(ID)
        lost = await world.provider.orphan_volumes(frozenset())
        assert lost
        assert {owner for owner, _ in lost} == {ID}
        assert await world.provider.orphan_volumes(frozenset({ID})) == []

    @staticmethod
    def _needs_disks(world: World) -> None:
        if not world.disks:
            pytest.skip("its machines have no disks of their own")
