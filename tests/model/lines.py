"""The order of who waits, in plain Python: by arrival, or fair between users.

Knows places; not why somebody is in the line.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(eq=False)
class Place:
    """What a line must know of a ticket: whose it is, when it came, what its class gives."""

    user: str
    number: int  # of the ticket's arrival
    joined_ms: int
    weight: Fraction = Fraction(1)
    head_start_ms: int = 0
    ticket_id: str = ""


@dataclass
class ArrivalLine:
    """A session pool's: by time of arrival less the head start, then as they came in that ms."""

    scores: dict[Place, tuple[int, int]] = field(default_factory=dict)  # kept while skipped
    standing: set[Place] = field(default_factory=set)
    last_ms: int = 0
    sequence: int = 0

    def enter(self, place: Place) -> None:
        if place not in self.scores:
            self.sequence = self.sequence + 1 if place.joined_ms == self.last_ms else 0
            self.last_ms = place.joined_ms
            self.scores[place] = (place.joined_ms - place.head_start_ms, self.sequence)
        self.standing.add(place)

    def skip(self, place: Place) -> None:
        self.standing.discard(place)

    def go(self, place: Place, *, served: bool) -> None:
        self.standing.discard(place)
        self.scores.pop(place, None)

    def settle(self, running: Iterable[str], waiting: Iterable[str]) -> None:
        """Nothing here depends on who runs."""

    def order(self) -> list[Place]:
        """Equal scores (by head starts) stand by id."""
        return sorted(self.standing, key=lambda place: (self.scores[place], place.ticket_id))

    def first(self) -> Place | None:
        return next(iter(self.order()), None)

    def places(self, place: Place) -> range:
        """The places that may be told to ``place``: here exactly one."""
        before = [p for p in self.standing if self.scores[p] < self.scores[place]]
        own = self.order().index(place) if place in self.standing else len(before)
        return range(own + 1, own + 2)


@dataclass
class FairLine:
    """A request pool's: start-time fair queueing, with one request of each user in the order."""

    most: int | None = None  # of one user's requests run at once
    virtual: Fraction = Fraction(0)
    finish: dict[str, Fraction] = field(default_factory=dict)
    tags: dict[Place, Fraction] = field(default_factory=dict)  # each user's first -> start tag
    later: set[Place] = field(default_factory=set)

    def enter(self, place: Place) -> None:
        self.later.add(place)

    def skip(self, place: Place) -> None:
        self.later.discard(place)
        self.tags.pop(place, None)

    def go(self, place: Place, *, served: bool) -> None:
        """Only who is served pays; a turn costs less the greater the weight."""
        if served:
            start = self.tags[place]
            self.virtual = max(self.virtual, start)
            self.finish[place.user] = start + 1 / place.weight
        self.skip(place)

    def settle(self, running: Iterable[str], waiting: Iterable[str]) -> None:
        """Let each user's first request into the order; forget all debts when all is quiet."""
        running = list(running)
        if not running and not list(waiting):
            self.virtual, self.finish = Fraction(0), {}
        heads = {place.user for place in self.tags}
        for place in sorted(self.later, key=lambda place: place.number):
            allowed = self.most is None or running.count(place.user) < self.most
            if place.user in heads or not allowed:
                continue
            heads.add(place.user)
            self.later.discard(place)
            self.tags[place] = max(self.virtual, self.finish.get(place.user, Fraction(0)))

    def order(self) -> list[Place]:
        """The shared order, and after it what stands behind one's own."""
        heads = sorted(self.tags, key=lambda place: (self.tags[place], place.number))
        return heads + sorted(self.later, key=lambda place: (place.user, place.number))

    def first(self) -> Place | None:
        return self.order()[0] if self.tags else None

    def places(self, place: Place) -> range:
        """Exact in the shared order; behind it one follows one's own earlier requests, and how
        many of the others come between is an estimate."""
        order = self.order()
        if place in self.tags:
            return range(order.index(place) + 1, order.index(place) + 2)
        ahead = [p for p in order if p.user == place.user and self._before(p, place)]
        total = len(order) + (place not in self.later)
        return range(len(ahead) + 1, total + 1)

    def _before(self, one: Place, other: Place) -> bool:
        return one in self.tags or one.number < other.number
