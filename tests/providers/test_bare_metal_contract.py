"""Hosts over SSH: the contract over a real sshd. Two folders of one machine stand for two."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from admission.instance import Order
from scheduler.fleet.port import Power, Provider, Unclear
from tests.providers.contract import ProviderContract, World
from tests.providers.metal import open_it, settings
from tests.providers.sshd import Sshd

pytestmark = pytest.mark.long  # some two hundred connections


class MetalWorld(World):
    provider: Provider
    order = Order("metal")
    bad_order = Order("metal", zone="attic")
    disks = False

    def __init__(self, server: Sshd, folder: Path) -> None:
        self.server, self.folder = server, folder
        # No model server: what is installed is the tests' of the installation to see.
        self.settings = settings(server, folder, vllm="/bin/false")
        self.provider = open_it(self.settings, folder)

    async def settle(self) -> None:
        """What was to end has ended."""
        async with asyncio.timeout(20):
            while True:
                machines = await self.provider.machines()
                if not any(each.power is Power.STOPPING for each in machines):
                    return
                await asyncio.sleep(0.05)

    @contextmanager
    def no_answer(self) -> Iterator[None]:
        """Its network is away."""
        with pytest.MonkeyPatch.context() as patch:
            for door in self.provider._doors.values():  # type: ignore[attr-defined]
                patch.setattr(door, "host", msgspec.structs.replace(door.host, port=1))
            yield

    @contextmanager
    def lost_reply(self) -> Iterator[None]:
        """Looking is answered; a step that changes something is done, and not answered."""
        door = self.provider._doors["one"]  # type: ignore[attr-defined]
        step = door.step

        async def lost(command: str, *words: str, **more: Any) -> Any:
            if command != "look":
                self.server.losing.touch()
            try:
                return await step(command, *words, **more)
            finally:
                self.server.losing.unlink(missing_ok=True)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(door, "step", lost)
            yield

    @contextmanager
    def refusing(self, code: str) -> Iterator[None]:
        if code == "SSH_NOT_ACCESSIBLE":
            self.server.known_hosts.write_text("")
            yield
            self.server.know()
            return
        for name in ("one", "two"):
            self.claim_for_others(name)
        yield
        for name in ("one", "two"):
            shutil.rmtree(self.folder / name)

    def claim_for_others(self, name: str) -> None:
        (self.folder / name).mkdir()
        (self.folder / name / "claim").write_text("theirs i-other 1000\n")

    async def stranger(self) -> str:
        self.claim_for_others("one")
        return "one/i-other"

    async def delete_behind_our_back(self, provider_id: str) -> None:
        shutil.rmtree(self.folder / provider_id.partition("/")[0])


class TestBareMetal(ProviderContract):
    REFUSALS: ClassVar = ["PROVIDER_OUT_OF_STOCK", "SSH_NOT_ACCESSIBLE"]

    @pytest.fixture
    async def world(self, tmp_path: Path, server: Sshd) -> World:
        return MetalWorld(server, tmp_path)


async def test_a_claim_whose_host_went_silent_is_made_on_no_other(
    tmp_path: Path, server: Sshd
) -> None:
    world = MetalWorld(server, tmp_path)
    with world.lost_reply(), pytest.raises(Unclear):
        await world.provider.launch("i-a", world.order)
    door = world.provider._doors["one"]  # type: ignore[attr-defined]
    there, door.host = door.host, msgspec.structs.replace(door.host, port=1)
    with pytest.raises(Unclear, match="may have been claimed"):
        await world.provider.launch("i-a", world.order)
    assert not (tmp_path / "two").exists()
    door.host = there
    assert (await world.provider.launch("i-a", world.order)).provider_id == "one/i-a"
