"""The processes ``vestibule up`` starts: kept running, stopped with it, found again after a crash.

Knows processes; not what they do.
"""

import asyncio
import json
import logging
import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from admission import logs

STOP_S = 10.0  # then a child is killed
SURVIVOR_STOP_S = 0.5  # nobody waits for their answers any more, and Valkey survives a kill
RESTART_S = 1.0
_OURS = ("VESTIBULE_", "REDIS_")  # settings and keys, which a child gets only when it is told

log = logging.getLogger(__name__)


class Children:
    """Child processes, each in its own session so that a Ctrl-C reaches only their parent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._record = folder / "children.json"
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self.deaths: Counter[str] = Counter()

    def stop_survivors(self) -> None:
        """Stop what a killed parent left behind; a pid somebody else has now is left alone."""
        survivors = [process for process in map(_same, self._recorded()) if process]
        for process in survivors:
            logs.event(log, "stopping_survivor", pid=process.pid)
            with suppress(psutil.NoSuchProcess):  # it ended by itself just now
                process.terminate()
        _, stubborn = psutil.wait_procs(survivors, timeout=SURVIVOR_STOP_S)
        for process in stubborn:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(stubborn, timeout=STOP_S)
        self._record.unlink(missing_ok=True)

    def _recorded(self) -> list[tuple[int, float]]:
        """Pid and start time of each child of the parent before us; none when that is unreadable,
        as after a power cut, which leaves no process either."""
        try:
            kept = json.loads(self._record.read_text())
            return [(int(pid), float(started)) for pid, started in kept.values()]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, AttributeError) as error:
            logs.event(log, "record_unreadable", logging.WARNING, file=self._record, error=error)
            return []

    async def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a child that writes to ``<folder>/<name>.log``; when it dies it is restarted."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        env = {**inherited, **(environment or {})}
        await self._spawn(name, command, env)
        self._keepers[name] = asyncio.create_task(self._keep(name, command, env))

    async def stop(self, *names: str) -> None:
        """Stop these children, or all without names; the last started first."""
        for name in reversed([name for name in self._running if not names or name in names]):
            keeper = self._keepers.pop(name)
            keeper.cancel()
            await asyncio.wait({keeper})
            process = self._running.pop(name)
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._note()

    async def _keep(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        while True:
            code = await self._running[name].wait()
            self.deaths[name] += 1
            logs.event(log, "child_ended", logging.WARNING, child=name, code=code)
            await asyncio.sleep(RESTART_S)
            try:
                await self._spawn(name, command, env)
            except OSError as error:  # the last one has ended: this is tried again in a second
                logs.event(log, "child_not_started", logging.ERROR, child=name, error=error)

    async def _spawn(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        with (self._folder / f"{name}.log").open("ab") as output:
            self._running[name] = await asyncio.create_subprocess_exec(
                *command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._note()

    def _note(self) -> None:
        alive = {}
        for name, process in self._running.items():
            try:
                alive[name] = (process.pid, psutil.Process(process.pid).create_time())
            except psutil.NoSuchProcess:
                continue  # it ended at once; its keeper sees that
        fresh = self._record.with_suffix(".new")
        fresh.write_text(json.dumps(alive))
        fresh.replace(self._record)


def _same(recorded: tuple[int, float]) -> psutil.Process | None:
    """The process that was recorded, if it still runs and is not another with its pid."""
    pid, started = recorded
    try:
        process = psutil.Process(pid)
        return process if process.create_time() == started else None
    except (psutil.Error, ValueError):
        return None
