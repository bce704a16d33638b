"""One who is attached to this process: what they saw of their ticket last, and what is news.

Holds at most one view that is still to be shown; a newer one takes its place. So who reads slowly
misses only what is no longer true, and costs no memory.
"""

import asyncio
import math
from typing import NamedTuple

from admission.domain import Status, Ticket

STEP_MS = 15_000
"""An estimate that moved less is no news, nor one that moved by a smaller share of the wait."""
STEP_SHARE = 0.1
SETTLE_S = 1.5
"""The forecast follows a place that moved within a second (DESIGN section 6). Who is told seldom is
told both together."""


class News(NamedTuple):
    """A ticket worth showing. ``because``: what made its place or estimate worse, if anything did.

    "passed": somebody with a head start, or who came back, stands before it; "capacity": there are
    other slots than before; "overdue": a release that was expected did not come.
    """

    ticket: Ticket
    because: str | None


class Listener:
    """Follows one user's ticket in one pool."""

    def __init__(self, pool: str, user: str, named: str, pace_s: float = 0.0) -> None:
        """``named``: one ticket of a request pool, or '' for the user's latest. ``pace_s``: places
        are told at most so often; 0 for at once."""
        self.pool, self.user, self.named = pool, user, named
        self._pace_s, self._shown_s = pace_s, 0.0
        self._ripens: asyncio.TimerHandle | None = None  # when the place may be told
        self.shown: Ticket | None = None
        self.stale = False  # the ticket must be read anew
        self.gone = False
        self.ping_s = 0.0  # when the next ping is due, on the event loop's clock
        self._event = asyncio.Event()
        self._pinged, self._slots_changed = False, False
        self._place: Ticket | None = None
        self._moved_ms = -math.inf  # when the place was last another than before

    @property
    def waiting(self) -> Ticket | None:
        """The ticket, while the last that was seen of it is that it waits."""
        return self.shown if self.shown and self.shown.status is Status.WAITING else None

    def wake(self) -> None:
        """Look whether there is anything to do."""
        self._event.set()

    def moved(self) -> None:
        """The ticket may be another."""
        self.stale = True
        self._event.set()

    def ping(self) -> None:
        """Time to show that the stream lives."""
        self._pinged = True
        self._event.set()

    def place(self, ticket: Ticket, *, slots_changed: bool) -> None:
        """The ticket that was shown, with its numbers of now."""
        self._slots_changed |= slots_changed
        if not self._is_newer(ticket):
            return
        self._place = ticket if _differs(self.shown, ticket) else None
        if self._place is None:
            return
        if not self._pace_s:
            self._event.set()
        elif self._ripens is None:
            loop = asyncio.get_running_loop()
            ripe_s = max(self._shown_s + self._pace_s, loop.time() + SETTLE_S)
            self._ripens = loop.call_at(ripe_s, self._ripe)

    def _ripe(self) -> None:
        self._ripens = None
        self._event.set()

    async def woken(self) -> None:
        """Wait for any of the above."""
        await self._event.wait()
        self._event.clear()

    def take_ping(self) -> bool:
        due, self._pinged = self._pinged, False
        return due

    def take_place(self) -> Ticket | None:
        if self._ripens:
            return None
        ticket, self._place = self._place, None
        return ticket if ticket and self._is_newer(ticket) else None

    def show(self, ticket: Ticket) -> News | None:
        """What there is to show of this snapshot, if anything; the first is always shown."""
        before = self.shown
        if not _differs(before, ticket):
            return None
        if before and before.position != ticket.position:
            self._moved_ms = ticket.now_ms
        settled = ticket.now_ms >= self._moved_ms + 1000 * SETTLE_S
        because = _because(before, ticket, slots_changed=self._slots_changed, settled=settled)
        self.shown, self._slots_changed = ticket, False
        if self._pace_s:
            self._shown_s = asyncio.get_running_loop().time()
        return News(ticket, because)

    def _is_newer(self, ticket: Ticket) -> bool:
        now = self.waiting
        return now is not None and (
            now.ticket_id == ticket.ticket_id and now.now_ms <= ticket.now_ms
        )


def _differs(before: Ticket | None, now: Ticket) -> bool:
    """Is ``now`` worth showing to who saw ``before``? They may not count down by themselves."""
    return before is None or _facts(before) != _facts(now) or _moved(before.wait_ms, now.wait_ms)


def _facts(ticket: Ticket) -> tuple[object, ...]:
    return (
        ticket.position,
        ticket.status,
        ticket.ticket_id,
        ticket.expires_ms,
        ticket.reason,
        ticket.may_be_passed,
    )


def _moved(before_ms: float | None, now_ms: float | None) -> bool:
    if before_ms is None or now_ms is None:
        return before_ms is not now_ms
    return abs(now_ms - before_ms) >= max(STEP_MS, STEP_SHARE * min(before_ms, now_ms))


def _because(
    before: Ticket | None, now: Ticket, *, slots_changed: bool, settled: bool
) -> str | None:
    """``settled``: the forecast is of the place as it is; who just moved up is not overdue."""
    if before is None or before.position is None or now.position is None:
        return None
    if before.ticket_id != now.ticket_id:
        return None
    if now.position > before.position:
        return "passed"
    due, due_before = _due_ms(now), _due_ms(before)
    if not _moved(due_before and due_before - now.now_ms, now.wait_ms):
        return None
    if slots_changed:
        return "capacity"
    return "overdue" if settled and due_before and (not due or due > due_before) else None


def _due_ms(ticket: Ticket) -> float | None:
    """When its turn is expected."""
    return None if ticket.wait_ms is None else ticket.now_ms + ticket.wait_ms
