"""What is left of a provider that was taken out of the configuration: nobody looks after it."""

import logging
from collections.abc import Collection

from admission import logs
from admission.instance import Event
from admission.store.fence import Fence
from admission.store.fleet_store import FleetStore
from scheduler.fleet.table import OVER
from scheduler.tick import Tick

UNKNOWN_S = 300.0
LIMIT_S = 30.0

log = logging.getLogger(__name__)


class Unknown:
    """``providers``: the names of those that are configured."""

    def __init__(self, store: FleetStore, providers: Collection[str]) -> None:
        self._store, self._providers = store, frozenset(providers)

    @property
    def tick(self) -> Tick:
        """For the clockwork."""
        does = "tells of machines whose provider is not configured"
        return Tick("unknown", does, UNKNOWN_S, LIMIT_S, self.run)

    async def run(self, fence: Fence) -> None:
        """Its offers are taken back, and of its machines the log and the history tell.

        Raises:
            Fenced, StoreUnavailable, UnreadableRecord.
        """
        for name in (await self._store.offers()).keys() - self._providers:
            await self._store.offer(fence, name, None)
        now_ms = await self._store.now_ms()
        for one in await self._store.instances():
            name = one.order.provider
            if name in self._providers or one.state in OVER:
                continue
            logs.event(
                log, "instance_unattended", logging.WARNING, instance_id=one.id, provider=name
            )
            why = f"its provider {name} is not configured: nobody looks after it, or ends it"
            event = Event(one.id, now_ms, one.version, "unattended", reason=why, ok=False)
            lines = await self._store.lines(one.id)
            if not lines or lines[-1].name != event.name:
                await self._store.note(fence, [event])
