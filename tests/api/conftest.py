"""What the tests of the REST side share: callers, agents and services of another making."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from aiohttp import ClientSession, web
from aiohttp.typedefs import Handler

from admission.app import create_app
from admission.bad_http import Runner
from admission.clock import ManualClock
from admission.store.connection import open_redis
from admission.store.redis_store import RedisStore
from tests.api.calls import AGENT_INFO, Caller, caller_of
from tests.conftest import Service, service_settings

Served = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
def call(service: Service) -> Caller:
    """Calls with the service key."""
    return caller_of(service)


@pytest.fixture
def admin(service: Service) -> Caller:
    """Calls with the admin key."""
    return caller_of(service, service.admin_key)


@asynccontextmanager
async def served_at(
    url: str, clock: ManualClock, limits: Mapping[str, float] | None = None, /, **changes: str
) -> AsyncIterator[Service]:
    """The service as ``vestibule up`` runs it, but for its clock and the changed settings.

    Args:
        limits: seconds by the setting's name, also fractions, which no administrator may choose.
    """
    settings = service_settings(**changes).model_copy(update=dict(limits or {}))
    redis = open_redis(url)
    store = RedisStore(redis, clock, settings.pool_policy(needs_worker=False))
    runner = Runner(
        await create_app(settings, store),
        handler_cancellation=True,
        shutdown_timeout=1.0,
        access_log=None,
    )
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession(address) as http:
            yield Service(address, settings, store, clock, http)
    finally:
        await runner.cleanup()
        await store.drained()
        await redis.aclose()


@pytest.fixture
def served(valkey: str, redis: object, clock: ManualClock, places_told_soon: None) -> Served:
    """Starts a service with changed settings, over the empty test server."""
    return lambda **changes: served_at(valkey, clock, **changes)


@asynccontextmanager
async def listening(info: Handler) -> AsyncIterator[str]:
    """The URL of something whose ``/info`` answers so."""
    app = web.Application()
    app.router.add_get("/info", info)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def agent() -> AsyncIterator[str]:
    """The URL of something that answers ``/info`` as a worker's agent does."""

    async def info(_: web.Request) -> web.Response:
        return web.json_response({"agent_checksum": AGENT_INFO["checksum"]})

    async with listening(info) as url:
        yield url
