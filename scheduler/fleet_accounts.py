"""Brings the fleet's history from Redis into SQL, and forgets it there when it is old.

Any number of schedulers may do it at once: an entry counts once in SQL however often it comes, and
Redis is told that it is there only when it is. Entries stay in the stream for who follows it; they
go when the store makes room (``fleet_store``).
"""

import logging

from admission import logs
from admission.accounting import instances
from admission.accounting.ledger import Ledger
from admission.accounting.threads import in_thread
from admission.store.fence import Fence
from admission.store.fleet_store import FleetStore

BATCH = 200
BATCHES = 20  # of one run

log = logging.getLogger(__name__)


class FleetAccounts:
    """The duties over one history and one database."""

    def __init__(self, store: FleetStore, ledger: Ledger, retention_s: int) -> None:
        self._store, self._ledger, self._retention_s = store, ledger, retention_s

    async def drain(self, _: Fence) -> int | None:
        """``drain_tick``; at once again while something waits."""
        return None if await drain_tick(self._store, self._ledger) else 0

    async def prune(self, _: Fence) -> None:
        """``prune_tick`` of what is older than it is kept, by the store's clock."""
        before_ms = await self._store.now_ms() - self._retention_s * 1000
        await prune_tick(self._ledger, before_ms)


async def drain_tick(store: FleetStore, ledger: Ledger) -> bool:
    """Write what is new; whether all of it was.

    Raises:
        StoreUnavailable: what was written comes once more.
        LedgerUnavailable, UnfitLedger: it stays in the stream.
    """
    after = await store.drained()
    for _ in range(BATCHES):
        entries = await store.history(after, BATCH)
        if not entries:
            return True
        await in_thread(instances.add, ledger, entries)
        after = entries[-1].entry
        await store.drain(after)
        if len(entries) < BATCH:
            return True
    return False


async def prune_tick(ledger: Ledger, before_ms: int) -> int:
    """Forget what is older; how many instances it were.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    pruned = 0
    while count := await in_thread(instances.prune, ledger, before_ms):
        pruned += count
        if count < instances.PRUNED_AT_ONCE:
            break
    if pruned:
        logs.event(log, "fleet_pruned", instances=pruned)
    return pruned
