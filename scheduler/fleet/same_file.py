"""Tells when schedulers with different fleet files run over one Redis, as for a while in a rollout.

Each has a tick under a lease that its file's digest names: two such leases are two files.
"""

import logging

from admission import logs
from admission.attendance import file_tick, files_of, files_words
from admission.instance import Event
from admission.store.fence import Fence
from admission.store.redis_store import RedisStore
from scheduler.tick import Tick

FILE_S = 15.0
LIMIT_S = 10.0
AGAIN_MS = 3_600_000  # what stays so is logged again

log = logging.getLogger(__name__)


class SameFile:
    """``digest``: of this scheduler's file."""

    def __init__(self, store: RedisStore, digest: str) -> None:
        self._store, self._digest = store, digest
        self._told: tuple[frozenset[str], float] = frozenset(), 0.0  # digests, and when

    @property
    def tick(self) -> Tick:
        """For the clockwork."""
        does = "tells when another scheduler has another fleet file"
        return Tick("file", does, FILE_S, LIMIT_S, self.run, lease=file_tick(self._digest))

    async def run(self, fence: Fence) -> None:
        """Every scheduler logs it; one of them writes it into the history.

        Raises:
            Fenced, StoreUnavailable.
        """
        files = files_of(await self._store.ticks.all())
        now_ms = self._store.ticks.passed_ms()
        (before, told_ms), found = self._told, frozenset(files) if len(files) > 1 else frozenset()
        if found == before and (not found or now_ms - told_ms < AGAIN_MS):
            return
        words = files_words(files)
        level = logging.WARNING if found else logging.INFO
        logs.event(log, "fleet_files", level, why=words or "all schedulers have the same one")
        if found != before and self._digest == min(found or before):
            at_ms = await self._store.fleet.now_ms()
            name = "files_differ" if found else "files_agree"
            event = Event("", at_ms, 0, name, reason=words, ok=not found)
            await self._store.fleet.note(fence, [event])
        self._told = found, now_ms
