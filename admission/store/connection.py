"""Opens Redis, one server, Sentinel or Cluster, and checks it before anything relies on it.

One client a process. A call whose connection was lost, or that met a server in the middle of a
failover, is repeated for at most PATIENCE_S: every script gives the same result when it is called
again with the same arguments (``redis_store``), so that a lost reply does no harm. A server that
hangs is not asked twice.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    SlotNotCoveredError,
    TryAgainError,
)

from admission import logs
from admission.errors import StoreUnavailable
from admission.store import names

Mode = Literal["single", "sentinel", "cluster"]

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0  # scripts take microseconds; this long means that nobody is there
# A burst waits for a connection. redis-py's own default (8.1: 100, then an error) would turn the
# 101st caller away; and Redis, being one thread, answers no faster over more.
CONNECTIONS_MAX = 64
LISTENERS_MAX = 8  # beside them; each holds one connection as long as it listens
PATIENCE_S = 2.0  # a failover takes longer than a request may wait: then it is 503, Retry-After
OLDEST_SERVER = (6, 2)
PORTS = {"single": 6379, "sentinel": 26379, "cluster": 6379}

# Of these none but a lost connection may have done anything.
_PASSING = (ConnectionError, ReadOnlyError, ClusterDownError, TryAgainError)
_ONCE_MORE = Retry(NoBackoff(), 1, _PASSING)
_FAILOVER = Retry(ExponentialBackoff(cap=0.5, base=0.05), 4, _PASSING)  # 0.1, 0.2, 0.4, 0.5 s
_NOT_AGAIN = Retry(NoBackoff(), 0)

# One step, so that of an older and a newer service that start at once the newer stays written.
_CLAIM_LAYOUT = """
local found = redis.call("GET", KEYS[1])
if not found or (tonumber(found) or math.huge) < tonumber(ARGV[1]) then
  redis.call("SET", KEYS[1], ARGV[1])
end
return found
"""

log = logging.getLogger(__name__)


class UnfitServer(Exception):
    """The Redis at hand must not be used; the text says why and what to do."""


def open_redis(
    url: str,
    *,
    mode: Mode = "single",
    sentinel_master: str | None = None,
    connections: int = CONNECTIONS_MAX,
) -> Redis:
    """A client for ``redis://``, ``rediss://`` or ``unix://``; connects on first use.

    Args:
        url: user and password, and the options redis-py takes in a URL, are those of the data
            servers. With ``sentinel`` or ``cluster`` several hosts may stand in it, with a comma
            between them: the sentinels (whose own user and password are the options
            ``sentinel_username`` and ``sentinel_password``), or some of the cluster's servers.
        sentinel_master: the name under which the sentinels know the master.
        connections: how many there are at most, in a cluster to each server; callers wait for one.

    Raises:
        ValueError: not a Redis URL, or none for this mode.
    """
    hosts, options = _read_url(url, mode)
    options |= {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": ANSWER_TIMEOUT_S,
    }
    if mode == "cluster":
        # It shares the commands we use with Redis, though not its class.
        return cast(Redis, _Cluster(hosts, options, connections))
    options |= {"max_connections": connections, "timeout": ANSWER_TIMEOUT_S}
    if mode == "sentinel":
        return _sentinel_client(hosts, sentinel_master or "", options)
    pool = BlockingConnectionPool(retry=_NOT_AGAIN, **options)
    return _Single.from_pool(pool)


async def check_server(redis: Redis) -> None:
    """Refuse a server that could lose or misread the queue; claim the layout.

    Raises:
        StoreUnavailable: no answer.
        UnfitServer: too old, evicts keys, needs another mode, or written by a newer layout.
    """
    with answering():
        masters = await _about_masters(redis)
        for about in masters:
            _check_master(about, clustered=isinstance(redis, RedisCluster))
        # Only once the server was found fit: a refusal leaves nothing behind.
        _check_layout(await redis.eval(_CLAIM_LAYOUT, 1, names.LAYOUT_KEY, str(names.LAYOUT)))
    if not all(about["aof_enabled"] for about in masters):
        logs.event(log, "redis_without_append_only_file", logging.WARNING)


async def disconnect(redis: Redis) -> None:
    """Close every connection, in use or not; the next call opens another."""
    if isinstance(redis, _Cluster):
        await redis.aclose()
        return
    await redis.connection_pool.disconnect()
    if isinstance(redis, _Sentinel):
        await redis.sentinels.aclose()


@contextmanager
def answering() -> Iterator[None]:
    """Raises StoreUnavailable where Redis, asked inside, does not answer or answers an error."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable from error


@asynccontextmanager
async def listener(redis: Redis) -> AsyncIterator[PubSub]:
    """A connection to subscribe on. In a cluster every server hears what is published on any, so
    one of them is taken by chance; a caller whose connection is lost opens another."""
    if isinstance(redis, _Cluster):
        await redis.reach()
        pubsub: PubSub = redis.pubsub(node=redis.get_random_node())
    else:
        pubsub = redis.pubsub()
    async with pubsub:
        yield pubsub


class _Single(Redis):
    """One server. Repeats once: a connection may have died while it lay idle."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        call = super().execute_command
        return await _patiently(_ONCE_MORE, lambda: call(*args, **options), self._leave)  # type: ignore[no-untyped-call]

    async def _leave(self, error: Exception) -> None:
        if isinstance(error, ReadOnlyError):  # the name leads to another server by now
            await self.connection_pool.disconnect(inuse_connections=False)


class _Sentinel(_Single):
    """The master the sentinels name, asked for at each new connection."""

    sentinels: Sentinel

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        call = super().execute_command
        return await _patiently(_FAILOVER, lambda: call(*args, **options), self._leave)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        await self.sentinels.aclose()


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """A burst waits for a connection here too."""


class _Cluster(RedisCluster):
    """The servers of a cluster. redis-py (8.1) has no waiting for a connection there, and raises
    what is not a RedisError; both are made as they are for one server."""

    # No TimeoutError: who hangs is not asked twice.
    ERRORS_ALLOW_RETRY = (ConnectionError, ClusterDownError, SlotNotCoveredError)  # type: ignore[assignment]

    def __init__(
        self, hosts: list[tuple[str, int]], options: dict[str, Any], connections: int
    ) -> None:
        super().__init__(
            startup_nodes=[ClusterNode(host, port) for host, port in hosts],
            max_connections=connections + LISTENERS_MAX,
            retry=Retry(NoBackoff(), 1),
            reinitialize_steps=0,  # else each fifth MOVED closes every connection, in use or not
            **options,
        )
        self._room = asyncio.Semaphore(connections)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._room.acquire()
        except TimeoutError:
            raise ConnectionError("No connection available.") from None
        try:
            return await _patiently(_FAILOVER, lambda: self._once(*args, **options), _pass)
        finally:
            self._room.release()

    async def _once(self, name: str | bytes, *args: Any, **options: Any) -> Any:
        if isinstance(name, bytes):  # which Redis takes as well
            name = name.decode()
        await self.reach()  # before, a call would go to any server, to be sent on
        try:
            return await super().execute_command(name, *args, **options)
        except (RedisClusterException, AttributeError) as error:
            # The second is of a connection that redis-py closed while this call opened it: it
            # closes all of them when it hears CLUSTERDOWN.
            raise ConnectionError(str(error)) from error

    async def reach(self) -> None:
        """Learn which servers there are."""
        try:
            await self.initialize()
        except RedisClusterException as error:
            raise ConnectionError(str(error)) from error


async def _patiently(
    again: Retry, call: Callable[[], Awaitable[Any]], fail: Callable[[Exception], Awaitable[None]]
) -> Any:
    ends = asyncio.get_running_loop().time() + PATIENCE_S
    return await again.call_with_retry(
        call, fail, is_retryable=lambda _: asyncio.get_running_loop().time() < ends
    )


async def _pass(_: Exception) -> None:
    pass


def _sentinel_client(hosts: list[tuple[str, int]], master: str, options: dict[str, Any]) -> Redis:
    own = {
        name.removeprefix("sentinel_"): options.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in options
    }
    shared = {name: value for name, value in options.items() if name.startswith(("ssl", "socket_"))}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        hosts, sentinel_kwargs={**shared, **own, "retry": _NOT_AGAIN}
    )
    client = sentinels.master_for(
        master,
        redis_class=_Sentinel,
        connection_pool_class=_SentinelPool,
        retry=_NOT_AGAIN,
        **options,
    )
    client.sentinels = sentinels
    return cast(Redis, client)


def _read_url(url: str, mode: Mode) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """The hosts of a URL, and the options redis-py reads in it (for one server: the host too)."""
    if mode == "single":
        options = dict(parse_url(url))
        return [], options
    parts = urlsplit(url)
    user, at, listed = parts.netloc.rpartition("@")
    each: list[dict[str, Any]] = [
        dict(parse_url(parts._replace(netloc=f"{user}{at}{host}").geturl()))
        for host in listed.split(",")
    ]
    options = each[0]
    if "path" in options or any("host" not in one for one in each):
        raise ValueError(f"a Redis URL for {mode} is redis:// or rediss:// with at least one host")
    hosts = [(str(one["host"]), int(one.get("port", PORTS[mode]))) for one in each]
    for name in ("host", "port"):
        options.pop(name, None)
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    return hosts, options


async def _about_masters(redis: Redis) -> list[dict[str, Any]]:
    """What each master says of itself."""
    if not isinstance(redis, _Cluster):
        return [await redis.info()]
    await redis.reach()
    return [await redis.info(target_nodes=node) for node in redis.get_primaries()]


def _check_master(about: dict[str, Any], *, clustered: bool) -> None:
    version = tuple(int(part) for part in str(about["redis_version"]).split(".")[:2])
    if version < OLDEST_SERVER:
        raise UnfitServer(f"Redis {about['redis_version']} is too old: 6.2 or newer is needed")
    kind = about.get("redis_mode", about.get("server_mode"))
    if kind == "sentinel" or (kind == "cluster" and not clustered):
        raise UnfitServer(
            f"this Redis is a {kind}'s: set VESTIBULE_REDIS_MODE={kind}"
            + (" and VESTIBULE_REDIS_SENTINEL_MASTER" if kind == "sentinel" else "")
        )
    if about["role"] != "master":
        raise UnfitServer("this Redis is a replica, which takes no writes: name its master")
    if about["maxmemory_policy"] != "noeviction":
        raise UnfitServer(
            f"Redis may evict keys (maxmemory-policy {about['maxmemory_policy']}), which would"
            " lose people's places: set it to noeviction"
        )


def _check_layout(found: bytes | None) -> None:
    if found is None:
        return
    layout = found.decode(errors="replace")
    if not layout.isdecimal():
        raise UnfitServer(f"{names.LAYOUT_KEY} holds {layout!r}, which is no layout version")
    if int(layout) > names.LAYOUT:
        raise UnfitServer(
            f"Redis holds layout {layout}, this Vestibule knows {names.LAYOUT}: upgrade Vestibule"
        )
