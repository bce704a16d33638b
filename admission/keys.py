"""The typed keys under which application and request keep what handlers use.

The types are imported for the type checker alone: a function, which has no gateway, shall not carry
one because a key is named here.
"""

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections import Counter

    from admission.accounting.allowances import Allowances
    from admission.accounting.journal import Journal
    from admission.accounting.ledger import Ledger
    from admission.auth import Gatekeeper
    from admission.bulletin import Bulletin
    from admission.directory import Directory
    from admission.gateway.away import Away
    from admission.gateway.connection import Connections
    from admission.gateway.turn import Turns
    from admission.news import Newsroom
    from admission.rates import Rates
    from admission.roster import Roster
    from admission.settings import Settings
    from admission.store.redis_store import RedisStore
    from admission.store.thread_store import ThreadStore

STORE: "web.AppKey[RedisStore]" = web.AppKey("store")
GATEKEEPER: "web.AppKey[Gatekeeper]" = web.AppKey("gatekeeper")
RATES: "web.AppKey[Rates]" = web.AppKey("rates")
ROSTER: "web.AppKey[Roster]" = web.AppKey("roster")
DIRECTORY: "web.AppKey[Directory]" = web.AppKey("directory")  # the same, with what runs where
THREADS: "web.AppKey[ThreadStore]" = web.AppKey("threads")
NEWSROOM: "web.AppKey[Newsroom]" = web.AppKey("newsroom")
BULLETIN: "web.AppKey[Bulletin]" = web.AppKey("bulletin")
SETTINGS: "web.AppKey[Settings]" = web.AppKey("settings")
REQUEST_ID = web.RequestKey("request_id", str)  # kept in the request
ANSWER_BEGUN = web.RequestKey("answer_begun", bool)  # its head has gone out: it can only be cut
# Calls that wait for their turn here, and background tasks that wait or run here, by user.
WAITERS: "web.AppKey[Counter[str]]" = web.AppKey("waiters")
TASKS: "web.AppKey[Counter[str]]" = web.AppKey("tasks")
TURNS: "web.AppKey[Turns]" = web.AppKey("turns")
AWAY: "web.AppKey[Away]" = web.AppKey("away")
LEDGER: "web.AppKey[Ledger]" = web.AppKey("ledger")
JOURNAL: "web.AppKey[Journal]" = web.AppKey("journal")
ALLOWANCES: "web.AppKey[Allowances]" = web.AppKey("allowances")
CONNECTIONS: "web.AppKey[Connections]" = web.AppKey("connections")  # to workers, for calls
