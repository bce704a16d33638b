"""Opens the store, and runs the admission service over it.

Knows Redis' address and aiohttp's runner; the commands compose them with the rest.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from aiohttp import web

from admission.app import create_app
from admission.bad_http import Runner
from admission.clock import RedisClock
from admission.domain import PoolPolicy
from admission.errors import StoreUnavailable
from admission.settings import Settings
from admission.store.connection import UnfitServer, check_server, open_redis
from admission.store.redis_store import RedisStore
from infra.errors import CommandError

DRAIN_S = 5.0  # how long running answers may take after a stop was asked for


@asynccontextmanager
async def store_at(
    url: str, policy: PoolPolicy | None, settings: Settings
) -> AsyncIterator[RedisStore]:
    """A store over the Redis at ``url``, in the mode of the settings; without a policy, for ticks
    only.

    Raises:
        CommandError: Redis does not answer, or must not be used.
    """
    redis = open_redis(
        url, mode=settings.redis_mode, sentinel_master=settings.redis_sentinel_master
    )
    try:
        store = RedisStore(redis, RedisClock(), policy)
        try:
            await check_server(redis)
            await store.load()
        except StoreUnavailable as error:
            where = _without_secrets(url)
            raise CommandError(f"no Redis answers at {where} ({error.__cause__})") from error
        except UnfitServer as error:
            raise CommandError(str(error)) from error
        yield store
        await store.drained()
    finally:
        await redis.aclose()


@asynccontextmanager
async def serving(
    store: RedisStore, settings: Settings, *, share_port: bool = False
) -> AsyncIterator[web.Application]:
    """The service listens on its host and port while this is open.

    Args:
        share_port: other processes that say so too may listen there as well.

    Raises:
        CommandError: the port cannot be had.
    """
    # A caller who goes away cancels the handler, and with it the worker's answer.
    runner = Runner(
        await create_app(settings, store),
        handler_cancellation=True,
        shutdown_timeout=DRAIN_S,
        access_log=None,
    )
    await runner.setup()
    try:
        try:
            site = web.TCPSite(runner, settings.host, settings.port, reuse_port=share_port or None)
            await site.start()
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise CommandError(f"cannot listen on {where}: {error.strerror}") from error
        yield runner.app
    finally:
        await runner.cleanup()


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
