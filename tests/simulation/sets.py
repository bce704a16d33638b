"""Sets: what Redis holds of a pool at one moment, as ``admission.store.names`` documents it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from admission.store.names import pool_key

_ZSETS = (
    "queue",
    "skipped",
    "drafts",
    "sessions",
    "finishing",
    "presence",
    "timeouts",
    "unused",
    "idle",
    "ended",
    "backlog",
)
_COUNTERS = ("admitted_total", "expired_total", "abandoned_total")
_READ = """
local seen = {}
for i = 1, #KEYS - 3 do seen[i] = redis.call("ZRANGE", KEYS[i], 0, -1, "WITHSCORES") end
seen[#KEYS - 2] = redis.call("HGETALL", KEYS[#KEYS - 2])
seen[#KEYS - 1] = redis.call("HMGET", KEYS[#KEYS - 1], unpack(ARGV))
seen[#KEYS] = redis.call("HLEN", KEYS[#KEYS])
return seen
"""


@dataclass(frozen=True)
class Sets:
    """Each sorted set as ticket -> score, in its order; who has which ticket; the counters."""

    queue: dict[str, float]
    skipped: dict[str, float]
    drafts: dict[str, float]
    sessions: dict[str, float]
    finishing: dict[str, float]
    presence: dict[str, float]
    timeouts: dict[str, float]
    unused: dict[str, float]
    idle: dict[str, float]
    ended: dict[str, float]
    backlog: dict[str, float]  # tickets, without their users
    users: dict[str, str]
    counters: dict[str, int]
    tickets: int  # how many have facts

    @classmethod
    async def read(cls, redis: Redis, pool: str) -> "Sets":
        """All of it at one moment."""
        keys = [pool_key(pool, name) for name in (*_ZSETS, "users", "pool", "tickets")]
        reading: Any = redis.eval(_READ, len(keys), *keys, *_COUNTERS)
        *zsets, users, counters, tickets = await reading
        scored = {name: _scores(raw) for name, raw in zip(_ZSETS, zsets, strict=True)}
        scored["backlog"] = {member.split(" ")[1]: 0.0 for member in scored["backlog"]}
        counted = {n: int(raw or 0) for n, raw in zip(_COUNTERS, counters, strict=True)}
        return cls(**scored, users=dict(_pairs(users)), counters=counted, tickets=tickets)

    def held(self, now_ms: int) -> set[str]:
        """Tickets that hold a slot, or whose last answer does."""
        alive = {t for held in (self.drafts, self.finishing) for t in held if held[t] > now_ms}
        used = {t for t in self.sessions if self.unused.get(t, now_ms + 1) > now_ms}
        return alive | {t for t in used if self.sessions[t] > now_ms}

    def due(self, now_ms: int) -> list[str]:
        """Tickets of which a deadline has come."""
        ending = (
            self.skipped,
            self.drafts,
            self.sessions,
            self.finishing,
            self.presence,
            self.timeouts,
            self.unused,
            self.ended,
        )
        return [t for deadlines in ending for t in deadlines if deadlines[t] <= now_ms]


def _pairs(raw: list[bytes]) -> Iterator[tuple[str, str]]:
    texts = [item.decode() for item in raw]
    return zip(texts[::2], texts[1::2], strict=True)


def _scores(raw: list[bytes]) -> dict[str, float]:
    return {ticket: float(score) for ticket, score in _pairs(raw)}
