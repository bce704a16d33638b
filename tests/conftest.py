"""What the fast tests share: one real Valkey, one clock that the test owns, the real service.

Hypothesis makes the same examples at each run, and fresh ones in ``make soak``.
"""

import asyncio
import gc
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from hypothesis import settings as examples
from pydantic import SecretStr
from redis import Redis as BlockingRedis
from redis import utils as redis_utils
from redis.asyncio import Redis
from redis.exceptions import RedisError

from admission import news
from admission.app import create_app
from admission.bad_http import Runner
from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, PoolPolicy
from admission.keys import STORE
from admission.settings import Settings
from admission.store.redis_store import RedisStore
from infra import embedded
from infra.state import StateFolder
from scheduler import ticks
from tests.event_loop import Loop
from tests.time_limit import pytest_timeout_set_timer  # noqa: F401 - a hook

DEADLINE_S = 10.0

# What fails, fails again, and for everybody. `--hypothesis-profile fresh` looks further, and prints
# the line that makes an example which failed again.
examples.register_profile("same", derandomize=True, database=None, deadline=None)
examples.register_profile("fresh", max_examples=1000, print_blob=True, deadline=None)
examples.load_profile("same")

# redis-py reads its own version from its package's metadata, a millisecond for each connection.
redis_utils.get_lib_version = cache(redis_utils.get_lib_version)


# Nothing that importing makes is garbage; to look through it all the while takes a tenth longer.
gc.disable()


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection need look at it again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged is sent to pytest's first process, which takes no half of a surrogate
    pair: the whole run would end with it."""
    report = yield
    report.sections = [(of, text.encode(errors="replace").decode()) for of, text in report.sections]
    return report


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop that the service runs on; its transports are none of asyncio's classes."""
    return {"uvloop": Loop}


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of a real Valkey of this test process.

    It waits for no disk: what must survive is tested with servers that end and come back.
    """
    folder = StateFolder(Path(tempfile.mkdtemp(prefix="vst-")))
    command = [*embedded.command(folder), "--appendfsync", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = embedded.url(folder)
    client = BlockingRedis.from_url(url)
    for _ in range(500):
        try:
            client.ping()
            break
        except RedisError:
            assert process.poll() is None, "the Valkey for the tests did not start"
            subprocess.run(["sleep", "0.01"], check=True)
    client.close()
    yield url
    process.terminate()
    process.wait(DEADLINE_S)
    shutil.rmtree(folder.path)


@pytest.fixture
async def redis(valkey: str) -> AsyncIterator[Redis]:
    """A client of the empty test server."""
    client = Redis.from_url(valkey)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(redis: Redis, clock: ManualClock) -> RedisStore:
    """A store with 2 slots, sessions of 1200 s and drafts of 300 s, that needs no worker."""
    return RedisStore(redis, clock, PoolPolicy(capacity=2))


@dataclass
class Service:
    """The real service on a loopback port, over the real Valkey, with a clock of the test."""

    url: str
    settings: Settings
    store: RedisStore
    clock: ManualClock
    http: ClientSession

    @property
    def service_key(self) -> str:
        return _revealed(self.settings.service_key)

    @property
    def admin_key(self) -> str:
        return _revealed(self.settings.admin_key)

    @property
    def worker_token(self) -> str:
        return _revealed(self.settings.worker_token)

    async def tick(self) -> None:
        """One run of the scheduler's expire and announce ticks."""
        await ticks.expire_tick(self.store)
        await ticks.announce_tick(self.store)

    async def capacity(self, slots: int) -> None:
        """Change the default pool's capacity, as an admin would."""
        await self.store.configure(DEFAULT_POOL, {"capacity": slots})


def _revealed(secret: SecretStr | None) -> str:
    assert secret is not None
    return secret.get_secret_value()


def service_settings(**changes: str) -> Settings:
    """Settings of a test service: capacity 1, known keys."""
    return Settings.model_validate(
        {
            "MAX_ACTIVE_USERS": "1",
            "VESTIBULE_SERVICE_KEY": "service-key",
            "VESTIBULE_ADMIN_KEY": "admin-key",
            "VESTIBULE_WORKER_TOKEN": "worker-token",
            **changes,
        }
    )


@pytest.fixture
def places_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """New places are told ten times a second at most, not once."""
    monkeypatch.setattr(news, "PLACES_S", 0.1)


@pytest.fixture
def pings_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is attached is renewed and pinged 20 times a second; to be asked for by `usefixtures`,
    so that the service starts with it."""
    monkeypatch.setattr(news, "PING_S", 0.05)


@pytest.fixture
async def service(
    redis: Redis, clock: ManualClock, tmp_path: Path, places_told_soon: None
) -> AsyncIterator[Service]:
    """The service with capacity 1; it grants without a worker."""
    settings = service_settings(VESTIBULE_STATE_DIR=str(tmp_path))
    policy = settings.pool_policy(needs_worker=False)
    app = await create_app(settings, RedisStore(redis, clock, policy))
    runner = Runner(app, handler_cancellation=True, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    url = f"http://127.0.0.1:{port}"
    async with ClientSession(url) as http:
        yield Service(url, settings, app[STORE], clock, http)
    await runner.cleanup()
    await app[STORE].drained()
