"""Runs the admission service over an open Redis: listens, and closes in good order.

Knows aiohttp's runner; ``up`` composes it with the rest.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from admission.app import create_app
from admission.clock import RedisClock
from admission.protocol import Runner
from admission.settings import Settings
from admission.store.connection import check_server, open_redis
from admission.store.redis_store import RedisStore

DRAIN_S = 5.0  # how long running answers may take after a stop was asked for


@asynccontextmanager
async def store_at(url: str, settings: Settings) -> AsyncIterator[RedisStore]:
    """A store of its own connection, for a process without the service (the clockwork)."""
    redis = open_redis(url)
    try:
        await check_server(redis)
        policy = settings.pool_policy(needs_worker=True)
        store = RedisStore(redis, RedisClock(), policy)
        await store.load()
        yield store
    finally:
        await redis.aclose()


@asynccontextmanager
async def serving(
    url: str, settings: Settings, *, needs_worker: bool
) -> AsyncIterator[web.Application]:
    """The service listens on its host and port while this is open.

    Raises:
        StoreUnavailable, UnfitServer: Redis does not answer, or must not be used.
        OSError: the port cannot be had.
    """
    redis = open_redis(url)
    try:
        await check_server(redis)
        policy = settings.pool_policy(needs_worker=needs_worker)
        app = await create_app(settings, RedisStore(redis, RedisClock(), policy))
        # A caller who goes away cancels the handler, and with it the worker's answer.
        runner = Runner(app, handler_cancellation=True, shutdown_timeout=DRAIN_S, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, settings.host, settings.port)
            await site.start()
            yield app
        finally:
            await runner.cleanup()
    finally:
        await redis.aclose()
