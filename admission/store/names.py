"""Every Redis key and channel of Vestibule: its name, its type and what it means.

Knows nothing of what is done with them; that is in the Lua scripts (``lua/``).

A pool's keys share the literal hash tag ``{pool}``, so that one script may touch them all on a
Redis Cluster; keys of no pool carry ``{_global}`` and never meet a pool's keys in one script.
"""

from typing import NamedTuple

LAYOUT = 1
"""Version of everything below. A service refuses a Redis written by a newer layout."""


class Key(NamedTuple):
    """One Redis key of a pool, named ``vestibule:{pool}:<name>``."""

    name: str
    type: str
    meaning: str


POOL_KEYS: tuple[Key, ...] = (
    Key("queue", "zset", "waiting ticket -> score: (t_ms - head start) * 4096 + sequence"),
    Key("skipped", "zset", "waiting ticket whose presence lapsed -> when it is abandoned (ms)"),
    Key("drafts", "zset", "ticket holding a reserved slot -> deadline (ms)"),
    Key("sessions", "zset", "ticket using its slot -> hard deadline (ms)"),
    Key("finishing", "zset", "ended ticket whose last answer still runs -> deadline (ms)"),
    Key("presence", "zset", "waiting ticket that attached -> presence deadline (ms)"),
    Key("timeouts", "zset", "waiting ticket -> queue timeout (ms), when one is set"),
    Key("unused", "zset", "auto-confirmed session not used yet -> deadline (ms)"),
    Key("idle", "zset", "session -> when it counts as idle while others wait (ms)"),
    Key("ended", "zset", "disconnected ticket -> when it is forgotten (ms)"),
    Key("tickets", "hash", "ticket -> its facts as JSON"),
    Key("users", "hash", "user -> the user's latest ticket"),
    Key(
        "pool", "hash", "defaults, set:* (settings), *_total (counters), t_ms, seq (clock), life_ms"
    ),
    Key("told", "hash", "ticket -> position or moment last announced; soon:ticket -> warned"),
    Key("waits", "list", "the newest 200 waits of admitted tickets (ms)"),
    Key("workers", "hash", "worker -> its facts as JSON"),
    Key("ready", "zset", "worker that may get requests -> heartbeat deadline (ms)"),
)

USER_CHANNEL = "queue_status:"
"""Prefix of the channel that tells one user's news, as JSON (DESIGN section 6)."""


def pool_key(pool: str, name: str) -> str:
    """The full name of one key of a pool."""
    return f"vestibule:{{{pool}}}:{name}"


def pool_keys(pool: str) -> list[str]:
    """All keys of a pool in the order in which every script declares them."""
    return [pool_key(pool, key.name) for key in POOL_KEYS]


LAYOUT_KEY = "vestibule:{_global}:layout"  # string: LAYOUT of the newest service that wrote here
POOLS_KEY = "vestibule:{_global}:pools"  # set: the names of all pools
SIGNING_KEY = "vestibule:{_global}:signing_key"  # string: signs user tokens, made once
