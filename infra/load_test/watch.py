"""What is seen from the outside while people use the queue, and whether what must hold does.

Two witnesses: the service's own numbers, once a second, and what each person was told. Anybody
else's turns may run beside; of them only the numbers are known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from admission.client import Ticket
from admission.domain import Status

LATE_S = 5.0  # so long may people not know yet that their session ended
BROKEN_MAX = 100  # that are told; what breaks once breaks often


@dataclass(frozen=True)
class Sample:
    """The pool at one moment, as ``GET /queue/metrics`` says."""

    at_s: float
    capacity: int
    active: int
    draft: int
    finishing: int
    waiting: int

    @property
    def held(self) -> int:
        """Slots in use."""
        return self.active + self.draft + self.finishing


@dataclass(frozen=True)
class Broken:
    """An invariant that did not hold, when, and what was seen."""

    at_s: float
    rule: str
    seen: str


class Watch:
    """Looks at a pool, and listens to what its people are told."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.broken: list[Broken] = []
        self.missed = 0  # looks that nobody answered
        self._users: dict[str, str] = {}  # ticket -> whose it is
        self._over: set[str] = set()
        self._served: dict[str, tuple[str, float]] = {}  # user -> ticket, when it ends at latest
        self._above_since_s: float | None = None

    # --- what people are told --------------------------------------------------------------------

    def told(self, user: str, ticket: Ticket, now_s: float) -> None:
        """``user`` hears this of their ticket."""
        name = ticket.ticket_id
        owner = self._users.setdefault(name, user)
        if owner != user or ticket.user_id != user:
            self._break(now_s, "a ticket is one user's", f"{name}: {owner}, told to {user}")
        if ticket.status is Status.DISCONNECTED:
            self._over.add(name)
            if self._served.get(user, ("", 0.0))[0] == name:
                del self._served[user]
            return
        if name in self._over:
            self._break(now_s, "what ended stays ended", f"{user} is {ticket.status} again")
        if ticket.status is Status.ACTIVE:
            had, until_s = self._served.get(user, (name, 0.0))
            if had != name and now_s < until_s:
                self._break(now_s, "nobody is served twice at once", f"{user}: {had}, {name}")
            self._served[user] = (name, now_s + (ticket.expires_in or 0))

    def gone(self, user: str) -> None:
        """From now on ``user`` does not hear how their turn goes."""
        self._served.pop(user, None)

    # --- what the service says -------------------------------------------------------------------

    def sampled(self, metrics: Mapping[str, Any], now_s: float) -> None:
        """``GET /queue/metrics``."""
        names = ("capacity", "active", "draft", "finishing", "waiting")
        sample = Sample(now_s, *(int(metrics.get(name, 0)) for name in names))
        before = self.samples[-1] if self.samples else sample
        self.samples.append(sample)
        # Lowering the capacity evicts nobody, so who had a slot before may have it still.
        most = max(sample.capacity, before.capacity, before.held)
        if sample.held > most:
            self._break(now_s, "never more than capacity", f"{sample.held} slots held of {most}")
        self._count_served(most, now_s)

    def _count_served(self, most: int, now_s: float) -> None:
        """Those who know that they are served: its numbers may lie, they do not."""
        served = sum(until_s > now_s for _, until_s in self._served.values())
        if served <= most:
            self._above_since_s = None
        elif self._above_since_s is None:
            self._above_since_s = now_s
        elif now_s - self._above_since_s >= LATE_S:
            seen = f"{served} people know themselves served with {most} slots"
            self._break(now_s, "never more than capacity", seen)

    def listed(self, items: Sequence[Mapping[str, Any]], now_s: float) -> None:
        """The first page of ``GET /queue/status``."""
        places = [item["position"] for item in items]
        if places != list(range(1, len(places) + 1)):
            twice = next((p for p in places if places.count(p) > 1), None)
            seen = f"{twice} twice" if twice else f"{places[:20]}"
            self._break(now_s, "places are 1, 2, 3 and nobody's twice", seen)
        tickets = [item["request_id"] for item in items]
        if len(set(tickets)) < len(tickets):
            self._break(now_s, "a ticket waits in one place", f"{len(tickets)} places")

    def _break(self, at_s: float, rule: str, seen: str) -> None:
        if len(self.broken) < BROKEN_MAX:
            self.broken.append(Broken(at_s, rule, seen))
