"""What a pool wants at one moment, as Redis counts it. A field that is not known is None."""

from msgspec import Struct

from admission.domain import PoolMetrics


class Demand(Struct, frozen=True, kw_only=True):
    """One pool's demand at ``at_ms``, in people (or requests) and slots.

    The differences of ``arrived_total`` and ``begun_total`` are rates; the latter only grows, the
    former falls by those who left unserved. Without them nothing is forecast, and only the wait and
    the slots in use count.
    """

    at_ms: int
    waiting: int | None  # in the queue
    in_use: int | None  # slots held: drafts, sessions or leases, answers that finish
    capacity: int | None  # slots that may be granted now
    # Estimated for who joins now, at this capacity; None: not known, or there is none.
    wait_ms: float | None = None
    arrived_total: int | None = None  # who ever joined
    begun_total: int | None = None  # who ever got a slot
    paused: bool = False
    slots_most: int | None = None  # more than these the pool never grants; None: no bound
    elastic: bool = True  # False: the capacity is a fixed number, whatever workers there are
    session_ms: int | None = None  # that a turn lasts at most; None: one request, however long

    @classmethod
    def of(cls, metrics: PoolMetrics) -> "Demand":
        """From a pool's metrics. Who left the queue unserved by a click is not among those who
        came: neither waits any more."""
        settings = metrics.settings
        elastic = settings.get("capacity") == "auto"
        return cls(
            at_ms=metrics.now_ms,
            waiting=metrics.waiting,
            in_use=metrics.active + metrics.draft + metrics.finishing,
            capacity=metrics.capacity,
            wait_ms=metrics.wait_alone_ms,
            arrived_total=metrics.admitted_total
            + metrics.abandoned_total
            + metrics.draft
            + metrics.waiting,
            begun_total=metrics.admitted_total,
            paused=metrics.paused,
            slots_most=settings.get("max_active") if elastic else None,
            elastic=elastic,
            session_ms=settings["session_ms"] if settings.get("kind") == "session" else None,
        )
