"""Opens Redis: one connection pool a process, checked before anything relies on it."""

import logging

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from admission import logs
from admission.errors import StoreUnavailable
from admission.store import names

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0  # scripts take microseconds; this long means that nobody is there
# A burst waits for a connection. redis-py's own default (8.1: 100, then an error) would turn the
# 101st caller away; and Redis, being one thread, answers no faster over more.
CONNECTIONS_MAX = 64
OLDEST_SERVER = (6, 2)

log = logging.getLogger(__name__)


class UnfitServer(Exception):
    """The Redis at hand must not be used; the text says why and what to do."""


def open_redis(url: str) -> Redis:
    """A client for ``redis://``, ``rediss://`` or ``unix://``; connects on first use.

    Raises:
        ValueError: not a Redis URL.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS_MAX,
        timeout=ANSWER_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
    )
    return Redis.from_pool(pool)


async def check_server(redis: Redis) -> None:
    """Refuse a server that could lose or misread the queue; claim the layout.

    Raises:
        StoreUnavailable: no answer.
        UnfitServer: too old, evicts keys, or written by a newer layout.
    """
    try:
        server = await redis.info("server")
        memory = await redis.info("memory")
        persistence = await redis.info("persistence")
        layout = int(await redis.get(names.LAYOUT_KEY) or names.LAYOUT)
    except (RedisError, OSError) as error:
        raise StoreUnavailable from error
    if layout > names.LAYOUT:
        raise UnfitServer(
            f"Redis holds layout {layout}, this Vestibule knows {names.LAYOUT}: upgrade Vestibule"
        )
    version = tuple(int(part) for part in str(server["redis_version"]).split(".")[:2])
    if version < OLDEST_SERVER:
        raise UnfitServer(f"Redis {server['redis_version']} is too old: 6.2 or newer is needed")
    if memory["maxmemory_policy"] != "noeviction":
        raise UnfitServer(
            f"Redis may evict keys (maxmemory-policy {memory['maxmemory_policy']}), which would"
            " lose people's places: set it to noeviction"
        )
    if not persistence["aof_enabled"]:
        logs.event(log, "redis_without_append_only_file", logging.WARNING)
    await _claim_layout(redis)


async def _claim_layout(redis: Redis) -> None:
    """Only once the server was found fit: a refusal leaves nothing behind."""
    try:
        await redis.set(names.LAYOUT_KEY, names.LAYOUT)
    except (RedisError, OSError) as error:
        raise StoreUnavailable from error
