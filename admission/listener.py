"""One who is attached to this process: what they saw of their ticket last, and what is news.

Holds at most one view that is still to be shown; a newer one takes its place. So who reads slowly
misses only what is no longer true, and costs no memory.
"""

import asyncio
from typing import NamedTuple

from admission.domain import Status, Ticket

STEP_MS = 15_000
"""An estimate that moved less is no news, nor one that moved by a smaller share of the wait."""
STEP_SHARE = 0.1


class News(NamedTuple):
    """A ticket worth showing. ``because``: what made its place or estimate worse, if anything did.

    "passed": somebody with a head start, or who came back, stands before it; "capacity": there are
    other slots than before; "overdue": a release that was expected did not come.
    """

    ticket: Ticket
    because: str | None


class Listener:
    """Follows one user's ticket in one pool."""

    def __init__(self, pool: str, user: str, named: str) -> None:
        """``named``: one ticket of a request pool, or '' for the user's latest."""
        self.pool, self.user, self.named = pool, user, named
        self.shown: Ticket | None = None
        self.stale = False  # the ticket must be read anew
        self.gone = False
        self.ping_s = 0.0  # when the next ping is due, on the event loop's clock
        self._event = asyncio.Event()
        self._pinged, self._slots_changed = False, False
        self._place: Ticket | None = None

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
        if self._is_newer(ticket) and _differs(self.shown, ticket):
            self._place = ticket
            self._event.set()

    async def woken(self) -> None:
        """Wait for any of the above."""
        await self._event.wait()
        self._event.clear()

    def take_ping(self) -> bool:
        due, self._pinged = self._pinged, False
        return due

    def take_place(self) -> Ticket | None:
        ticket, self._place = self._place, None
        return ticket if ticket and self._is_newer(ticket) else None

    def show(self, ticket: Ticket) -> News | None:
        """What there is to show of this snapshot, if anything; the first is always shown."""
        before = self.shown
        if not _differs(before, ticket):
            return None
        because = _because(before, ticket, slots_changed=self._slots_changed)
        self.shown, self._slots_changed = ticket, False
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


def _because(before: Ticket | None, now: Ticket, *, slots_changed: bool) -> str | None:
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
    return "overdue" if due_before and (not due or due > due_before) else None


def _due_ms(ticket: Ticket) -> float | None:
    """When its turn is expected."""
    return None if ticket.wait_ms is None else ticket.now_ms + ticket.wait_ms
