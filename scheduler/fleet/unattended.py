"""Tells of machines that nobody looks after: their provider or pool was taken out of the file, or
the pool is closed. They cost on; to end them is an operator's word, as another scheduler with the
right file may be on its way.
"""

import logging

from admission import logs
from admission.attendance import Attendance, provider_tick
from admission.instance import Event, Instance
from admission.store.fence import Fence
from admission.store.redis_store import RedisStore
from scheduler.tick import Tick

UNATTENDED_S = 30.0
LIMIT_S = 30.0
AGAIN_MS = 3_600_000  # what stays so is logged again
OFFERED_MS = 600_000  # longer than a scheduler's start takes: it publishes each 300 s

log = logging.getLogger(__name__)


class Unattended:
    """For every scheduler, also one without a fleet's file: it may be the only one left."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._told: dict[str, tuple[str, int]] = {}  # instance -> why, and when it was logged

    @property
    def tick(self) -> Tick:
        """For the clockwork."""
        does = "tells of machines that nobody looks after"
        return Tick("unattended", does, UNATTENDED_S, LIMIT_S, self.run)

    async def run(self, fence: Fence) -> None:
        """Offers that nobody makes any more are taken back; of machines the log and the history
        tell.

        Raises:
            Fenced, StoreUnavailable, UnreadableRecord.
        """
        fleet = self._store.fleet
        attendance = await Attendance.of(self._store)
        for name in await fleet.offers():
            if not attendance.led(provider_tick(name), OFFERED_MS):
                await fleet.offer(fence, name, None)
        told = self._told
        self._told = {}
        for one in await fleet.instances():
            if why := attendance.lack(one):
                before, at_ms = told.get(one.id, ("", 0))
                if why != before or attendance.now_ms - at_ms >= AGAIN_MS:
                    at_ms = attendance.now_ms
                    await self._tell(fence, one, why, at_ms)
                self._told[one.id] = why, at_ms

    async def _tell(self, fence: Fence, one: Instance, why: str, now_ms: int) -> None:
        """The log each time; the history once, whichever scheduler it was."""
        logs.event(log, "instance_unattended", logging.WARNING, instance_id=one.id, why=why)
        lines = await self._store.fleet.lines(one.id)
        if not any(line.name == "unattended" and line.reason == why for line in lines[-1:]):
            event = Event(one.id, now_ms, one.version, "unattended", reason=why, ok=False)
            await self._store.fleet.note(fence, [event])
