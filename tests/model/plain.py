"""A pool in plain Python: the rules of DESIGN section 4 in obvious code, to disagree with the Lua.

Everything is a scan over a list of tickets. Knows nothing of Redis, nor how the engine does it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NamedTuple

from admission.domain import PoolPolicy, Priority
from tests.model.lines import ArrivalLine, FairLine, Place

ANSWER_MS = 30_000
FINISHING_MS = 120_000
SKIPPED_MS = 600_000
UNUSED_MS = 60_000
WARNING_MS = 60_000
READABLE_MS = 300_000
BY_DEADLINE = {"session_timeout", "draft_timeout", "idle", "queue_timeout", "abandoned"}


class End(NamedTuple):
    """When a ticket ends, unless something happens, and why."""

    ms: int
    reason: str


@dataclass(eq=False)
class Turn:
    """One ticket. ``state`` is what the last script left; deadlines are instants in ms."""

    place: Place
    request: str
    priority: str
    state: str = "waiting"
    auto_confirm: bool = False
    will_return: bool = False
    skipped: bool = False
    present_until: int | None = None
    skipped_until: int | None = None
    patience_until: int | None = None  # the queue timeout
    drafted_until: int | None = None
    session_until: int | None = None
    use_by: int | None = None
    idle_at: int | None = None
    warned_ms: int | None = None
    chats: set[str] = field(default_factory=set)
    running: dict[str, int] = field(default_factory=dict)  # request -> lease
    answers: dict[str, int] = field(default_factory=dict)  # message -> lease
    finishing_until: int | None = None
    ended_ms: int | None = None
    reason: str | None = None

    @property
    def user(self) -> str:
        return self.place.user

    @property
    def ticket_id(self) -> str:
        return self.place.ticket_id

    def end(self) -> End | None:
        """Whichever deadline comes first; at the hard cap it is the cap that ends a session."""
        by_state = {
            "waiting": [(self.skipped_until, "abandoned"), (self.patience_until, "queue_timeout")],
            "draft": [(self.drafted_until, "draft_timeout")],
            "active": [(self.session_until, "session_timeout"), (self.use_by, "idle")],
            "disconnected": [],
        }
        ends = [End(ms, reason) for ms, reason in by_state[self.state] if ms is not None]
        return min(ends, key=lambda end: end.ms, default=None)

    def answering_until(self, now: int) -> int:
        """The end of the last lease of what runs; 0 when nothing does."""
        leases = [*self.running.values(), *self.answers.values()]
        return max((lease for lease in leases if lease > now), default=0)

    def holds_slot(self, now: int) -> bool:
        if self.state == "disconnected":
            return self.finishes(now)
        end = self.end()
        return self.state in ("draft", "active") and end is not None and end.ms > now

    def finishes(self, now: int) -> bool:
        """An answer that outlived its session; its end may not have been noticed yet."""
        if self.state == "disconnected":
            return self.finishing_until is not None and self.finishing_until > now
        end = self.end()
        over = self.state == "active" and end is not None and end.ms <= now
        return over and self.answering_until(now) > now

    def seen(self, now: int) -> tuple[str, int | None, str | None]:
        """(status, expires_ms, reason) as anybody may read them at ``now``."""
        end = self.end()
        if self.state == "disconnected":
            return "disconnected", None, self.reason
        if end and end.ms <= now:
            return "disconnected", None, end.reason
        return self.state, self.drafted_until or self.session_until, None

    def over_ms(self, now: int) -> int | None:
        end = self.end()
        return self.ended_ms or (end.ms if end and end.ms <= now else None)

    def readable(self, now: int) -> bool:
        over = self.over_ms(now)
        return over is None or now < over + READABLE_MS


class Said(NamedTuple):
    """A message to a user, without its times."""

    user: str
    status: str
    detail: str | int | None = None  # a reason, a session type or a position


@dataclass
class PlainPool:
    """All tickets of one pool. A call is ``begin`` .. ``offer``; what it tells is in ``said``."""

    given: PoolPolicy
    now: int
    changed: dict[str, Any] = field(default_factory=dict)  # an admin's settings
    turns: list[Turn] = field(default_factory=list)  # oldest first
    newest: dict[str, Turn] = field(default_factory=dict)
    arrivals: int = 0
    admitted: int = 0
    expired: int = 0
    abandoned: int = 0
    said: list[Said] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.line: ArrivalLine | FairLine = FairLine() if self.requests else ArrivalLine()

    @property
    def requests(self) -> bool:
        return self.given.kind == "request"

    @property
    def policy(self) -> PoolPolicy:
        return replace(self.given, **self.changed)

    # --- counting --------------------------------------------------------------------------------

    def waiting(self) -> list[Turn]:
        """Who stands in the line, as the last script left it."""
        return [t for t in self.turns if t.state == "waiting" and not t.skipped]

    def busy(self) -> int:
        return sum(t.holds_slot(self.now) or t.finishes(self.now) for t in self.turns)

    def capacity(self) -> int:
        assert isinstance(self.policy.capacity, int)
        return self.policy.capacity

    def free(self) -> int:
        return 0 if self.policy.paused else max(0, self.capacity() - self.busy())

    def latest(self, user: str, named: str = "") -> Turn | None:
        """The user's ticket: in a session pool the last, in a request pool also by its id."""
        mine = [t for t in self.turns if t.user == user and t.readable(self.now)]
        if self.requests and named:
            mine = [t for t in mine if t.ticket_id == named]
        return mine[-1] if mine else None

    def forgot_newest(self, user: str) -> bool:
        """Of several requests the newest is forgotten and others live on."""
        latest = self.latest(user)
        return self.requests and latest is not None and latest is not self.newest.get(user)

    def finishing(self, user: str) -> Turn | None:
        mine = (t for t in self.turns if t.user == user and t.state == "disconnected")
        return next((t for t in mine if t.finishes(self.now)), None)

    def class_of(self, name: str) -> Priority | None:
        classes = {"default": Priority(), **self.policy.priorities}
        return classes.get(name)

    def may_be_passed(self, turn: Turn) -> bool:
        """Could anybody, of whatever class, come now and be served before?"""
        classes = {"default": Priority(), **self.policy.priorities}.values()
        if self.requests:
            return any(Fraction(c.weight) > turn.place.weight for c in classes)
        score = turn.place.joined_ms - turn.place.head_start_ms
        return any(self.now - c.head_start_ms < score for c in classes)

    def deadlines(self) -> list[int]:
        """Every instant still to come at which something ends."""
        instants: list[int] = []
        for t in self.turns:
            end = t.end()
            instants += [end.ms] if end else []
            instants += [t.ended_ms + READABLE_MS] if t.ended_ms else []
            instants += [ms for ms in (t.present_until, t.idle_at, t.finishing_until) if ms]
            instants += [*t.running.values(), *t.answers.values()]
        return sorted({ms for ms in instants if ms > self.now})

    def next_ms(self) -> int | None:
        """ms until the first deadline that moves a slot or a place."""
        instants: list[int | None] = []
        for t in self.turns:
            end = t.end()
            instants += [end.ms if end else None, t.present_until, t.finishing_until]
            instants += [t.idle_at] if self.waiting() else []
        return min((ms - self.now for ms in instants if ms is not None), default=None)

    # --- every writing call ----------------------------------------------------------------------

    def begin(self) -> None:
        """End what is due: first tickets, then presence, then who idles while others wait."""
        due = [(t.end(), t) for t in self.turns]
        ending = [(end, t) for end, t in due if end and end.ms <= self.now]
        for end, turn in sorted(ending, key=lambda pair: (pair[0].ms, pair[1].ticket_id)):
            self.finish_turn(turn, end.reason, end.ms)
        for t in self.turns:
            if t.finishing_until is not None and t.finishing_until <= self.now:
                t.finishing_until = None
            if t.present_until is not None and t.present_until <= self.now:
                self.skip(t)
        if self.waiting():
            for t in self.turns:
                if t.state == "active" and t.idle_at is not None and t.idle_at <= self.now:
                    self.idle(t)
        self.turns = [t for t in self.turns if t.readable(self.now) or t.finishes(self.now)]
        self.settle_line()

    def settle_line(self) -> None:
        if isinstance(self.line, FairLine):
            self.line.most = self.policy.user_concurrency
        running = (t.user for t in self.turns if t.state in ("draft", "active"))
        self.line.settle(running, (t.user for t in self.turns if t.state == "waiting"))

    def offer(self) -> None:
        """A free slot goes to the first in the line: present and auto_confirm, or as a draft."""
        self.settle_line()
        while self.free() > 0 and (first := self.line.first()):
            turn = next(t for t in self.turns if t.place is first)
            if turn.present_until is not None and turn.auto_confirm:
                self.admit(turn)
            else:
                self.line.go(turn.place, served=True)
                turn.state, turn.drafted_until = "draft", self.now + self.policy.draft_ms
                turn.present_until = turn.patience_until = None
                self.said.append(Said(turn.user, "slot_available"))
            self.settle_line()

    def admit(self, turn: Turn) -> None:
        direct = turn.state == "waiting"
        if direct:
            self.line.go(turn.place, served=True)
        turn.state, turn.session_until = "active", self.now + self.policy.session_ms
        turn.drafted_until = turn.present_until = turn.patience_until = None
        if before := self.finishing(turn.user):
            # nobody holds two slots: what still runs goes on in the new session
            turn.running |= {k: ms for k, ms in before.running.items() if ms > self.now}
            turn.answers |= {k: ms for k, ms in before.answers.items() if ms > self.now}
            before.finishing_until = None
        if self.requests:
            turn.use_by = self.now + self.policy.lease_ms
        else:
            turn.use_by = self.now + UNUSED_MS if direct else None
            turn.idle_at = self.now + self.policy.idle_ms
        self.admitted += 1
        self.said.append(Said(turn.user, "connected"))

    def used(self, turn: Turn) -> None:
        """A request pool's lease is renewed; a session is no longer idle."""
        if self.requests:
            turn.use_by = self.now + self.policy.lease_ms
            return
        turn.use_by, turn.warned_ms = None, None
        turn.idle_at = self.now + self.policy.idle_ms

    def skip(self, turn: Turn) -> None:
        self.line.skip(turn.place)
        turn.skipped, turn.present_until = True, None
        turn.skipped_until = self.now + SKIPPED_MS
        self.settle_line()

    def attach(self, turn: Turn) -> None:
        """Presence, for who did not say that they will return; who was skipped is back."""
        if turn.skipped:
            turn.skipped, turn.skipped_until = False, None
            self.line.enter(turn.place)
        if not turn.will_return:
            turn.present_until = self.now + self.policy.grace_ms
        self.settle_line()

    def idle(self, turn: Turn) -> None:
        """Ended 60 s after a warning; a warning twice as old is none."""
        since = None if turn.warned_ms is None else self.now - turn.warned_ms
        if turn.answering_until(self.now):
            self.used(turn)
        elif since is not None and WARNING_MS <= since < 2 * WARNING_MS:
            self.finish_turn(turn, "idle", self.now)
        else:
            turn.warned_ms, turn.idle_at = self.now, self.now + WARNING_MS
            self.said.append(Said(turn.user, "expiring_soon", "active"))

    def finish_turn(self, turn: Turn, reason: str, ended_ms: int) -> None:
        """Any state to disconnected."""
        if turn.state == "waiting":
            self.line.go(turn.place, served=False)
        lease = turn.answering_until(self.now)
        if turn.state == "active" and not self.requests and lease:
            turn.finishing_until = min(lease, ended_ms + FINISHING_MS)
        turn.state, turn.reason, turn.ended_ms = "disconnected", reason, ended_ms
        turn.skipped, turn.idle_at, turn.present_until = False, None, None
        self.abandoned += reason == "abandoned"
        if reason in BY_DEADLINE:
            self.expired += 1
            self.said.append(Said(turn.user, "expired", reason))
        again = reason == "session_timeout" and self.policy.requeue and not self.requests
        self.said.append(Said(turn.user, "disconnected", "requeued" if again else reason))
        if again:
            new = self.enter(turn.user, "", turn.priority, turn.place)
            new.will_return = True
        self.settle_line()

    def enter(self, user: str, request: str, priority: str, kept: Place | None = None) -> Turn:
        """A new ticket at the end of the line; a requeued one keeps its class."""
        self.arrivals += 1
        found = self.class_of(priority) or Priority()
        weight = kept.weight if kept else Fraction(found.weight)
        head_start = kept.head_start_ms if kept else found.head_start_ms
        turn = Turn(Place(user, self.arrivals, self.now, weight, head_start), request, priority)
        if self.policy.queue_timeout_ms is not None:
            turn.patience_until = self.now + self.policy.queue_timeout_ms
        self.turns.append(turn)
        self.newest[user] = turn
        self.line.enter(turn.place)
        self.settle_line()
        return turn

    def shorten(self, turn: Turn | None) -> None:
        """A finishing slot ends with the last of its answers."""
        if turn and turn.finishing_until is not None:
            lease = turn.answering_until(self.now)
            turn.finishing_until = min(lease, turn.finishing_until) if lease else None

    def forget_all(self) -> None:
        """The pool is closed: everybody is told, nothing stays."""
        for turn in self.turns:
            if turn.state != "disconnected":
                self.said.append(Said(turn.user, "disconnected", "pool_closed"))
        fresh = PlainPool(self.given, self.now, said=self.said)
        self.__dict__.update(fresh.__dict__)

    def counted(self, holds: Callable[[Turn], bool]) -> int:
        return sum(map(holds, self.turns))

    def users(self) -> Iterable[str]:
        return {t.user for t in self.turns}
