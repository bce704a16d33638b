"""Ledger: every turn as the log's transitions tell it, held against what may happen to a turn."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from admission.domain import PoolPolicy

UNUSED_MS = 60_000  # an auto-confirmed session must be used by then (DESIGN 4, invariant 9)
WARNED_MS = 60_000  # between expiring_soon and the end of an idle session (the same)
SKIPPED_MS = 600_000  # a lapsed place is kept (the same)

ARROWS = {
    ("waiting", "skipped"),
    ("skipped", "waiting"),
    ("waiting", "draft"),
    ("waiting", "active"),
    ("draft", "active"),
    ("waiting", "disconnected"),
    ("draft", "disconnected"),
    ("active", "disconnected"),
}
LIVE = {"waiting", "skipped", "draft", "active"}


class Broken(AssertionError):
    """An invariant does not hold."""


def hold(held: bool, *what: object) -> None:
    """Raise Broken unless it holds."""
    if not held:
        raise Broken(" ".join(map(str, what)))


@dataclass(frozen=True)
class Move:
    """One transition of the log."""

    ticket_id: str
    user_id: str
    source: str
    target: str
    reason: str = ""

    @classmethod
    def of(cls, line: str) -> "Move":
        """From a line of ``admission.transitions``."""
        fields = dict(pair.split("=", 1) for pair in line.split(" ")[1:])
        fields.pop("pool")
        return cls(**fields)


@dataclass
class Turn:
    """One ticket's life so far; instants in ms of Redis' clock."""

    ticket_id: str
    user_id: str
    number: int  # order of arrival
    joined_ms: int
    state: str = "waiting"
    auto_confirm: bool = False
    will_return: bool = False
    present_ms: int | None = None  # last sign of life; None: never attached
    skipped_ms: int = 0
    granted_ms: int = 0
    started_ms: int = 0
    used_ms: int | None = None
    drafted: bool = False
    ended_ms: int = 0
    reason: str = ""


@dataclass
class Ledger:
    """All turns of one pool."""

    policy: PoolPolicy
    turns: dict[str, Turn] = field(default_factory=dict)
    admitted: int = 0
    expired: int = 0
    abandoned: int = 0

    def live(self) -> Iterator[Turn]:
        """Those that have not ended."""
        return (turn for turn in self.turns.values() if turn.state in LIVE)

    def in_state(self, *states: str) -> set[str]:
        """Their ticket ids."""
        return {turn.ticket_id for turn in self.turns.values() if turn.state in states}

    def forget(self, kept: Iterable[str]) -> None:
        """Drop the ended turns that Redis no longer keeps."""
        keep = set(kept)
        self.turns = {t: turn for t, turn in self.turns.items() if turn.state in LIVE or t in keep}

    def write(self, move: Move, now_ms: int) -> Turn | None:
        """Note a transition; the turn, None for a finishing lease that ended."""
        if move.source == "finishing":
            turn = self.turns.get(move.ticket_id)
            hold(turn is not None and turn.state == "disconnected", "finishing, not ended", move)
            return None
        if move.source == "new":
            return self._open(move, now_ms)
        hold(move.ticket_id in self.turns, "a transition of a forgotten ticket", move)
        turn = self.turns[move.ticket_id]
        # Whoever is passed over is logged as ending out of "waiting".
        known = "waiting" if turn.state == "skipped" and move.target != "waiting" else turn.state
        hold(known == move.source, turn, "cannot take", move)
        hold((move.source, move.target) in ARROWS, "no such transition", move)
        getattr(self, f"_to_{move.target}")(turn, move, now_ms)
        turn.state = move.target
        return turn

    def _open(self, move: Move, now_ms: int) -> Turn:
        hold(move.ticket_id not in self.turns, "a ticket id came twice", move)
        hold(move.target == "waiting", "a new ticket that does not wait", move)
        if self.policy.kind == "session":
            others = [t for t in self.live() if t.user_id == move.user_id]
            hold(not others, "a second live ticket", move, others)
        turn = Turn(move.ticket_id, move.user_id, len(self.turns), now_ms)
        turn.number = 1 + max((t.number for t in self.turns.values()), default=0)
        self.turns[move.ticket_id] = turn
        return turn

    def _to_skipped(self, turn: Turn, move: Move, now_ms: int) -> None:
        hold(not turn.will_return, "skipped, though they said they return", move)
        hold(turn.present_ms is not None, "skipped, though never attached", move)
        lapses = (turn.present_ms or 0) + self.policy.grace_ms
        hold(now_ms >= lapses, "skipped", lapses - now_ms, "ms before presence lapsed", move)
        turn.skipped_ms = now_ms

    def _to_waiting(self, turn: Turn, move: Move, now_ms: int) -> None:
        turn.present_ms = now_ms

    def _to_draft(self, turn: Turn, move: Move, now_ms: int) -> None:
        self._granted(turn, move, now_ms)
        direct = turn.auto_confirm and turn.present_ms is not None
        hold(not direct, "a draft for who is present and confirms by itself", move)
        turn.drafted = True

    def _to_active(self, turn: Turn, move: Move, now_ms: int) -> None:
        if move.source == "waiting":
            self._granted(turn, move, now_ms)
            direct = turn.auto_confirm and turn.present_ms is not None
            hold(direct, "a session that nobody confirmed", move, turn)
        else:
            hold(now_ms < turn.granted_ms + self.policy.draft_ms, "confirmed too late", move)
        turn.started_ms = now_ms
        self.admitted += 1

    def _granted(self, turn: Turn, move: Move, now_ms: int) -> None:
        lapsed = turn.present_ms is not None and now_ms >= turn.present_ms + self.policy.grace_ms
        hold(not lapsed, "a slot for somebody absent", move, turn)
        if self.policy.queue_timeout_ms:
            last = turn.joined_ms + self.policy.queue_timeout_ms
            hold(now_ms < last, "a slot after the queue timeout", move)
        turn.granted_ms = now_ms

    def _to_disconnected(self, turn: Turn, move: Move, now_ms: int) -> None:
        earliest = self._earliest(turn, move.reason)
        hold(now_ms >= earliest, "ended", earliest - now_ms, "ms too early", move, turn)
        turn.ended_ms, turn.reason = now_ms, move.reason
        self.expired += move.reason not in ("left", "removed", "pool_closed")
        self.abandoned += move.reason == "abandoned"

    def _earliest(self, turn: Turn, reason: str) -> int:
        """When a turn may end for this reason at the earliest."""
        policy = self.policy
        match reason:
            case "left" | "removed":  # the witness knows who asked for it
                return 0
            case "session_timeout":
                return turn.started_ms + policy.session_ms
            case "draft_timeout":
                return turn.granted_ms + policy.draft_ms
            case "queue_timeout":
                return turn.joined_ms + (policy.queue_timeout_ms or 10**15)
            case "abandoned":
                hold(turn.state == "skipped", "abandoned, though not skipped", turn)
                return turn.skipped_ms + SKIPPED_MS
            case "idle" if policy.kind == "request":
                return max(turn.started_ms, turn.used_ms or 0) + policy.lease_ms
            case "idle":
                if turn.used_ms is None and not turn.drafted:
                    return turn.started_ms + UNUSED_MS
                used = turn.started_ms if turn.used_ms is None else turn.used_ms
                return used + policy.idle_ms + WARNED_MS
        raise Broken(f"an unknown reason {reason!r}")
