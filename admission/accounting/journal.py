"""Sends the records of this process to Redis, in batches, beside the requests.

A record noted is gone only with a process that is killed (at most a second's worth), when Redis was
away for so long that the memory here was full, or when nobody drained the stream for so long that
it was. The last two are counted and logged.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

import msgspec

from admission import logs
from admission.accounting.record import Record
from admission.errors import StoreUnavailable
from admission.store.usage_store import UsageStore

BATCH = 100
EVERY_S = 1.0
KEPT_MAX = 10_000
"""In memory, of some 500 bytes each, while Redis takes none."""
LAST_S = 3.0  # what the last batches of a process that stops may take
_WARN_EVERY_S = 10.0

log = logging.getLogger(__name__)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Journal:
    """The records of one process. ``dropped`` counts those that nobody will see."""

    def __init__(self, store: UsageStore, now_ms: Callable[[], int] = _now_ms) -> None:
        self._store = store
        self._now_ms = now_ms
        self._process = secrets.token_hex(8)
        self._number = 0
        self._kept: deque[bytes] = deque()
        self._some, self._many = asyncio.Event(), asyncio.Event()
        self._warned_s = float("-inf")
        self.dropped = 0

    def note(self, record: Record) -> None:
        """Keep a record, which gets its id and its instant here. Costs microseconds."""
        self._number += 1
        record.id = f"{self._process}-{self._number}"
        record.at_ms = self._now_ms()
        self._kept.append(msgspec.msgpack.encode(record))
        if len(self._kept) > KEPT_MAX:
            self._kept.popleft()
            self.dropped += 1
        self._some.set()
        if len(self._kept) >= BATCH:
            self._many.set()

    async def keep_sending(self) -> None:
        """Send a batch each second, or as soon as one is full, until cancelled."""
        while True:
            await self._some.wait()
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._many.wait()
            except TimeoutError:
                pass  # then those there are
            if not await self._send():
                await self._pause()

    async def flush(self) -> None:
        """Send all there are, before the process ends; what does not go in time is logged."""
        try:
            async with asyncio.timeout(LAST_S):
                while self._kept and await self._send():
                    pass
        except TimeoutError:
            pass
        if self._kept:
            logs.event(log, "usage_lost", logging.ERROR, records=len(self._kept))

    async def _send(self) -> bool:
        """One batch; False when Redis took none of it.

        Nothing leaves the memory before Redis has it: a send that is cancelled or fails is made
        again, and SQL knows a record that came twice by its id.
        """
        batch = list(islice(self._kept, BATCH))
        dropped = self.dropped
        try:
            taken = await self._store.append(batch)
        except StoreUnavailable:
            taken = 0
        gone = self.dropped - dropped  # made room for newer ones meanwhile
        self.dropped -= min(gone, taken)
        for _ in range(taken - gone):
            self._kept.popleft()
        if not self._kept:
            self._some.clear()
        if len(self._kept) < BATCH:
            self._many.clear()
        if taken < len(batch):
            self._warn()
        return taken > 0

    def _warn(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._warned_s + _WARN_EVERY_S:
            self._warned_s = now_s
            logs.event(
                log, "usage_waits", logging.ERROR, records=len(self._kept), dropped=self.dropped
            )

    async def _pause(self) -> None:
        await asyncio.sleep(EVERY_S)
