"""Several processes of one service behind one port: started, kept running, drained together.

Each listens on the port by itself (SO_REUSEPORT) and the kernel spreads the connections: Linux
evenly, macOS mostly to one. Parent and child hold the two ends of a socket, the child's in the
place of standard input: over it the child says once that it listens, and by its end learns that
its parent is gone, also after a ``kill -9``; then it stops.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from admission import logs
from infra.errors import CommandError
from infra.service import DRAIN_S

STOP_S = DRAIN_S + 5.0  # what has not drained by then is killed
START_S = 60.0
# A process that dies again and again is tried ever more seldom, and soon again once it has lived.
RESTART_S = 0.2
RESTART_MAX_S = 15.0
STEADY_S = 30.0
READY = b"ready\n"

log = logging.getLogger(__name__)


@asynccontextmanager
async def running(
    count: int, command: Sequence[str], environment: Mapping[str, str]
) -> AsyncIterator[None]:
    """``count`` processes of ``command`` run while this is open; it opens when all of them listen.

    Raises:
        CommandError: one of them did not start.
    """
    processes = [_Process(number, command, environment) for number in range(1, count + 1)]
    keepers = [asyncio.create_task(process.keep()) for process in processes]
    try:
        await _all_ready(processes, keepers)
        yield
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        await asyncio.gather(*(process.stop() for process in processes))


async def _all_ready(
    processes: "Sequence[_Process]", keepers: Sequence[asyncio.Task[None]]
) -> None:
    async def ready() -> None:
        for process in processes:
            await process.ready.wait()

    listening = asyncio.create_task(ready())
    tasks = (listening, *keepers)
    await asyncio.wait(tasks, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
    for keeper in keepers:
        if keeper.done():
            listening.cancel()
            keeper.result()
    if listening.cancel():
        raise CommandError(f"its processes do not listen after {START_S:.0f} s")


class _Process:
    """One place among the processes, and who has it now."""

    def __init__(self, number: int, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._number, self._command, self._environment = number, command, environment
        self._process: asyncio.subprocess.Process | None = None
        self._link: socket.socket | None = None
        self.ready = asyncio.Event()

    async def keep(self) -> None:
        """Start it, and again each time it dies; never ends by itself.

        Raises:
            CommandError: the first one died before it listened.
        """
        now, pause_s = asyncio.get_running_loop().time, RESTART_S
        while True:
            began = now()
            code = await self._live()
            if not self.ready.is_set():
                raise CommandError(f"one of its processes ended with status {code} at its start")
            pause_s = RESTART_S if now() - began > STEADY_S else min(pause_s * 2, RESTART_MAX_S)
            logs.event(
                log,
                "process_ended",
                logging.WARNING,
                number=self._number,
                code=code,
                again_in_s=pause_s,
            )
            await asyncio.sleep(pause_s)

    async def _live(self) -> int:
        """One life: its exit status."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        if self._link:
            self._link.close()
        self._link = ours
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environment, stdin=theirs.fileno(), start_new_session=True
            )
        if await asyncio.get_running_loop().sock_recv(ours, len(READY)):
            logs.event(log, "process_ready", number=self._number, pid=self._process.pid)
            self.ready.set()
        return await self._process.wait()

    async def stop(self) -> None:
        """Let it drain; kill it when that takes too long."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._link is not None:
            self._link.close()


class Parent:
    """The way to the parent, for a process that ``running`` started."""

    def __init__(self) -> None:
        self._link = socket.socket(fileno=os.dup(0))

    def say_ready(self, gone: asyncio.Event) -> None:
        """This process listens now; ``gone`` is set when the parent's end closes."""
        with suppress(OSError):  # it is gone already, which its end will say
            self._link.sendall(READY)
        loop = asyncio.get_running_loop()

        def hear() -> None:
            loop.remove_reader(self._link)
            gone.set()

        loop.add_reader(self._link, hear)

    def close(self) -> None:
        with suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(self._link)
        self._link.close()
