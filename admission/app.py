"""Builds the service: routes, middlewares, and what lives as long as the process does."""

import secrets
from collections.abc import AsyncIterator

from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

from admission import background, keys, middleware
from admission.api import events, health, pools, tickets, workers
from admission.auth import Gatekeeper
from admission.directory import Directory
from admission.gateway import routes as gateway
from admission.news import Newsroom
from admission.settings import Settings
from admission.store.redis_store import RedisStore

REST_BODY_BYTES_MAX = 65_536  # /v1 has its own limit, a setting
# Shorter than uvicorn, which serves vLLM, keeps idle connections (timeout_keep_alive, 5 s): a
# request is never sent into one that is just being closed.
UPSTREAM_IDLE_S = 4

ROUTES = (
    tickets.routes,
    events.routes,
    pools.routes,
    workers.routes,
    health.routes,
    gateway.routes,
)


async def create_app(settings: Settings, store: RedisStore) -> web.Application:
    """The admission service and gateway over a store, which stays the caller's to close.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    await store.load()
    signing_key = await store.signing_key(secrets.token_urlsafe(48))
    app = web.Application(
        middlewares=[middleware.request_id, middleware.cross_origin, middleware.errors],
        client_max_size=REST_BODY_BYTES_MAX,
    )
    app[keys.SETTINGS] = settings
    app[keys.STORE] = store
    app[keys.GATEKEEPER] = Gatekeeper(settings, signing_key)
    app[keys.DIRECTORY] = Directory(store)
    app[keys.NEWSROOM] = Newsroom()
    for routes in ROUTES:
        app.add_routes(routes)
    app.cleanup_ctx.append(_upstream_session)
    app.cleanup_ctx.append(_directory)
    app.cleanup_ctx.append(_newsroom)
    app.on_response_prepare.append(middleware.finish_headers)
    app.on_shutdown.append(_end_streams)
    return app


async def _upstream_session(app: web.Application) -> AsyncIterator[None]:
    # Answers pass undecoded; no cookie of one caller reaches another.
    async with ClientSession(
        connector=TCPConnector(limit=0, keepalive_timeout=UPSTREAM_IDLE_S),
        auto_decompress=False,
        cookie_jar=DummyCookieJar(),
    ) as session:
        app[keys.UPSTREAM] = session
        yield


async def _directory(app: web.Application) -> AsyncIterator[None]:
    directory = app[keys.DIRECTORY]
    await directory.refresh()
    async with background.running("directory", directory.keep_fresh):
        yield


async def _newsroom(app: web.Application) -> AsyncIterator[None]:
    async def follow() -> None:
        await app[keys.NEWSROOM].follow(app[keys.STORE].users_with_news())

    async with background.running("newsroom", follow):
        yield


async def _end_streams(app: web.Application) -> None:
    app[keys.NEWSROOM].close()
