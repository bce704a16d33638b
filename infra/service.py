"""Opens the store, and runs the admission service over it.

Knows Redis' address and aiohttp's runner; the commands compose them with the rest.
"""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from aiohttp import web

from admission import logs
from admission.accounting.ledger import Ledger, LedgerUnavailable, UnfitLedger
from admission.app import ROUTES, create_app
from admission.bad_http import Runner
from admission.clock import RedisClock
from admission.domain import PoolPolicy
from admission.errors import StoreUnavailable
from admission.settings import Settings
from admission.store.connection import UnfitServer, check_server, open_redis
from admission.store.redis_store import RedisStore
from admission.store.usage_store import UsageStore
from infra.errors import CommandError
from scheduler.books import Books

# New objects until the collector looks at them. Python's own 700 is for programs that make few; a
# request makes hundreds, nearly all of them free again without it (3 % of a request's time).
GARBAGE_AT = 50_000
DRAIN_S = 5.0  # how long running answers may take after a stop was asked for

log = logging.getLogger(__name__)


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
        async with _usage(store, settings):
            yield store
        await store.drained()
    finally:
        await redis.aclose()


@asynccontextmanager
async def _usage(store: RedisStore, settings: Settings) -> AsyncIterator[None]:
    """The accounting in a Redis of its own, when the settings name one: should that be away, only
    its records wait or are lost."""
    if settings.accounting_redis_url is None:
        store.usage.records_max = settings.accounting_limit
        yield
        return
    redis = open_redis(settings.accounting_redis_url)
    try:
        try:
            await check_server(redis)
        except StoreUnavailable:
            logs.event(log, "accounting_redis_away", logging.WARNING)
        except UnfitServer as error:
            raise CommandError(f"VESTIBULE_ACCOUNTING_REDIS_URL: {error}") from error
        store.usage = UsageStore(redis, RedisClock(), settings.accounting_limit)
        yield
    finally:
        await redis.aclose()


@asynccontextmanager
async def books_of(store: RedisStore, settings: Settings) -> AsyncIterator[Books]:
    """What is brought from Redis into SQL, for the ticks.

    Raises:
        CommandError: the database must not be used. One that does not answer is waited for.
    """
    try:
        ledger = Ledger(settings.ledger_url())
        await asyncio.to_thread(ledger.open)
    except UnfitLedger as error:
        raise CommandError(str(error)) from error
    except LedgerUnavailable as error:
        logs.event(log, "ledger_away", logging.WARNING, why=error)
    try:
        yield Books.of(store, store.usage, ledger, settings)
    finally:
        ledger.close()


@asynccontextmanager
async def serving(
    store: RedisStore,
    settings: Settings,
    routes: Sequence[web.RouteTableDef] = ROUTES,
    *,
    share_port: bool = False,
) -> AsyncIterator[web.Application]:
    """The service listens on its host and port while this is open.

    Args:
        share_port: other processes that say so too may listen there as well.

    Raises:
        CommandError: the port cannot be had.
    """
    # A caller who goes away cancels the handler, and with it the worker's answer.
    runner = Runner(
        await create_app(settings, store, served=routes),
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
        gc.collect()
        gc.set_threshold(GARBAGE_AT)
        gc.freeze()  # what is there now stays: no collection needs to look at it again
        yield runner.app
    finally:
        await runner.cleanup()


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
