"""The port over processes of this machine. Nothing here waits for a worker; each look sees anew."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from admission.instance import INSTANCE_ID, Instance, Offer, Order
from infra import addresses
from infra.providers import fields
from infra.providers.deployment import Deployment
from infra.providers.diskless import Diskless
from infra.providers.local import processes
from infra.providers.local.folder import Folder, MachineFolder, Record
from infra.providers.local.settings import Settings
from infra.worker import AGENT_STOP_S
from scheduler.fleet.port import Gone, Machine, Power, Refused, Unclear

WORDS_MAX = 300  # of a worker's last ones
KILL_MARGIN_S = 5.0  # on top of what a worker takes for its own end
POLL_S = 0.1
# What a worker's environment does not inherit: our settings, and keys to what is not its.
_NOT_INHERITED = ("VESTIBULE_", "WORKER_", "REDIS_", "AWS_")

T = TypeVar("T")


class Local(Diskless):
    """A `Provider` whose machines are processes, their folders and a port each.

    Any number of schedulers of this machine may use one folder; the processes belong to none.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        deployment: Deployment,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.ending = "its process ends"
        self.capacity: int | None = settings.capacity
        self.lag_s: float = 0.0
        self._settings, self._deployment, self._clock = settings, deployment, clock
        given = fields.placed(deployment.folder, settings.folder)
        kept = given if settings.folder else deployment.state_dir / "machines" / name
        program = settings.command[0] if settings.command else settings.vllm
        beside = deployment.folder
        self._program = str(fields.placed(beside, program)) if "/" in program else program
        by_path = settings.model.startswith((".", "~"))
        self._model = str(fields.placed(beside, settings.model)) if by_path else settings.model
        self._folder = Folder(kept)

    # --- the port --------------------------------------------------------------------------------

    async def offers(self) -> Sequence[Offer]:
        it = self._settings
        source = "the fleet file" if it.price_per_hour else ""
        return [
            Offer(it.type, "", "on-demand", it.price_per_hour, it.currency, it.slots, source=source)
        ]

    async def launch(self, instance_id: str, order: Order) -> Machine:
        self._check(instance_id, order)
        return await self._do(lambda: self._launch(instance_id, order))

    async def find(self, instance_id: str) -> Machine | Gone:
        return await self._do(lambda: self._look(instance_id))

    async def look(self, provider_id: str) -> Machine | Gone:
        return await self._do(lambda: self._look(provider_id))

    async def advance(self, instance: Instance, machine: Machine) -> Machine:
        return machine

    async def terminate(self, provider_id: str) -> None:
        await self._do(lambda: self._terminate(provider_id))

    async def machines(self) -> Sequence[Machine]:
        return await self._do(self._all)

    async def close(self) -> None:
        pass

    async def end_all(self) -> None:
        """End every worker, and wait until they are gone. Raises `Unclear`."""
        while machines := await self.machines():
            for machine in machines:
                await self.terminate(machine.provider_id)
            await asyncio.sleep(POLL_S)

    # --- in a thread -----------------------------------------------------------------------------

    async def _do(self, step: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(step)
        except BlockingIOError as error:
            raise Unclear("another process is at this folder's machines") from error
        except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
            raise Unclear(f"{self._folder.path}: {error}") from error

    def _launch(self, instance_id: str, order: Order) -> Machine:
        with self._folder.alone():
            place = self._folder.machine(instance_id)
            record = place.read()
            if record is None:
                record = self._new(place, instance_id)
            if not record.started and record.ending_ms is None:
                if not processes.of(place.path):
                    self._start(place, record, order)
                record = replace(record, started=True)
                place.write(record)
            return self._machine(place, record)

    def _new(self, place: MachineFolder, instance_id: str) -> Record:
        if self._folder.has_ended(instance_id):
            raise Refused("DELETED_BY_PROVIDER", "the machine of this id has ended")
        there = [each.read() for each in self._folder.all()]
        if len(there) >= self._settings.capacity:
            words = f"capacity: {self._settings.capacity} workers at most, and all are there"
            raise Refused("PROVIDER_QUOTA_EXCEEDED", words)
        taken = {each.port for each in there if each}
        while (port := addresses.free_port()) in taken:
            pass
        record = Record(instance_id, port, self._now_ms())
        place.write(record)
        return record

    def _start(self, place: MachineFolder, record: Record, order: Order) -> None:
        command, search = self._command(), self._settings.environment.get("PATH")
        for program in {command[0], self._program}:
            if not shutil.which(program, path=search):
                self._folder.bury(place)
                raise Refused("INSTALL_FAILED", f"there is no executable {program!r}")
        processes.start(
            command, self._environment(place, record, order), place.path, place.log_file
        )

    def _command(self) -> Sequence[str]:
        if self._settings.command:
            return (self._program, *self._settings.command[1:])
        words = ("-m", "infra.cli", "worker", "--vllm", self._program)
        return (sys.executable, *words, "--", *self._settings.arguments)

    def _environment(self, place: MachineFolder, record: Record, order: Order) -> dict[str, str]:
        it, deployment = self._settings, self._deployment
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
        checksum = {"WORKER_AGENT_SHA256": deployment.agent_sha256 or ""}
        return {
            **kept,
            "VESTIBULE_MODEL": order.model or self._model,
            "VESTIBULE_SLOTS": str(it.slots),
            **it.environment,
            "VESTIBULE_ADMISSION_URL": deployment.admission_url,
            "VESTIBULE_WORKER_TOKEN": deployment.worker_token,
            "VESTIBULE_WORKER_ID": record.instance_id,
            "VESTIBULE_INSTANCE_ID": record.instance_id,
            "VESTIBULE_WORKER_PORT": str(record.port),
            "VESTIBULE_WORKER_DRAIN_TIMEOUT": str(it.drain),
            "VESTIBULE_POOL": order.pool,
            "VESTIBULE_STATE_DIR": str(place.path),
            **(checksum if deployment.agent_sha256 else {}),
        }

    def _look(self, instance_id: str) -> Machine | Gone:
        if not INSTANCE_ID.fullmatch(instance_id):
            return Gone()
        self._folder.all()  # else a folder that is away would look like one that is empty
        place = self._folder.machine(instance_id)
        record = place.read()
        if record is None:
            return Gone()
        return Gone() if self._is_over(place, record) else self._machine(place, record)

    def _terminate(self, instance_id: str) -> None:
        with self._folder.alone():
            if isinstance(self._look(instance_id), Gone):
                return
            place = self._folder.machine(instance_id)
            record = place.read()
            if record is None or record.told:
                return
            alive = processes.of(place.path)
            if not alive:
                self._folder.bury(place)
                return
            try:
                if record.ending_ms is None:
                    record = replace(record, ending_ms=self._now_ms())
                    place.write(record)
            finally:  # also on a disk that is full: its end makes room
                processes.ask_to_end(alive)
            place.write(replace(record, told=True))  # asked twice, a worker ends at once
            self._is_over(place, record)

    def _all(self) -> Sequence[Machine]:
        self._folder.forget_old(self._now_ms())
        found = [self._look(place.path.name) for place in self._folder.all()]
        return [machine for machine in found if isinstance(machine, Machine)]

    def _is_over(self, place: MachineFolder, record: Record) -> bool:
        """Of one that is to end: whether it has. What hangs is killed."""
        if record.ending_ms is None:
            return False
        alive = processes.of(place.path)
        if not alive:
            self._folder.bury(place)
            return True
        grace_s = self._settings.drain + AGENT_STOP_S + KILL_MARGIN_S
        if self._now_ms() - record.ending_ms > grace_s * 1000:
            processes.kill(alive)
        return False

    def _machine(self, place: MachineFolder, record: Record) -> Machine:
        alive, failure = bool(processes.of(place.path)), None
        power = Power.RUNNING if alive else Power.STOPPED
        if record.ending_ms is not None:
            power = Power.STOPPING
        elif not record.started:
            power = Power.STARTING
        elif not alive:
            said = place.last_words().replace(self._deployment.worker_token or "\0", "…")
            said = said[-WORDS_MAX:]
            failure = ("INSTALL_FAILED", f"its worker has ended: {said or 'it said nothing'}")
        return Machine(
            provider_id=record.instance_id,
            instance_id=record.instance_id,
            power=power,
            address=f"127.0.0.1:{record.port}",
            type=self._settings.type,
            launched_ms=record.launched_ms,
            installed=alive,
            failure=failure,
        )

    def _check(self, instance_id: str, order: Order) -> None:
        wrong = ""
        if not INSTANCE_ID.fullmatch(instance_id):
            wrong = f"{instance_id!r} is no id of an instance"
        elif order.type not in {"", self._settings.type}:
            wrong = f"type: there is only {self._settings.type}, not {order.type}"
        elif order.zone:
            wrong = f"zone: there is none, not {order.zone}"
        elif order.market != "on-demand":
            wrong = f"market: there is only on-demand, not {order.market}"
        elif order.options:
            wrong = f"options: there are none, not {', '.join(sorted(order.options))}"
        elif order.model and not fields.MODEL.fullmatch(order.model):
            wrong = "model: must be one line of printable characters"
        elif not (order.model or self._model or self._settings.command):
            wrong = "model: neither the order nor the provider's settings name one"
        if wrong:
            raise Refused("PROVIDER_INVALID_ORDER", wrong)

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)
