"""The words of Vestibule as types: tickets, pools, workers. No I/O, nothing of ours imported."""

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

USER_ID = re.compile(r"[A-Za-z0-9._\-@:|+]{1,128}")
POOL_NAME = re.compile(r"[a-z0-9-]{1,64}")
WORKER_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
DEFAULT_POOL = "default"
DEFAULT_PRIORITY = "default"
PRIORITY_NAME = re.compile(r"[a-z0-9-]{1,32}")


class Status(StrEnum):
    """Where a ticket is in its life (DESIGN section 4)."""

    WAITING = "waiting"
    DRAFT = "draft"
    ACTIVE = "active"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True)
class Ticket:
    """A ticket as its owner sees it at ``now_ms``; what does not apply is None."""

    now_ms: int
    ticket_id: str
    user_id: str
    pool: str
    status: Status
    queue_length: int
    joined_ms: int
    session_ms: int
    position: int | None = None  # 1-based
    wait_ms: float | None = None  # None when it cannot be known
    wait_high_ms: float | None = None
    expires_ms: int | None = None  # end of the draft or the session
    reason: str | None = None
    priority: str = "default"  # its class
    may_be_passed: bool = False  # by somebody who joins now with priority
    finishing: bool = False  # told to a heartbeat: the answer it names may outlive the session

    @classmethod
    def of(cls, view: dict[str, Any]) -> "Ticket":
        """From a script's view."""
        return cls(**{**view, "status": Status(view["status"])})


@dataclass(frozen=True)
class Priority:
    """A class of tickets.

    ``head_start_ms``: so much earlier a ticket of a session pool counts as joined; below 0 it lets
    others pass. ``weight`` > 0: the share of a request pool's turns, beside users of weight 1.
    """

    head_start_ms: int = 0
    weight: float = 1


@dataclass(frozen=True)
class Places:
    """Where many tickets stand at ``now_ms``; the lists are in the order in which they were asked.

    ``slots``: those that may be granted now or are coming. A position is 0 when the ticket is not
    in the queue, a wait -1 when it cannot be known.
    """

    now_ms: int
    queue_length: int
    slots: int
    positions: list[int]
    waits_ms: list[float]
    highs_ms: list[float]
    may_be_passed: list[bool] | None = None  # in a pool with priorities

    def of(self, ticket: Ticket, index: int) -> Ticket | None:
        """``ticket``, the one asked as ``index``-th, as it stands now; None: not in the queue."""
        if not self.positions[index]:
            return None
        wait_ms, high_ms = self.waits_ms[index], self.highs_ms[index]
        return replace(
            ticket,
            now_ms=self.now_ms,
            queue_length=self.queue_length,
            position=self.positions[index],
            wait_ms=None if wait_ms < 0 else wait_ms,
            wait_high_ms=None if high_ms < 0 else high_ms,
            may_be_passed=bool(self.may_be_passed and self.may_be_passed[index]),
        )


@dataclass(frozen=True)
class Change:
    """Tickets moved. ``users`` names whose, None stands for anybody's; nobody's when only places
    or estimates changed. ``pool`` None: anything may have changed anywhere."""

    pool: str | None
    users: tuple[str, ...] | None


@dataclass(frozen=True)
class PoolPolicy:
    """What a pool allows by default; an admin's stored setting wins over each.

    All times in ms. ``kind``: "session", or "request" for slots that are held for one request.
    ``capacity`` is a number of slots, or "auto": the slots of the ready workers
    x ``sessions_per_slot``, at most ``max_active``. In a request pool ``session_ms`` is the longest
    a request may hold its slot, ``lease_ms`` how long it does so without a heartbeat, and
    ``user_concurrency`` how many of one user's requests run at once. ``priorities`` always knows
    "default".
    """

    kind: str = "session"
    capacity: int | str = 50
    max_active: int = 50
    sessions_per_slot: int = 4
    session_ms: int = 1_200_000
    draft_ms: int = 300_000
    grace_ms: int = 60_000
    idle_ms: int = 300_000
    lease_ms: int = 30_000
    user_concurrency: int | None = None
    priorities: dict[str, Priority] = field(default_factory=dict)
    queue_limit: int | None = None
    queue_timeout_ms: int | None = None
    requeue: bool = False
    paused: bool = False
    needs_worker: bool = False


@dataclass(frozen=True)
class PoolMetrics:
    """One pool as the gate counts it, at one moment."""

    now_ms: int
    capacity: int
    active: int
    draft: int
    finishing: int
    waiting: int
    free: int
    paused: bool
    granting: bool
    ready_workers: int
    admitted_total: int
    expired_total: int
    abandoned_total: int
    settings: dict[str, Any]
    wait_ms: float | None = None
    wait_high_ms: float | None = None
    wait_alone_ms: float | None = None  # wait_ms, were no machine coming
    waits_ms: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Coming:
    """A machine that is being started: so many slots of its pool, about ``in_ms`` from now, with a
    standard deviation of ``spread_ms``, until its worker is ready."""

    worker_id: str
    slots: int
    in_ms: int
    spread_ms: int


@dataclass(frozen=True)
class Queued:
    """One line of the list of who waits."""

    ticket_id: str
    user_id: str
    position: int
    joined_ms: int


@dataclass(frozen=True)
class Worker:
    """A model server the gateway may route to, by its last report."""

    worker_id: str
    url: str
    kind: str  # "agent" or "static"
    pool: str
    models: tuple[str, ...]
    slots: int
    ready: bool
    draining: bool
    reason: str | None
    first_seen_ms: int
    last_seen_ms: int
    silent_ms: int = field(default=0, compare=False)  # since its last report, when it was read
    in_flight: int = 0
    queue_depth: int = 0
    upstream_key: str | None = None
    fingerprint: str | None = None  # SHA-256 of its certificate, in hex, when that is pinned
    token_hashes: tuple[str, ...] = ()  # of its own token, and of one not used yet; static: none
    claimed: bool = True  # it has used the token it was given
    revoked: bool = False
    verdict: str = ""  # the scheduler's: why it may not be used, whatever it reports
    steered: bool | None = None  # the fleet's last word: it drains, or not; None: never said
    load: dict[str, Any] | None = None
    hardware: dict[str, Any] | None = None
    agent_info: dict[str, Any] | None = None
    instance_id: str | None = None  # the machine it runs on, by its provider's name
    engine: dict[str, Any] | None = None  # how its model server is


@dataclass(frozen=True)
class WorkerReport:
    """What a heartbeat, or a probe of a static upstream, says of a worker."""

    ready: bool
    reason: str | None
    models: tuple[str, ...]
    slots: int
    in_flight: int = 0
    queue_depth: int = 0
    load: dict[str, Any] | None = None
    hardware: dict[str, Any] | None = None
    agent_info: dict[str, Any] | None = None
    instance_id: str | None = None
    engine: dict[str, Any] | None = None
