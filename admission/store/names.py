"""Every Redis key and channel of Vestibule: its name, its type and what it means.

Knows nothing of what is done with them; that is in the Lua scripts (``lua/``).

A pool's keys share the literal hash tag ``{pool}``, so that one script may touch them all on a
Redis Cluster; keys of no pool carry ``{_global}`` and never meet a pool's keys in one script.
"""

from typing import NamedTuple

LAYOUT = 2
"""Version of everything below. A service reads the older ones and refuses a newer.

1: a ticket's facts as JSON. 2: as MessagePack, without what is empty; request pools.
"""


class Key(NamedTuple):
    """One Redis key of a pool, named ``vestibule:{pool}:<name>``."""

    name: str
    type: str
    meaning: str


POOL_KEYS: tuple[Key, ...] = (
    Key(
        "queue",
        "zset",
        "waiting ticket -> (t_ms - head start) * 4096 + sequence; in a request pool each user's"
        " first -> start tag",
    ),
    Key("skipped", "zset", "waiting ticket whose presence lapsed -> when it is abandoned (ms)"),
    Key("drafts", "zset", "ticket holding a reserved slot -> deadline (ms)"),
    Key("sessions", "zset", "ticket using its slot -> hard deadline (ms)"),
    Key("finishing", "zset", "ended ticket whose last answer still runs -> deadline (ms)"),
    Key("presence", "zset", "waiting ticket that attached -> presence deadline (ms)"),
    Key("timeouts", "zset", "waiting ticket -> queue timeout (ms), when one is set"),
    Key("unused", "zset", "session not used yet, or a request's lease -> deadline (ms)"),
    Key("idle", "zset", "session -> when it counts as idle while others wait (ms)"),
    Key("ended", "zset", "disconnected ticket -> when it is forgotten (ms)"),
    Key("tickets", "hash", "ticket -> its facts as MessagePack"),
    Key("users", "hash", "user, or in a request pool also user and request -> latest ticket"),
    Key(
        "pool",
        "hash",
        "defaults, settings (JSON), *_total (counters), pass_*, t_ms, seq, arrivals, virtual"
        " (clocks), machines (that are coming, MessagePack)",
    ),
    Key("told", "hash", "ticket -> place and instant (or draft's moment) last told; soon:ticket"),
    Key("waits", "list", "the newest 200 waits of admitted tickets (ms)"),
    Key("workers", "hash", "worker -> its facts as JSON"),
    Key("ready", "zset", "worker that may get requests -> heartbeat deadline (ms)"),
    Key("backlog", "zset", "user and ticket of a request that is not the user's first -> 0"),
    Key("aside", "zset", "user and ticket of a request whose presence lapsed -> 0"),
    Key("lanes", "hash", "user of a request pool -> first and running tickets (MessagePack)"),
    Key("shares", "zset", "user of a request pool -> finish tag in virtual time"),
    Key("lives", "list", "the newest 400 sessions that ended, as when:how long (ms)"),
    Key(
        "forecast",
        "hash",
        "curves (of slots to come free), made_ms, slots, covers (theirs), learned (sums), served"
        " (counter)",
    ),
    Key("promises", "zset", "some who wait -> by when they were told to be served at most (ms)"),
)

USER_KEYS: tuple[Key, ...] = (
    Key(
        "threads",
        "hash",
        "conversation -> its facts as JSON; the key expires 24 h after its last use",
    ),
    Key(
        "messages:THREAD",
        "list",
        "one conversation's messages as JSON, oldest first; expires alike",
    ),
)
"""Keys of one user, named ``vestibule:{user:USER}:<name>``: users spread over a Redis Cluster. A
pool's name has no colon, so that no pool is ever mistaken for a user."""

USER_CHANNEL = "queue_status:"
"""Prefix of the channel that tells one user's news, as JSON (DESIGN section 6)."""


CHANGED_CHANNELS = "vestibule:{*}:changed"
"""Pattern of the channels that tell the processes serving a pool what changed, as JSON."""


def pool_key(pool: str, name: str) -> str:
    """The full name of one key of a pool."""
    return f"vestibule:{{{pool}}}:{name}"


def user_key(user: str, name: str) -> str:
    """The full name of one key of a user."""
    return f"vestibule:{{user:{user}}}:{name}"


def pool_keys(pool: str) -> list[str]:
    """All keys of a pool in the order in which every script declares them."""
    return [pool_key(pool, key.name) for key in POOL_KEYS]


def fleet_key(name: str) -> str:
    """The full name of one key of the fleet."""
    return f"vestibule:{{_global}}:fleet:{name}"


LAYOUT_KEY = "vestibule:{_global}:layout"  # string: LAYOUT of the newest service that wrote here
POOLS_KEY = "vestibule:{_global}:pools"  # set: the names of all pools

# Tables of who may call: hashes that every process copies (see key_store).
KEYS_KEY = "vestibule:{_global}:keys"  # hash: key's id -> facts as JSON, its text only as SHA-256
PROJECTS_KEY = "vestibule:{_global}:projects"  # hash: project -> its facts as JSON
PRIORITIES_KEY = "vestibule:{_global}:priorities"  # hash: user -> the user's priority class
LIMITS_KEY = "vestibule:{_global}:limits"  # hash: user, project or key (:which) -> limits as JSON
SIGNING_KEYS_KEY = "vestibule:{_global}:signing_keys"  # hash: number -> private key, from when
VERSIONS_KEY = "vestibule:{_global}:versions"  # hash: one of these tables -> new at each change
RATES_PREFIX = "vestibule:{_global}:rates"  # of lists: times (s) of the latest calls of someone

TRAFFIC_KEYS = (
    "vestibule:{_global}:outstanding",  # hash: worker -> requests all gateways have running there
    "vestibule:{_global}:outstanding_of",  # hash: a gateway's process -> its part, as JSON
    "vestibule:{_global}:outstanding_until",  # zset: that process -> until when it counts (ms)
)

TICKS_KEY = "vestibule:{_global}:ticks"  # hash: tick -> its lease and its last run, as JSON

FLEET_KEYS: tuple[Key, ...] = (
    Key("instances", "hash", "instance -> layout, version, state, and its facts as JSON"),
    Key("lines", "hash", "instance -> the newest lines of its history, each as JSON"),
    Key("history", "stream", "an event as JSON (e), its instance (n), the record after it (r)"),
    Key("drained", "hash", "entry (of the history, the last in SQL), lost (counter)"),
    Key("commands", "stream", "a command as JSON (c), until it is taken"),
    Key("asked", "zset", "command of the last 24 h -> when it was asked (ms)"),
    Key("words", "hash", "command of the last 24 h -> digest of what it says"),
    Key("memory", "hash", "what a tick of the scheduler remembers, by name"),
    Key("decided", "hash", "pool -> what the autoscaler decided last, as JSON"),
    Key("offers", "hash", "provider -> when it was asked (ms), and what it offered as JSON"),
)
"""Keys of the fleet, named ``vestibule:{_global}:fleet:<name>``."""

USAGE_KEY = "vestibule:{_global}:usage"  # stream: a request as MessagePack (r), until it is in SQL
SPENT_PREFIX = "vestibule:{_global}:spent:"  # of hashes by minute, day, month: r: or t: and whose
# limit -> requests or tokens so far; each expires some time after its window
SPENT_BY_PREFIX = "vestibule:{_global}:spent_by:"  # of strings: process -> number of its last word
