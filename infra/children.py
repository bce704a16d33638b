"""The processes ``vestibule up`` starts: kept running, stopped with it, found again after a crash.

Knows processes; not what they do.
"""

import asyncio
import json
import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from admission import logs

STOP_S = 10.0  # then a child is killed
RESTART_S = 1.0
_OURS = ("VESTIBULE_", "REDIS_")  # settings and keys, which a child gets only when it is told

log = logging.getLogger(__name__)


class Children:
    """Child processes, each in its own session so that a Ctrl-C reaches only their parent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._record = folder / "children.json"
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []

    def stop_survivors(self) -> None:
        """Stop what a killed parent left behind; a pid somebody else has now is left alone."""
        if not self._record.exists():
            return
        for name, (pid, started) in json.loads(self._record.read_text()).items():
            try:
                process = psutil.Process(pid)
                if process.create_time() != started:
                    continue
                logs.event(log, "stopping_survivor", child=name, pid=pid)
                process.terminate()
                try:
                    process.wait(STOP_S)
                except psutil.TimeoutExpired:
                    process.kill()
                    process.wait(STOP_S)
            except psutil.NoSuchProcess:
                continue
        self._record.unlink()

    async def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a child that writes to ``<folder>/<name>.log``; when it dies it is restarted."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        env = {**inherited, **(environment or {})}
        await self._spawn(name, command, env)
        self._keepers.append(asyncio.create_task(self._keep(name, command, env)))

    async def stop(self) -> None:
        """Stop all, the last started first."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for process in reversed(self._running.values()):
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._running.clear()
        self._record.unlink(missing_ok=True)

    async def _keep(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        while True:
            code = await self._running[name].wait()
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
