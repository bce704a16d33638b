"""What one person lived through: filled in while they live it, read by the report."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from admission.client import Ticket
from admission.domain import Status
from infra.load_test.chat import Answer

Ended = Literal["here", "left", "stopped", "vanished", "over", "refused", "error", "cut"]
"""``over``: the service ended the turn; ``cut``: the load test did, at its own end."""


@dataclass
class Visit:
    """Seconds since the beginning of the load test, or as long as something took."""

    user: str
    came_s: float
    ended: Ended = "here"
    why: str = ""  # of over, refused and error: the reason or the code
    waited: bool = False
    asked_first: bool = False  # was offered a draft
    announced_s: int | None = None  # the first estimate, and its upper end
    announced_high_s: int | None = None
    admitted_s: float | None = None  # from coming to the session
    handed_s: float | None = None  # from the session's start to knowing of it
    joined: datetime | None = None  # both on the service's clock
    started: datetime | None = None
    gone_s: float | None = None
    answers: list[Answer] = field(default_factory=list)

    @property
    def state(self) -> str:
        """For who looks on: "waiting", "in session", "gone"."""
        if self.ended != "here":
            return "gone"
        return "waiting" if self.admitted_s is None else "in session"

    @property
    def slot_s(self) -> float | None:
        """How long they had the slot, as far as they know; None for who had none."""
        if self.admitted_s is None or self.gone_s is None:
            return None
        return self.gone_s - self.came_s - self.admitted_s

    def told(self, ticket: Ticket, now_s: float, now: datetime | None) -> None:
        """Note what the person hears; ``now`` only where the service's clock is this one's."""
        self.joined = ticket.joined_at
        if ticket.status is Status.WAITING:
            self.waited = True
            if self.announced_s is None:
                self.announced_s = ticket.estimated_wait
                self.announced_high_s = ticket.estimated_wait_high
        elif ticket.status is Status.DRAFT:
            self.asked_first = True
        elif ticket.status is Status.ACTIVE and self.admitted_s is None:
            self.admitted_s = now_s - self.came_s
            if ticket.expires_at:
                lasts = timedelta(seconds=ticket.session_duration)
                self.started = ticket.expires_at - lasts
            if now and self.started:
                self.handed_s = (now - self.started).total_seconds()
