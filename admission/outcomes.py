"""What the store can answer when nothing is broken. Failures are exceptions (``errors``)."""

from dataclasses import dataclass, field

from admission.domain import Status, Ticket


@dataclass(frozen=True)
class Joined:
    ticket: Ticket
    new: bool  # False: the user already had this one


@dataclass(frozen=True)
class Refused:
    """Not let in; nothing was kept. ``reason``: "full", "paused", "unknown_class" (the pool has no
    such priority), "request_needed" (a request pool, and no request was named)."""

    reason: str


@dataclass(frozen=True)
class Confirmed:
    ticket: Ticket


@dataclass(frozen=True)
class NotConfirmed:
    """``reason``: "waiting" (no draft yet), "stale" (another ticket), "ended"."""

    reason: str
    ticket: Ticket


@dataclass(frozen=True)
class Left:
    previous: Status
    status: Status


@dataclass(frozen=True)
class Occupied:
    """Somebody waits or holds a slot, so this cannot be changed."""


@dataclass(frozen=True)
class Alive:
    ticket: Ticket


@dataclass(frozen=True)
class Ended:
    ticket: Ticket


@dataclass(frozen=True)
class Unknown:
    """Nobody by that name, or forgotten."""


@dataclass(frozen=True)
class Passed:
    """A request of a session may run; renew it within 30 s.

    ``deadline_ms`` is the session's end, None for an answer finishing after it; ``now_ms`` the
    moment at which ``running`` requests of the session ran anywhere, this one among them.
    """

    ticket_id: str
    deadline_ms: int | None
    now_ms: int = field(default=0, compare=False)
    running: int = field(default=1, compare=False)


@dataclass(frozen=True)
class SessionBusy:
    """As many requests of this session as allowed already run."""

    ticket_id: str


@dataclass(frozen=True)
class Kept:
    """The session goes on: its end, and how many of its requests ran anywhere at ``now_ms``."""

    deadline_ms: int
    now_ms: int
    running: int


@dataclass(frozen=True)
class Over:
    """There is no session. ``lost``: requests that may not even finish."""

    lost: tuple[str, ...]


@dataclass(frozen=True)
class NoSession:
    """No slot; the ticket tells the place, when there is one."""

    ticket: Ticket | None


@dataclass(frozen=True)
class Reported:
    """How admission sees a worker after its report."""

    ready: bool
    reason: str | None
    draining: bool
    rotate: bool = False  # it is to register for new secrets


@dataclass(frozen=True)
class Foreign:
    """Not this worker's own token."""


@dataclass(frozen=True)
class Revoked:
    """An admin took this worker's secrets away."""
