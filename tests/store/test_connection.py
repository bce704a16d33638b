"""Only a server that keeps the queue safe is used."""

import logging
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from admission.clock import RedisClock
from admission.domain import DEFAULT_POOL, PoolPolicy
from admission.errors import StoreUnavailable
from admission.store import connection, names
from admission.store.connection import UnfitServer, check_server, open_redis
from admission.store.redis_store import RedisStore
from infra import embedded
from infra.state import StateFolder
from tests.store.room import join

DEADLINE_S = 10.0


class Server:
    """A Valkey of one test's own, on a folder that outlives it."""

    def __init__(self, folder: StateFolder, *options: str) -> None:
        self.client = open_redis(embedded.url(folder))
        self._command = [*embedded.command(folder), *options]
        self.start()

    def start(self) -> None:
        """Returns when it accepts connections."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        assert any("eady to accept connections" in line for line in self.process.stdout)

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.communicate(timeout=DEADLINE_S)


@pytest.fixture
async def server_with() -> AsyncIterator[Callable[..., Server]]:
    """Starts a Valkey with options that win over ours."""
    async with AsyncExitStack() as stack:

        def started(*options: str) -> Server:
            folder = StateFolder(Path(tempfile.mkdtemp(prefix="vst-")))
            stack.callback(shutil.rmtree, folder.path)
            server = Server(folder, *options)
            stack.callback(server.kill)
            stack.push_async_callback(server.client.aclose)
            return server

        yield started


async def test_our_own_server_is_fit_and_the_layout_claimed(redis: Redis) -> None:
    await check_server(redis)
    assert await redis.get(names.LAYOUT_KEY) == str(names.LAYOUT).encode()
    await check_server(redis)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_may_evict_is_refused_and_left_as_it_was(
    server_with: Callable[..., Server], policy: str
) -> None:
    redis = server_with("--maxmemory-policy", policy).client
    with pytest.raises(UnfitServer, match=f"{policy}.*set it to noeviction"):
        await check_server(redis)
    assert await redis.keys("*") == []


async def test_a_newer_layout_is_refused_and_kept(redis: Redis) -> None:
    newer = str(names.LAYOUT + 1)
    await redis.set(names.LAYOUT_KEY, newer)
    with pytest.raises(UnfitServer, match=f"layout {newer}.*upgrade Vestibule"):
        await check_server(redis)
    assert await redis.get(names.LAYOUT_KEY) == newer.encode()


async def test_an_older_layout_is_taken_over(redis: Redis) -> None:
    await redis.set(names.LAYOUT_KEY, names.LAYOUT - 1)
    await check_server(redis)
    assert await redis.get(names.LAYOUT_KEY) == str(names.LAYOUT).encode()


async def test_of_two_that_start_at_once_the_newer_layout_stays(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer one writes between the older one's look at the server and its claim."""

    async def newer_wrote(*_: object) -> list[dict[str, object]]:
        await redis.set(names.LAYOUT_KEY, names.LAYOUT + 1)
        return []

    monkeypatch.setattr(connection, "_about_masters", newer_wrote)
    with pytest.raises(UnfitServer, match="upgrade Vestibule"):
        await check_server(redis)
    assert await redis.get(names.LAYOUT_KEY) == str(names.LAYOUT + 1).encode()


async def test_a_layout_that_is_no_number_is_refused_and_kept(redis: Redis) -> None:
    await redis.set(names.LAYOUT_KEY, "mine")
    with pytest.raises(UnfitServer, match="'mine'.*no layout"):
        await check_server(redis)
    assert await redis.get(names.LAYOUT_KEY) == b"mine"


async def test_a_replica_is_refused(server_with: Callable[..., Server]) -> None:
    redis = server_with("--replicaof", "127.0.0.1 1").client
    with pytest.raises(UnfitServer, match="name its master"):
        await check_server(redis)


async def test_missing_persistence_is_a_warning(
    server_with: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    redis = server_with("--appendonly", "no").client
    with caplog.at_level(logging.WARNING):
        await check_server(redis)
    assert "redis_without_append_only_file" in caplog.text


async def test_a_server_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    nobody = open_redis(f"unix://{tmp_path}/nobody.sock")
    store = RedisStore(nobody, RedisClock(), PoolPolicy())
    calls: list[Awaitable[object]] = [
        check_server(nobody),
        store.load(),
        store.ping(),
        store.pools(),
        store.join(DEFAULT_POOL, "a", ticket="t"),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable):
            await call
    await nobody.aclose()


async def test_what_was_acknowledged_survives_a_killed_server(
    server_with: Callable[..., Server],
) -> None:
    server = server_with()
    store = RedisStore(server.client, RedisClock(), PoolPolicy(capacity=1))
    session = await join(store, "a", auto_confirm=True)
    waiting = await join(store, "b", will_return=True)
    server.kill()
    with pytest.raises(StoreUnavailable):
        await store.leave(DEFAULT_POOL, "a")
    server.start()
    for before in (session, waiting):
        after = await join(store, before.user_id, will_return=True)
        assert (after.ticket_id, after.status) == (before.ticket_id, before.status)


async def test_scripts_survive_a_server_that_forgot_them(redis: Redis) -> None:
    store = RedisStore(redis, RedisClock(), PoolPolicy())
    await store.load()
    await redis.script_flush()
    await join(store, "a")


@pytest.mark.parametrize("url", ["http://127.0.0.1", "127.0.0.1:6379", ""])
def test_what_is_no_redis_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        open_redis(url)


@pytest.mark.parametrize("mode", ["sentinel", "cluster"])
@pytest.mark.parametrize("url", ["http://127.0.0.1", "unix:///run/redis.sock", "redis://a,,b", ""])
def test_several_hosts_of_no_redis_url_are_refused(url: str, mode: connection.Mode) -> None:
    with pytest.raises(ValueError, match="URL"):
        open_redis(url, mode=mode, sentinel_master="m")
