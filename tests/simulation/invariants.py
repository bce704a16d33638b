"""Invariants: what must hold after every step of a simulated day, whoever did what.

Three stories are held against each other: what the log says moved (``ledger``), what Redis holds
(``sets``), and what callers were answered. None of the engine's own arithmetic is asked.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import PoolPolicy, Status, Ticket
from admission.outcomes import Joined, NoSession, Passed, Refused, Unknown
from admission.store.redis_store import RedisStore
from admission.store.registry import WORKER_LEASE_MS
from tests.simulation.ledger import LIVE, Broken, Ledger, Move, Turn, hold
from tests.simulation.sets import Sets

BATCH = 100  # due leases that one script ends (DESIGN 4, invariant 4)
FINISHING_MS = 120_000  # how long an answer may outlive its session (DESIGN 4)
NEVER_MS = 10**15
SETS_EVERY = 4  # steps that moved nobody between two looks at Redis
VIEWS_EVERY = 15  # looks between two rounds of asking everybody's status
READING = {"status", "metrics", "waiting", "positions", "expire_workers"}


@dataclass(frozen=True)
class Step:
    """One call, whoever heard its answer."""

    name: str
    given: dict[str, Any]
    outcome: Any
    moves: list[Move]

    @property
    def user(self) -> str:
        return str(self.given.get("user", ""))

    def __str__(self) -> str:
        given = " ".join(f"{name}={value}" for name, value in self.given.items())
        moved = ", ".join(f"{m.ticket_id} {m.source}->{m.target} {m.reason}" for m in self.moves)
        return f"{self.name} {given} -> {_short(self.outcome)}" + (moved and f" | {moved}")


def _short(outcome: Any) -> str:
    ticket = outcome if isinstance(outcome, Ticket) else getattr(outcome, "ticket", None)
    if isinstance(ticket, Ticket):
        said = (ticket.ticket_id, ticket.status, ticket.position, ticket.reason)
        return f"{type(outcome).__name__}({' '.join(str(part) for part in said if part)})"
    return str(outcome)


@dataclass
class Witness:
    """Sees every step; raises Broken at the first that breaks an invariant."""

    redis: Redis
    clock: ManualClock
    policy: PoolPolicy
    pool: str
    classes: dict[str, str]  # user -> class
    capacity: int | str = 0
    paused: bool = False
    needs_worker: bool = False
    views_every: int = VIEWS_EVERY
    steps: int = 0
    looks: int = 0
    heard_ms: dict[str, tuple[int, int]] = field(default_factory=dict)  # worker -> instant, slots
    passed: dict[str, Counter[str]] = field(default_factory=dict)  # waiting -> who came before

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.policy)
        self.capacity, self.paused = self.policy.capacity, self.policy.paused
        self.needs_worker = self.policy.needs_worker
        self.sets: Sets | None = None
        self.store = RedisStore(self.redis, self.clock, self.policy)

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms()

    def slots(self) -> int:
        """How many may be held when somebody is granted one; 0 when nobody may be."""
        workers = [
            slots
            for at_ms, slots in self.heard_ms.values()
            if at_ms + WORKER_LEASE_MS > self.now_ms
        ]
        if self.paused or (self.needs_worker and not workers):
            return 0
        if self.capacity == "auto":
            return min(self.policy.max_active, sum(workers) * self.policy.sessions_per_slot)
        return int(self.capacity)

    async def see(self, step: Step) -> None:
        """Look at everything after a call."""
        self.steps += 1
        self._note_settings(step)
        granted = self._write(step)
        self._check_answer(step)
        if step.moves or self.steps % SETS_EVERY == 0:
            await self._look(step, granted)

    async def _look(self, step: Step, granted: list[Turn]) -> None:
        before, self.sets = self.sets, await Sets.read(self.redis, self.pool)
        self._check_sets(self.sets)
        if granted:
            self._check_grants(granted, self.sets)
            if before and self.policy.kind == "request":
                self._check_shares(granted, before, self.sets)
        for ticket in [t for t in self.passed if t not in self.sets.queue]:
            del self.passed[ticket]
        settling = step.name not in READING and not isinstance(step.outcome, Refused)
        if settling and (before is None or len(before.due(self.now_ms)) < BATCH):
            self._check_settled(self.sets)
        self.looks += 1
        if self.looks % self.views_every == 0:
            await self._check_views(self.sets)
            self.ledger.forget(self.sets.ended)

    # --- what the step says ----------------------------------------------------------------------

    def _note_settings(self, step: Step) -> None:
        match step.name:
            case "set_capacity":
                self.capacity = step.given["capacity"]
            case "pause":
                self.paused = step.given["paused"]
            case "configure":
                self.needs_worker = step.given["changes"].get("needs_worker", self.needs_worker)
            case "report_worker":
                report = step.given["report"]
                self.heard_ms[step.given["worker"]] = (self.now_ms, report.slots)

    def _write(self, step: Step) -> list[Turn]:
        """Note the transitions; the turns that were granted a slot."""
        granted = []
        for move in step.moves:
            if step.name == "attend" or move.target in ("active", "draft"):
                self._note_caller(step)
            turn = self.ledger.write(move, self.now_ms)
            if turn is None:
                continue
            if move.source == "new" and move.user_id != step.user:
                turn.will_return = True  # requeued
            elif move.source == "new":
                turn.will_return = step.name != "join"
                self._note_caller(step)
            if move.source == "waiting" and move.target in ("draft", "active"):
                granted.append(turn)
            asked = {"left": "leave", "removed": "cancel"}.get(move.reason)
            hold(not asked or (step.name == asked and move.user_id == step.user), "unasked", move)
        self._note_caller(step)
        return granted

    def _note_caller(self, step: Step) -> None:
        """What the call says of whoever makes it: flags, presence, use."""
        if step.name == "attend":
            for ticket in step.given["tickets"]:
                self._note_presence(self.ledger.turns.get(ticket))
        if isinstance(step.outcome, Passed):
            self.ledger.turns[step.outcome.ticket_id].used_ms = self.now_ms
        view = getattr(step.outcome, "ticket", None)
        turn = self.ledger.turns.get(view.ticket_id) if isinstance(view, Ticket) else None
        if turn is not None and isinstance(step.outcome, Joined):
            turn.will_return = step.given["will_return"]
            turn.auto_confirm = step.given["auto_confirm"] and not turn.will_return
            if turn.auto_confirm or turn.will_return:
                turn.present_ms = self.now_ms if turn.auto_confirm else None
        if turn is not None and step.name == "heartbeat":
            self._note_presence(turn)
            uses = self.policy.kind == "request" or step.given.get("client")
            if turn.state == "active" and uses:
                turn.used_ms = self.now_ms

    def _note_presence(self, turn: Turn | None) -> None:
        if turn and turn.state == "waiting" and not turn.will_return:
            turn.present_ms = self.now_ms

    # --- what was answered -----------------------------------------------------------------------

    def _check_answer(self, step: Step) -> None:
        outcome, mine = step.outcome, [t for t in self.ledger.live() if t.user_id == step.user]
        view = outcome if isinstance(outcome, Ticket) else getattr(outcome, "ticket", None)
        if isinstance(view, Ticket) and not (step.name in READING and self._is_due(view)):
            self._check_view(view)
        if isinstance(outcome, Joined):
            hold(outcome.ticket.status is not Status.DISCONNECTED, "joined what is over", step)
        if isinstance(outcome, Unknown) and not step.given.get("ticket"):
            due = self.sets.due(self.now_ms) if step.name in READING and self.sets else []
            known = [turn for turn in mine if turn.ticket_id not in due]
            hold(not known, "unknown, though there is", known)
        if isinstance(outcome, Passed):
            self._check_passed(outcome)
        if isinstance(outcome, NoSession) and self.policy.kind == "session":
            hold(not [t for t in mine if t.state == "active"], "a session was refused", mine)

    def _is_due(self, view: Ticket) -> bool:
        """Over by its deadline, which no script has come by yet to write."""
        due = self.sets.due(self.now_ms) if self.sets else []
        return view.status is Status.DISCONNECTED and view.ticket_id in due

    def _check_view(self, view: Ticket) -> None:
        turn = self.ledger.turns.get(view.ticket_id)
        hold(turn is not None, "a view of a ticket that the log never told of", view)
        assert turn is not None
        shown = "waiting" if turn.state == "skipped" else turn.state
        hold(view.status == shown and (view.reason or "") == turn.reason, view, "but", turn)
        if view.status is Status.ACTIVE:
            ends_ms = turn.started_ms + self.policy.session_ms
            hold(view.expires_ms == ends_ms, "the hard cap moved", view, turn)
        if view.status is Status.DRAFT:
            hold(view.expires_ms == turn.granted_ms + self.policy.draft_ms, "the draft's end", view)

    def _check_passed(self, passed: Passed) -> None:
        turn = self.ledger.turns[passed.ticket_id]
        if turn.state == "active":
            ends_ms = turn.started_ms + self.policy.session_ms
            hold(passed.deadline_ms == ends_ms, "the hard cap moved", passed, turn)
            hold(self.now_ms < ends_ms, "a request after the hard cap", turn)
            return
        hold(turn.state == "disconnected", "a request without a session passed", turn)
        hold(turn.reason != "removed", "a request of somebody removed passed", turn)
        hold(self.now_ms < turn.ended_ms + FINISHING_MS, "finishing for too long", turn)

    # --- what Redis holds ------------------------------------------------------------------------

    def _check_sets(self, sets: Sets) -> None:
        """One state per ticket, and the one that the log told."""
        states = {
            "waiting": [*sets.queue, *sets.backlog],
            "skipped": list(sets.skipped),
            "draft": list(sets.drafts),
            "active": list(sets.sessions),
            "disconnected": list(sets.ended),
        }
        everybody = [ticket for held in states.values() for ticket in held]
        hold(len(everybody) == len(set(everybody)), "two states of one ticket", states)
        hold(sets.tickets == len(everybody), sets.tickets, "tickets, in states", len(everybody))
        for state, tickets in states.items():
            told = self.ledger.in_state(state)
            known = set(tickets) if state != "disconnected" else set(tickets) | told
            hold(known == told, state, "in Redis and by the log differ by", known ^ told)
        hold(set(sets.finishing) <= set(sets.ended), "finishing, not ended", sets)
        hold(set(sets.presence) <= {*sets.queue, *sets.backlog}, "presence, not waiting", sets)
        hold({*sets.unused, *sets.idle} <= set(sets.sessions), "use without a session", sets)
        hold(set(sets.timeouts) <= {*everybody[: -len(sets.ended) or None]}, "timeouts", sets)
        ledger = self.ledger
        counted = {
            "admitted_total": ledger.admitted,
            "expired_total": ledger.expired,
            "abandoned_total": ledger.abandoned,
        }
        hold(sets.counters == counted, "counters", sets.counters, "but happened", counted)
        if self.policy.kind == "session":
            live = {turn.user_id: turn.ticket_id for turn in ledger.live()}
            current = {user: sets.users.get(user) for user in live}
            hold(current == live, "users have", current, "but live", live)

    def _check_grants(self, granted: list[Turn], sets: Sets) -> None:
        """Never more than capacity; nobody before somebody who came earlier."""
        held = sets.held(self.now_ms)
        slots = self.slots()
        hold(len(held) <= slots, "granted", granted, "with", len(held), "held of", slots)
        if self.policy.kind == "request":
            holding = Counter(
                t.user_id for t in self.ledger.live() if t.state in ("draft", "active")
            )
            most = self.policy.user_concurrency or len(held)
            beyond = [turn for turn in granted if holding[turn.user_id] > most]
            hold(not beyond, "more at once than a user may have:", beyond)
            return
        for ticket in sets.queue:
            first = self.ledger.turns[ticket]
            for turn in granted:
                earlier = self._comes_before(first, turn)
                hold(not earlier, "out of order:", turn, "while there waits", first)

    def _comes_before(self, first: Turn, turn: Turn) -> bool:
        """Had ``first`` to be granted a slot before ``turn``?"""
        lapsed = first.present_ms is not None and (
            first.present_ms + self.policy.grace_ms <= self.now_ms
        )
        came_after = first.joined_ms == self.now_ms and first.number > turn.number
        if lapsed or came_after:  # in the same script, which granted before it let somebody in
            return False
        if self._class(first.user_id) == self._class(turn.user_id):
            return first.number < turn.number
        return first.joined_ms - self._start(first) < turn.joined_ms - self._start(turn)

    def _class(self, user: str) -> str:
        return self.classes.get(user, "default")

    def _start(self, turn: Turn) -> int:
        priority = self.policy.priorities.get(self._class(turn.user_id))
        return priority.head_start_ms if priority else 0

    def _check_shares(self, granted: list[Turn], before: Sets, after: Sets) -> None:
        """Fair between users: while a request stands in the shared order, another user is served at
        most 1 + (their weight / ours) times, the bound of start-time fair queueing."""
        for turn in granted:
            for ticket in set(before.queue) & set(after.queue):
                waiting = self.ledger.turns[ticket]
                if waiting.user_id == turn.user_id or waiting.present_ms == self.now_ms:
                    continue
                passed = self.passed.setdefault(ticket, Counter())
                passed[turn.user_id] += 1
                most = 1 + self._weight(turn.user_id) / self._weight(waiting.user_id)
                hold(passed[turn.user_id] <= most, waiting, "was passed too often:", passed)

    def _weight(self, user: str) -> float:
        priority = self.policy.priorities.get(self._class(user))
        return priority.weight if priority else 1

    def _check_settled(self, sets: Sets) -> None:
        """Nothing past its deadline is left, and no slot idles while somebody waits."""
        due = sets.due(self.now_ms)
        hold(not due, "past their deadline:", due)
        free = self.slots() - len(sets.held(self.now_ms))
        hold(free <= 0 or not sets.queue, free, "slots idle, there wait", list(sets.queue))
        late = [t for t in sets.sessions if sets.sessions[t] > self.now_ms + self.policy.session_ms]
        hold(not late, "sessions beyond the hard cap", late)

    # --- what everybody is told ------------------------------------------------------------------

    async def _check_views(self, sets: Sets) -> None:
        """Nobody who was acknowledged is lost; the metrics count what the gate counts."""
        metrics = await self.store.metrics(self.pool)
        held = sets.held(self.now_ms)
        counted = metrics.active + metrics.draft + metrics.finishing
        # A due answer counts from its session's end, which a script may still have to write.
        hold(counted >= len(held), "metrics count", counted, "but held are", held)
        hold(metrics.waiting == len(sets.queue) + len(sets.backlog), "metrics.waiting", metrics)
        named = self.policy.kind == "request"
        kept = [
            t for t in self.ledger.turns.values() if t.state in LIVE or t.ticket_id in sets.ended
        ]
        asked = (
            self.store.status(self.pool, turn.user_id, ticket=turn.ticket_id if named else "")
            for turn in kept
        )
        places = {ticket: place for place, ticket in enumerate(sets.queue, 1)}
        for turn, seen in zip(kept, await asyncio.gather(*asked), strict=True):
            if isinstance(seen, Unknown):
                over_ms = sets.ended.get(turn.ticket_id, NEVER_MS)
                hold(over_ms <= self.now_ms, "lost:", turn)
            elif seen.ticket_id == turn.ticket_id and not sets.due(self.now_ms):
                self._check_view(seen)
                place = places.get(turn.ticket_id, seen.position)
                hold(seen.position == place, "position", seen.position, "but stands at", place)

    async def check_empty(self) -> None:
        """After the last: what is left knows nobody, and a closed pool leaves nothing."""
        hold(not list(self.ledger.live()), "still there:", list(self.ledger.live()))
        names = {turn.user_id for turn in self.ledger.turns.values()} | set(self.classes)
        for key in await self.redis.keys("*"):
            kept = await self.redis.dump(key) or b""
            named = [name for name in names if name.encode() in kept]
            hold(not named, key, "still knows", named)
        closed = await self.store.close_pool(self.pool)
        hold(closed is None, "an empty pool cannot be closed:", closed)
        hold(await self.redis.keys("*") == [], "left of a closed pool:", await self.redis.keys("*"))


__all__ = ["Broken", "Step", "Witness"]
