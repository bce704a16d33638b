"""Workers on this machine: the contract over real processes, and a real `vestibule worker`."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import psutil
import pytest

from admission.instance import Order
from infra.providers.deployment import Deployment
from infra.providers.local import Local, Settings, open, processes
from infra.providers.local.folder import MachineFolder
from scheduler.fleet.port import Gone, Machine, Power, Refused, Unclear
from tests.providers.contract import ID, OTHER, ProviderContract, World
from tests.providers.metal import TOKEN
from tests.worker.processes import BAD_VLLM, GOOD_VLLM, stand_in_for_vllm
from tests.worker.stand_ins import Admission

# Starts a process of its own, as a worker does, and ends with it.
QUIET = "trap 'kill $!; exit 0' TERM; echo begun; sleep 300 & wait"
DEAF = "trap '' TERM; echo begun; sleep 300; sleep 300"
DEADLINE_S = 20.0


def deployment(folder: Path, admission_url: str = "http://127.0.0.1:1", token: str = TOKEN) -> Any:
    return Deployment("ours", admission_url, token, folder / "state", folder)


async def until(holds: Callable[[], Any], within_s: float = DEADLINE_S) -> Any:
    async with asyncio.timeout(within_s):
        while True:
            if found := await holds():
                return found
            await asyncio.sleep(0.02)


class LocalWorld(World):
    order = Order("local")
    bad_order = Order("local", zone="here")
    disks = False

    def __init__(self, folder: Path, capacity: int = 2, script: str = QUIET) -> None:
        self.folder = folder / "workers"
        command = ("/bin/sh", "-c", script)
        settings = Settings(command=command, capacity=capacity, folder="workers")
        self.now_s = 1_000.0
        self.provider = self.local = Local(
            "local", settings, deployment(folder), lambda: self.now_s
        )

    async def settle(self) -> None:
        """What was begun has started, or ended."""

        async def quiet() -> bool:
            machines = await self.provider.machines()
            begun = all(
                MachineFolder(self.folder / each.instance_id).last_words() for each in machines
            )
            return begun and not any(each.power is Power.STOPPING for each in machines)

        await until(quiet)

    @contextmanager
    def no_answer(self) -> Iterator[None]:
        """The disk with the folder is away."""
        away = self.folder.with_name("away")
        self.folder.rename(away)
        yield
        away.rename(self.folder)

    @contextmanager
    def lost_reply(self) -> Iterator[None]:
        """The disk is full right after the processes were told."""

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with pytest.MonkeyPatch.context() as patch:
            for name in ("start", "ask_to_end"):
                patch.setattr(processes, name, _then(getattr(processes, name), full, patch))
            yield

    @contextmanager
    def refusing(self, code: str) -> Iterator[None]:
        assert code == "PROVIDER_QUOTA_EXCEEDED"
        for name in ("x-1", "x-2"):
            (self.folder / name).mkdir()
        yield
        for name in ("x-1", "x-2"):
            (self.folder / name).rmdir()

    async def delete_behind_our_back(self, provider_id: str) -> None:
        folder = self.folder / provider_id
        processes.kill(processes.of(folder))
        shutil.rmtree(folder)

    def close(self) -> None:
        for folder in self.folder.iterdir():
            processes.kill(processes.of(folder))


def _then(first: Any, second: Any, patch: pytest.MonkeyPatch) -> Any:
    def both(*arguments: Any) -> None:
        first(*arguments)
        patch.setattr(MachineFolder, "write", second)

    return both


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[LocalWorld]:
    made = LocalWorld(tmp_path)
    yield made
    made.close()


class TestLocal(ProviderContract):
    REFUSALS: ClassVar = ["PROVIDER_QUOTA_EXCEEDED"]

    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[World]:
        made = LocalWorld(tmp_path)
        yield made
        made.close()


async def _look(world: LocalWorld, name: str = ID) -> Machine:
    found = await world.provider.look(name)
    assert isinstance(found, Machine)
    return found


# --- processes ------------------------------------------------------------------------------------


async def test_another_scheduler_finds_what_the_first_one_started(tmp_path: Path) -> None:
    first = LocalWorld(tmp_path)
    launched = await first.provider.launch(ID, first.order)
    await first.settle()
    await first.provider.close()
    second = LocalWorld(tmp_path)
    assert await second.provider.find(ID) == launched
    assert await second.provider.launch(ID, second.order) == launched
    assert len(processes.of(first.folder / ID)) == 2  # the shell and its child
    second.close()


async def test_a_worker_belongs_to_nobody(world: LocalWorld) -> None:
    """It outlives the scheduler and no Ctrl-C reaches it."""
    await world.provider.launch(ID, world.order)
    await world.settle()
    ours = {child.pid for child in psutil.Process().children(recursive=True)}
    theirs = {process.pid for process in processes.of(world.folder / ID)}
    assert not ours & theirs
    assert {os.getsid(pid) for pid in theirs}.isdisjoint({os.getsid(0)})


async def test_one_whose_start_was_not_noted_is_not_started_twice(world: LocalWorld) -> None:
    with world.lost_reply(), pytest.raises(Unclear, match="No space left"):
        await world.provider.launch(ID, world.order)
    before = {process.pid for process in processes.of(world.folder / ID)}
    assert before
    assert (await world.provider.launch(ID, world.order)).power is Power.RUNNING
    sessions = {os.getsid(process.pid) for process in processes.of(world.folder / ID)}
    assert len(sessions) == 1  # each start has one; a shell's child bears its name for a moment


async def test_an_end_takes_what_a_dead_worker_left_behind(world: LocalWorld) -> None:
    await world.provider.launch(ID, world.order)
    await world.settle()
    shell, child = sorted(processes.of(world.folder / ID), key=lambda each: each.pid)
    shell.kill()

    async def alone() -> bool:
        return not shell.is_running() or shell.status() == psutil.STATUS_ZOMBIE

    await until(alone)
    assert (await _look(world)).power is Power.RUNNING
    await world.provider.terminate(ID)
    await world.settle()
    assert await world.provider.look(ID) == Gone()
    assert not processes.of(world.folder / ID)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


async def test_a_worker_in_the_midst_of_an_exec_is_there(world: LocalWorld) -> None:
    """It shows no environment then."""
    await world.provider.launch(ID, world.order)
    await world.settle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psutil.Process, "environ", lambda self: {})
        assert (await _look(world)).power is Power.RUNNING
        assert not processes.of(world.folder / OTHER)


async def test_what_is_asked_at_once_is_done_one_after_the_other(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path, capacity=4)
    names = [f"i-{number}" for number in range(4)]
    machines = await asyncio.gather(*(world.provider.launch(n, world.order) for n in names))
    assert len({machine.address for machine in machines}) == 4
    await world.settle()
    await asyncio.gather(*(world.provider.terminate(name) for name in names))
    await world.settle()
    assert await world.provider.machines() == []


async def test_what_does_not_end_is_killed(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path, script=DEAF)
    await world.provider.launch(ID, world.order)
    await world.settle()
    await world.provider.terminate(ID)
    world.now_s += 45
    assert (await _look(world)).power is Power.STOPPING
    world.now_s += 45

    async def gone() -> bool:
        return await world.provider.look(ID) == Gone()

    await until(gone)
    assert not processes.of(world.folder / ID)


async def test_a_worker_that_died_says_why(tmp_path: Path) -> None:
    world = LocalWorld(tmp_path, script=f"echo no such model, says {TOKEN}; exit 3")
    await world.provider.launch(ID, world.order)

    async def stopped() -> Any:
        machine = await _look(world)
        return machine if machine.power is Power.STOPPED else None

    machine = await until(stopped)
    assert machine.failure == ("INSTALL_FAILED", "its worker has ended: no such model, says …")
    assert (await world.provider.launch(ID, world.order)).power is Power.STOPPED
    await world.provider.terminate(ID)
    assert await world.provider.look(ID) == Gone()
    assert (world.folder / "ended" / ID / "worker.log").read_text().startswith("no such model")


async def test_the_log_of_one_that_ended_goes_after_a_week(world: LocalWorld) -> None:
    await world.provider.launch(ID, world.order)
    await world.settle()
    await world.provider.terminate(ID)
    await world.settle()
    with pytest.raises(Refused) as refused:
        await world.provider.launch(ID, world.order)
    assert refused.value.code == "DELETED_BY_PROVIDER"
    grave = world.folder / "ended" / ID
    assert [each.name for each in grave.iterdir()] == ["worker.log"]
    world.now_s = grave.stat().st_mtime + 8 * 86_400
    await world.provider.machines()
    assert not grave.exists()


async def test_a_launch_that_broke_off_before_its_process_is_begun_again(world: LocalWorld) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "start", lambda *_: (_ for _ in ()).throw(OSError("no memory")))
        with pytest.raises(Unclear, match="no memory"):
            await world.provider.launch(ID, world.order)
    assert (await _look(world)).power is Power.STARTING
    await world.provider.launch(ID, world.order)
    await world.settle()
    assert (await _look(world)).power is Power.RUNNING


async def test_a_program_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    settings = Settings(model="m", vllm="no-such-vllm")
    provider = open("local", settings, deployment(tmp_path))
    with pytest.raises(Refused, match="no-such-vllm") as refused:
        await provider.launch(ID, Order("local"))
    assert refused.value.code == "INSTALL_FAILED"
    assert await provider.machines() == []


async def test_paths_are_found_from_the_fleet_files_folder(tmp_path: Path) -> None:
    script = tmp_path / "worker"
    script.write_text('#!/bin/sh\necho "$VESTIBULE_MODEL" > said\nexec sleep 300\n')
    script.chmod(0o700)
    settings = Settings(command=("./worker",), model="./tiny", folder="w")
    provider = open("local", settings, deployment(tmp_path))
    await provider.launch(ID, Order("local"))
    said = tmp_path / "w" / ID / "said"

    async def written() -> str:
        return said.read_text() if said.exists() else ""

    assert await until(written) == f"{tmp_path}/tiny\n"
    await provider.end_all()


async def test_the_token_is_in_no_command_line(world: LocalWorld) -> None:
    await world.provider.launch(ID, world.order)
    await world.settle()
    found = processes.of(world.folder / ID)
    assert found
    assert not any(TOKEN in " ".join(process.cmdline()) for process in found)
    assert found[0].environ()["VESTIBULE_WORKER_TOKEN"] == TOKEN
    assert (world.folder / ID).stat().st_mode & 0o077 == 0


# --- a real worker --------------------------------------------------------------------------------


@pytest.mark.long
async def test_real_workers_register_by_their_instances_ids_and_end(
    tmp_path: Path, admission: Admission
) -> None:
    vllm = stand_in_for_vllm(tmp_path, GOOD_VLLM)
    settings = Settings(model="demo", vllm=str(vllm), capacity=2, drain=1, folder="w")
    provider = open("local", settings, deployment(tmp_path, admission.url))
    machine = await provider.launch(ID, Order("local", pool="night"))
    await admission.until_ready()
    report = admission.heartbeats[-1].body
    assert (report["worker_id"], report["pool"]) == (ID, "night")
    assert admission.registrations[0].body["url"] == f"http://{machine.address}"
    assert (await provider.look(ID)) == msgspec.structs.replace(machine, power=Power.RUNNING)
    assert sys.executable in " ".join(processes.of(tmp_path / "w" / ID)[0].cmdline())
    await provider.end_all()
    assert not processes.of(tmp_path / "w" / ID)
    assert admission.drains


@pytest.mark.long
async def test_a_real_worker_whose_model_does_not_start_says_why(
    tmp_path: Path, admission: Admission
) -> None:
    vllm = stand_in_for_vllm(tmp_path, BAD_VLLM)
    settings = Settings(model="demo", vllm=str(vllm), drain=0, folder="w")
    provider = open("local", settings, deployment(tmp_path, admission.url))
    await provider.launch(ID, Order("local"))

    async def failed() -> Any:
        found = await provider.look(ID)
        return isinstance(found, Machine) and found.failure

    code, words = await until(failed)
    assert code == "INSTALL_FAILED"
    assert "status 3" in words
    await provider.end_all()


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"capacity": 0}, "capacity"),
        ({"slots": 0}, "slots"),
        ({"drain": -1}, "drain"),
        ({"price_per_hour": 0}, "price_per_hour"),
        ({"type": "a b"}, "type"),
        ({"environment": {"HF_TOKEN": "x"}}, "environment"),
        ({"environment": {"VESTIBULE_WORKER_ID": "x"}}, "environment"),
        ({"vllm": ""}, "vllm"),
        ({"command": [""]}, "command"),
        ({"command": ["x"], "arguments": ["y"]}, "arguments"),
        ({"capcity": 1}, "capcity"),
    ],
)
def test_a_wrong_setting_is_named(table: dict[str, Any], field: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert(table, Settings, strict=True)


@pytest.mark.parametrize(
    ("order", "field"),
    [
        (Order("local", type="gpu.9"), "type"),
        (Order("local", market="spot"), "market"),
        (Order("local", options={"image": "x"}), "options"),
        (Order("local", model="a\nb"), "model"),
    ],
)
async def test_a_wrong_order_is_refused_by_its_field(
    world: LocalWorld, order: Order, field: str
) -> None:
    with pytest.raises(Refused, match=field):
        await world.provider.launch(OTHER, order)
    assert await world.provider.machines() == []


async def test_a_full_disk_keeps_no_end_from_making_room(
    world: LocalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = await world.provider.launch(ID, world.order)
    await world.settle()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MachineFolder, "write", full)

    async def is_gone() -> bool:
        with suppress(Unclear):
            await world.provider.terminate(machine.provider_id)
        return await world.provider.look(machine.provider_id) == Gone()

    await until(is_gone)
    assert not processes.of(world.folder / ID)


async def test_no_part_of_the_token_is_in_its_last_words(tmp_path: Path) -> None:
    """Whatever is cut is cut after it was taken out."""
    script = f'printf "%s\\n" "$VESTIBULE_WORKER_TOKEN" "{"#" * 285}"'
    world = LocalWorld(tmp_path, script=script)
    machine = await world.provider.launch(ID, world.order)

    async def failure() -> Any:
        found = await world.provider.look(machine.provider_id)
        return isinstance(found, Machine) and found.power is Power.STOPPED and found.failure

    code, words = await until(failure)
    assert code == "INSTALL_FAILED"
    assert "###" in words
    assert TOKEN[-6:] not in words
    assert len(words) < 400
