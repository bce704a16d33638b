"""Processes of a benchmark: started on cores of their own, waited for, and what they use.

The thing that is measured gets one core for itself; the callers, the upstreams and all else share
the others, so that neither takes the other's time.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from tempfile import TemporaryFile

from aiohttp import ClientError, ClientSession
from psutil import STATUS_ZOMBIE, NoSuchProcess, Process

START_S = 60.0  # LiteLLM takes 20 s
STOP_S = 10.0


def cores() -> tuple[list[int], int]:
    """The cores for everything else, and the one for what is measured."""
    *others, last = sorted(os.sched_getaffinity(0))
    return others or [last], last


class Family:
    """A process and all its children."""

    def __init__(self, pid: int) -> None:
        self._root = Process(pid)

    def ended(self) -> bool:
        """Has the first of them ended by itself?"""
        return not self._root.is_running() or self._root.status() == STATUS_ZOMBIE

    def cpu_s(self) -> float:
        """Seconds of processor time used so far, user and system."""
        return sum(t.user + t.system for t in (p.cpu_times() for p in self._all()))

    def rss_bytes(self) -> int:
        """Memory held now."""
        return sum(process.memory_info().rss for process in self._all())

    def _all(self) -> list[Process]:
        with suppress(NoSuchProcess):
            return [self._root, *self._root.children(recursive=True)]
        return []


@asynccontextmanager
async def running(
    *command: str | os.PathLike[str],
    on: Sequence[int],
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Family]:
    """``command`` runs on these cores while this is open; what it says is shown only when it has
    ended by itself."""
    with TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            *("taskset", "-c", ",".join(map(str, on)), *command),
            env={**os.environ, **(environment or {})},
            stdout=said,
            stderr=said,
        )
        try:
            yield Family(process.pid)
        finally:
            if process.returncode is not None:
                said.seek(0)
                print(f"{command} ended: {said.read()[-2_000:].decode(errors='replace')}")
            await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def module(name: str, *words: str) -> tuple[str, ...]:
    """The command that runs a module of ours."""
    return (sys.executable, "-m", name, *words)


async def until_answers(
    url: str,
    text: str = "",
    headers: Mapping[str, str] | None = None,
    family: Family | None = None,
) -> None:
    """Wait until ``url`` answers with ``text`` in its body; ``family`` is whose answer it must be.

    Raises:
        RuntimeError: they have ended.
    """
    async with asyncio.timeout(START_S), ClientSession(headers=headers) as http:
        while True:
            if family and family.ended():
                raise RuntimeError(f"what should answer at {url} has ended")
            try:
                async with http.get(url) as answer:
                    if answer.status == 200 and text in await answer.text():
                        return
            except ClientError:
                pass
            await asyncio.sleep(0.05)
