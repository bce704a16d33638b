"""Builds the service: routes, middlewares, and what lives as long as the process does."""

from collections import Counter
from collections.abc import AsyncIterator

from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web
from aiohttp.typedefs import Middleware

from admission import background, keys, middleware
from admission.api import chat, docs, events, health, pages, pools, threads, tickets, workers, ws
from admission.api import keys as api_keys
from admission.auth import Gatekeeper
from admission.directory import Directory
from admission.gateway import routes as gateway
from admission.news import Newsroom
from admission.rates import Rates
from admission.settings import Settings
from admission.store.redis_store import RedisStore
from admission.store.thread_store import ThreadStore

REST_BODY_BYTES_MAX = 65_536  # /v1 has its own limit, a setting
# Shorter than uvicorn, which serves vLLM, keeps idle connections (timeout_keep_alive, 5 s): a
# request is never sent into one that is just being closed.
UPSTREAM_IDLE_S = 4

ROUTES = (
    tickets.routes,
    events.routes,
    ws.routes,
    pools.routes,
    workers.routes,
    api_keys.routes,
    chat.routes,
    threads.routes,
    pages.routes,
    docs.routes,
    health.routes,
    gateway.routes,
)


async def create_app(
    settings: Settings, store: RedisStore, conversations: ThreadStore | None = None
) -> web.Application:
    """The admission service and gateway over a store, which stays the caller's to close.

    Args:
        conversations: where they are kept, when that is not in the same Redis.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    await store.load()
    gatekeeper = Gatekeeper(settings, store.keys)
    await gatekeeper.keyring.load()
    limits = Rates(settings, store.rates)
    app = web.Application(
        middlewares=_middlewares(limits),
        client_max_size=REST_BODY_BYTES_MAX,
    )
    app[keys.SETTINGS] = settings
    app[keys.STORE] = store
    app[keys.GATEKEEPER] = gatekeeper
    app[keys.RATES] = limits
    app[keys.THREADS] = store.threads if conversations is None else conversations
    app[keys.DIRECTORY] = Directory(store)
    app[keys.NEWSROOM] = Newsroom(store)
    app[keys.WAITERS], app[keys.TASKS] = Counter(), Counter()
    for routes in ROUTES:
        app.add_routes(routes)
    app.cleanup_ctx.append(_upstream_session)
    app.cleanup_ctx.append(_keyring)
    app.cleanup_ctx.append(_directory)
    app.cleanup_ctx.append(_newsroom)
    app.on_response_prepare.append(middleware.finish_headers)
    app.on_shutdown.append(_end_streams)
    return app


def _middlewares(limits: Rates) -> list[Middleware]:
    """From the outermost in; limits that nobody set cost nothing."""
    outer = [middleware.request_id, middleware.cross_origin, middleware.errors]
    return [*outer, middleware.newest_keys, *([middleware.rates] if limits.on else [])]


async def _upstream_session(app: web.Application) -> AsyncIterator[None]:
    # Answers pass undecoded; no cookie of one caller reaches another.
    async with ClientSession(
        connector=TCPConnector(limit=0, keepalive_timeout=UPSTREAM_IDLE_S),
        auto_decompress=False,
        cookie_jar=DummyCookieJar(),
    ) as session:
        app[keys.UPSTREAM] = session
        yield


async def _keyring(app: web.Application) -> AsyncIterator[None]:
    async with background.running("keyring", app[keys.GATEKEEPER].keyring.keep_fresh):
        yield


async def _directory(app: web.Application) -> AsyncIterator[None]:
    directory = app[keys.DIRECTORY]
    await directory.refresh()
    async with background.running("directory", directory.keep_fresh):
        yield


async def _newsroom(app: web.Application) -> AsyncIterator[None]:
    newsroom = app[keys.NEWSROOM]
    async with (
        background.running("news", newsroom.hear),
        background.running("places", newsroom.keep_places),
        background.running("presence", newsroom.keep_presence),
    ):
        yield


async def _end_streams(app: web.Application) -> None:
    app[keys.NEWSROOM].close()
