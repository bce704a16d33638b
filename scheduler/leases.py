"""The leases one process holds, and what it tells of the ticks it ran under them.

They are kept between the runs, so that one scheduler leads and a run costs no call to Redis. Who
leads is sure of it for as long as its last beat is good, on a clock of its own that began before
Redis heard it: a process that was paused knows when it wakes up that it may have lost them.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from admission import logs
from admission.errors import StoreUnavailable
from admission.store.fence import Fence
from admission.store.tick_store import LEASE_MS, LastRun, TickStore, Word
from scheduler.tick import Run, Tick, attempt

BEAT_S = 1.0
AT_ONCE_S = 0.01

log = logging.getLogger(__name__)


@dataclass
class _Held:
    """A lease this process was given; instants on the clock of ``passed_ms``."""

    epoch: int
    until_ms: float
    due_ms: float
    runs: int = 0
    failures: int = 0
    began_ms: float | None = None  # of the run that goes on
    bound: asyncio.Timeout | None = None
    ended_ms: float = 0
    last: LastRun | None = None  # as of ended_ms
    leave: bool = False


class Leases:
    """What one process holds of ``ticks``."""

    def __init__(self, store: TickStore, ticks: Sequence[Tick]) -> None:
        self._store, self._ticks = store, {tick.key: tick for tick in ticks}
        self._held: dict[str, _Held] = {}
        self._others_until_ms: float = 0
        self._is_heard = True
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._news = asyncio.Event()  # something that should be told before the next beat

    def epoch(self, tick: Tick) -> int | None:
        """The epoch of its lease; None when that is not held here, or no longer for certain."""
        held = self._held.get(tick.key)
        sure = held and not held.leave and self._store.passed_ms() < held.until_ms
        return held.epoch if held and sure else None

    def is_running(self, tick: Tick) -> bool:
        """Whether it runs now, under a lease that is held here."""
        held = self._held.get(tick.key)
        return held is not None and held.began_ms is not None

    def due_in_ms(self, tick: Tick) -> float:
        """In how many ms a tick that is held here is due; 0 when it is."""
        return max(0.0, self._held[tick.key].due_ms - self._store.passed_ms())

    async def beat(self) -> None:
        """Tell what ran, extend what is held, take what nobody holds.

        Raises:
            StoreUnavailable: what is held stays so until its deadline.
        """
        self._news.clear()
        await self._beat({key: self._word(tick) for key, tick in self._ticks.items()})

    async def keep(self, changed: Callable[[], None] = lambda: None) -> None:
        """Beat for ever: every second, when there is news, and when another's lease runs out.

        Args:
            changed: called after each beat, as what is held may be other leases now.
        """
        while True:
            wait_s = BEAT_S
            try:
                await self.beat()
                wait_s = min(BEAT_S, (self._others_until_ms - self._store.passed_ms() + 1) / 1000)
                self._say(heard=True)
            except StoreUnavailable:
                self._say(heard=False)
            self._end_the_lost()
            changed()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(wait_s, AT_ONCE_S)):
                    await self._news.wait()

    async def release(self) -> None:
        """Leave all that is held, once nothing runs any more.

        Raises:
            StoreUnavailable: it is free at its deadline.
        """
        words = {key: self._word(self._ticks[key]) for key in self._held}
        if words:
            await self._beat({key: replace(word, leave=True) for key, word in words.items()})

    async def run(self, tick: Tick, limit_s: float | None = None) -> Run | None:
        """Run it once; None when its lease is not held here.

        Args:
            limit_s: less than its own limit.
        """
        epoch = self.epoch(tick)
        if epoch is None:
            return None
        held, began_ms = self._held[tick.key], self._store.passed_ms()
        limit_s = tick.limit_s if limit_s is None else limit_s
        held.began_ms, held.bound = began_ms, asyncio.timeout(limit_s)
        try:
            run = await attempt(tick, Fence(tick.key, epoch), limit_s, held.bound)
        finally:
            held.bound = None
        held.began_ms = None
        self._note(tick, held, run, began_ms)
        return run

    def _note(self, tick: Tick, held: _Held, run: Run, began_ms: float) -> None:
        held.ended_ms = self._store.passed_ms()
        took_ms = held.ended_ms - began_ms
        held.due_ms = began_ms + tick.period_s * 1000
        if run.more_ms is not None:
            held.due_ms = held.ended_ms + run.more_ms
        held.last = LastRun(0, round(took_ms), 0, run.error)
        held.runs += 1
        held.failures += run.error is not None
        # So that another may try, who may have what is missing here.
        held.leave = run.error is not None and not run.everybody
        if held.leave or tick.period_s * 1000 >= LEASE_MS:
            self._news.set()

    def _word(self, tick: Tick) -> Word:
        period_ms, held = round(tick.period_s * 1000), self._held.get(tick.key)
        if held is None:
            return Word(period_ms)
        now_ms, last = self._store.passed_ms(), held.last
        if last is not None:
            ago_ms = round(now_ms - held.ended_ms)
            last = replace(last, ended_ms=ago_ms, due_ms=max(0, round(held.due_ms - now_ms)))
        running_ms = None if held.began_ms is None else round(now_ms - held.began_ms)
        return Word(
            period_ms,
            held.epoch,
            runs=held.runs,
            failures=held.failures,
            running_ms=running_ms,
            last=last,
            leave=held.leave,
        )

    def _end_the_lost(self) -> None:
        """Cancel what runs under a lease that is no longer held for certain."""
        now_ms = self._store.passed_ms()
        for held in self._held.values():
            bound = held.bound
            if bound and not bound.expired() and held.until_ms <= now_ms:
                bound.reschedule(asyncio.get_running_loop().time())

    def _say(self, *, heard: bool) -> None:
        if heard is not self._is_heard:
            level = logging.INFO if heard else logging.WARNING
            logs.event(log, "clockwork_heard" if heard else "clockwork_unheard", level)
        self._is_heard = heard

    async def _beat(self, words: dict[str, Word]) -> None:
        asked_ms = self._store.passed_ms()  # what is good from later on, is good from now on
        leases = await self._store.beat(self.owner, words)
        left_ms = [lease.left_ms for lease in leases.values() if not lease.epoch]
        self._others_until_ms = asked_ms + min(filter(None, left_ms), default=LEASE_MS)
        for key, lease in leases.items():
            held = self._held.get(key)
            if held is not None and held.epoch == lease.epoch:
                held.until_ms = asked_ms + lease.left_ms
                continue
            if held is not None:
                held.until_ms = 0
                self._end_the_lost()
                del self._held[key]
            if lease.epoch:
                until_ms, due_ms = asked_ms + lease.left_ms, asked_ms + lease.due_ms
                self._held[key] = _Held(lease.epoch, until_ms, due_ms)
