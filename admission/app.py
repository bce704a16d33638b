"""Builds the service: routes, middlewares, and what lives as long as the process does."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence

from aiohttp import web
from aiohttp.typedefs import Middleware

from admission import background, keys, middleware, wire
from admission.accounting.allowances import Allowances
from admission.accounting.journal import Journal
from admission.accounting.ledger import Ledger
from admission.api import (
    auth,
    chat,
    costs,
    docs,
    events,
    fleet,
    fleet_events,
    health,
    history,
    instances,
    pages,
    pools,
    projects,
    threads,
    tickets,
    ticks,
    usage,
    workers,
    ws,
)
from admission.api import keys as api_keys
from admission.auth import Gatekeeper
from admission.bulletin import Bulletin
from admission.directory import Directory
from admission.gateway import ollama, stored
from admission.gateway import routes as gateway
from admission.gateway.away import Away
from admission.gateway.connection import Connections
from admission.gateway.turn import Turns
from admission.gateway.upstream import limits as limits_of
from admission.news import Newsroom
from admission.rates import Rates
from admission.settings import Settings
from admission.store.redis_store import RedisStore
from admission.store.thread_store import ThreadStore

ROUTES = (
    tickets.routes,
    events.routes,
    ws.routes,
    pools.routes,
    workers.routes,
    api_keys.routes,
    projects.routes,
    usage.routes,
    costs.routes,
    history.routes,
    ticks.routes,
    instances.routes,
    instances.shown,
    fleet.routes,
    fleet_events.routes,
    chat.routes,
    threads.routes,
    pages.routes,
    docs.routes,
    health.routes,
    stored.routes,
    gateway.routes,
    ollama.routes,
    auth.routes,
)
GATEWAY_ROUTES = (health.routes, stored.routes, gateway.routes, ollama.routes, auth.routes)


async def create_app(
    settings: Settings,
    store: RedisStore,
    conversations: ThreadStore | None = None,
    served: Sequence[web.RouteTableDef] = ROUTES,
) -> web.Application:
    """The admission service and gateway over a store, which stays the caller's to close.

    Args:
        conversations: where they are kept, when that is not in the same Redis.
        served: all of it, or ``GATEWAY_ROUTES``.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    await store.load()
    gatekeeper = Gatekeeper(settings, store.keys)
    await gatekeeper.keyring.load()
    limits = Rates(settings, store.rates)
    app = web.Application(
        middlewares=_middlewares(limits),
        client_max_size=wire.BODY_BYTES_MAX,
    )
    app[keys.SETTINGS] = settings
    app[keys.STORE] = store
    app[keys.GATEKEEPER] = gatekeeper
    app[keys.RATES] = limits
    app[keys.THREADS] = store.threads if conversations is None else conversations
    app[keys.DIRECTORY] = app[keys.ROSTER] = Directory(store)
    app[keys.TURNS] = Turns(store, app[keys.DIRECTORY], settings.session_concurrency)
    app[keys.AWAY] = Away(store, settings)
    app[keys.NEWSROOM] = Newsroom(store, app[keys.TURNS].hear)
    app[keys.BULLETIN] = Bulletin(store.fleet)
    app[keys.LEDGER] = Ledger(settings.ledger_url(), writes=False)
    app[keys.JOURNAL] = Journal(store.usage)
    app[keys.ALLOWANCES] = Allowances(store.usage, lambda: gatekeeper.keyring.limits)
    app[keys.WAITERS], app[keys.TASKS] = Counter(), Counter()
    for routes in served:
        app.add_routes(routes)
    app.cleanup_ctx.append(_upstream)
    app.cleanup_ctx.append(_keyring)
    app.cleanup_ctx.append(_directory)
    app.cleanup_ctx.append(_turns)
    app.cleanup_ctx.append(_newsroom)
    app.cleanup_ctx.append(_bulletin)
    app.cleanup_ctx.append(_accounting)
    app.on_response_prepare.append(middleware.finish_headers)
    app.on_shutdown.append(_end_streams)
    return app


def _middlewares(limits: Rates) -> list[Middleware]:
    """From the outermost in; limits that nobody set cost nothing."""
    outer = [middleware.request_id, middleware.cross_origin, middleware.errors]
    return [*outer, middleware.newest_keys, *([middleware.rates] if limits.on else [])]


async def _upstream(app: web.Application) -> AsyncIterator[None]:
    connections = app[keys.CONNECTIONS] = Connections(limits_of(app[keys.SETTINGS]))
    yield
    await connections.close()


async def _keyring(app: web.Application) -> AsyncIterator[None]:
    async with background.running("keyring", app[keys.GATEKEEPER].keyring.keep_fresh):
        yield


async def _directory(app: web.Application) -> AsyncIterator[None]:
    directory = app[keys.DIRECTORY]
    await directory.refresh()
    async with background.running("directory", directory.keep_fresh):
        yield


async def _turns(app: web.Application) -> AsyncIterator[None]:
    turns = app[keys.TURNS]
    async with background.running("turns", turns.keep):
        yield
    await turns.settled()


async def _newsroom(app: web.Application) -> AsyncIterator[None]:
    newsroom = app[keys.NEWSROOM]
    async with (
        background.running("news", newsroom.hear),
        background.running("places", newsroom.keep_places),
        background.running("presence", newsroom.keep_presence),
    ):
        yield


async def _bulletin(app: web.Application) -> AsyncIterator[None]:
    async with background.running("bulletin", app[keys.BULLETIN].keep_reading):
        yield


async def _accounting(app: web.Application) -> AsyncIterator[None]:
    journal, allowances = app[keys.JOURNAL], app[keys.ALLOWANCES]
    async with (
        background.running("journal", journal.keep_sending),
        background.running("allowances", allowances.keep_exchanged),
    ):
        yield
    await journal.flush()
    await allowances.flush()


async def _end_streams(app: web.Application) -> None:
    app[keys.NEWSROOM].close()
    app[keys.BULLETIN].close()
