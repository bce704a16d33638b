"""Brings what was used from Redis into SQL, and forgets it there when it is old.

Any number of schedulers may do it at once: a record is taken out of the stream only when it is in
SQL, and there it counts once however often it comes.
"""

import asyncio
import logging
from contextlib import suppress

import msgspec

from admission import logs
from admission.accounting.ledger import Ledger
from admission.accounting.record import Record
from admission.accounting.threads import in_thread
from admission.store.fence import Fence
from admission.store.usage_store import UsageStore

BATCH = 500
BATCHES = 20  # of one tick: 10,000 requests a second
PRUNED_AT_ONCE = 10_000

log = logging.getLogger(__name__)

_RECORD = msgspec.msgpack.Decoder(Record)


class Accounts:
    """The duties of the accounting over one stream and one database."""

    def __init__(self, store: UsageStore, ledger: Ledger, retention_s: int) -> None:
        self._store, self._ledger, self._retention_s = store, ledger, retention_s
        # A record that is read, and pruned before it is written once more, would count twice.
        self._alone = asyncio.Lock()

    async def drain(self, _: Fence) -> int | None:
        """``drain_tick``; at once again while something waits."""
        async with self._alone:
            return None if await drain_tick(self._store, self._ledger) else 0

    async def prune(self, _: Fence) -> None:
        """``prune_tick`` of what is older than it is kept, by the store's clock."""
        before_ms = await self._store.now_ms() - self._retention_s * 1000
        async with self._alone:
            await prune_tick(self._store, self._ledger, before_ms)


async def drain_tick(store: UsageStore, ledger: Ledger) -> bool:
    """Write what waits; whether all of it was.

    Raises:
        StoreUnavailable: what was written stays in the stream, and comes once more.
        LedgerUnavailable, UnfitLedger: it waits in the stream.
    """
    for _ in range(BATCHES):
        entries = await store.oldest(BATCH)
        if not entries:
            return True
        records = [record for entry in entries if (record := _record(*entry)) is not None]
        if records:
            await in_thread(ledger.add, records)
        await store.forget([entry for entry, _ in entries])
        if len(entries) < BATCH:
            return True
    return False


async def prune_tick(store: UsageStore, ledger: Ledger, before_ms: int) -> int:
    """Forget single requests that ended before; how many it were.

    Only when nothing waits: what was written and is still in the stream would count again when its
    row is gone.
    """
    pruned = 0
    while await drain_tick(store, ledger):
        count = await in_thread(ledger.prune, before_ms, PRUNED_AT_ONCE)
        pruned += count
        if count < PRUNED_AT_ONCE:
            break
    if pruned:
        logs.event(log, "usage_pruned", requests=pruned)
    return pruned


def _record(entry: bytes, raw: bytes) -> Record | None:
    with suppress(msgspec.MsgspecError):
        return _RECORD.decode(raw)
    logs.event(log, "usage_unreadable", logging.ERROR, entry=entry.decode())
    return None
