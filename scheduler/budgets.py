"""The budgets' tick: sees which thresholds are passed, and tells of each once.

SQL decides what is new, the fence and a mark in Redis that it is told once: whoever dies between
any two steps leaves the rest to the next. It ends no machine; only of one that nobody knows any
more it ends the bill.
"""

import logging
from collections.abc import Sequence

from admission import logs
from admission.accounting import budgets, uptimes
from admission.accounting.budgets import Alarm, Budget
from admission.accounting.ledger import Ledger
from admission.accounting.threads import in_thread
from admission.cost_views import alarm_view, words_of
from admission.instance import BUDGET_ALARM, Event
from admission.store.fence import Fence
from admission.store.fleet_store import FleetStore
from scheduler.tick import Tick

BUDGETS_S = 60.0
LIMIT_S = 30.0

log = logging.getLogger(__name__)


class Budgets:
    """``wanted``: all that the fleet's file has."""

    def __init__(self, store: FleetStore, ledger: Ledger, wanted: Sequence[Budget]) -> None:
        self._store, self._ledger, self._wanted = store, ledger, tuple(wanted)

    @property
    def tick(self) -> Tick:
        """For the clockwork."""
        return Tick("budgets", "tells when a budget is used up", BUDGETS_S, LIMIT_S, self.run)

    async def run(self, fence: Fence) -> None:
        """Look, and tell.

        Raises:
            Fenced, StoreUnavailable, UnreadableRecord, LedgerUnavailable, UnfitLedger: the rest is
                done next time.
        """
        now_ms = await self._store.now_ms()
        for alarm in await in_thread(budgets.look, self._ledger, self._wanted, now_ms):
            logs.event(log, "budget_alarm", logging.WARNING, **alarm_view(alarm))
        for alarm in await in_thread(budgets.untold, self._ledger):
            await self._store.tell(fence, "budgets", _mark(alarm), _event(alarm))
            await in_thread(budgets.tell, self._ledger, alarm)
        await self._end_forgotten(now_ms)

    async def _end_forgotten(self, now_ms: int) -> None:
        """What Redis lost is not billed for ever. What SQL knows was in Redis before, so that what
        is new is not taken for it."""
        running = await in_thread(uptimes.running, self._ledger)
        known = {one.id for one in await self._store.instances(archived=True)} if running else set()
        if forgotten := running - known:
            await in_thread(uptimes.end, self._ledger, forgotten, now_ms)
            for name in sorted(forgotten):
                logs.event(log, "instance_forgotten", logging.WARNING, instance_id=name)


def _mark(alarm: Alarm) -> str:
    return f"{alarm.begin_ms} {alarm.threshold} {alarm.budget.name}"


def _event(alarm: Alarm) -> Event:
    return Event(
        instance_id="",
        at_ms=alarm.at_ms,
        version=0,
        name=BUDGET_ALARM,
        reason=words_of(alarm),
        detail=alarm_view(alarm),
    )
