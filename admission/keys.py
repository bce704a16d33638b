"""The typed keys under which application and request keep what handlers use."""

from collections import Counter

from aiohttp import ClientSession, web

from admission.accounting.allowances import Allowances
from admission.accounting.journal import Journal
from admission.accounting.ledger import Ledger
from admission.auth import Gatekeeper
from admission.directory import Directory
from admission.gateway.away import Away
from admission.gateway.connection import Connections
from admission.gateway.turn import Turns
from admission.news import Newsroom
from admission.rates import Rates
from admission.settings import Settings
from admission.store.redis_store import RedisStore
from admission.store.thread_store import ThreadStore

STORE = web.AppKey("store", RedisStore)
GATEKEEPER = web.AppKey("gatekeeper", Gatekeeper)
RATES = web.AppKey("rates", Rates)
DIRECTORY = web.AppKey("directory", Directory)
THREADS = web.AppKey("threads", ThreadStore)
NEWSROOM = web.AppKey("newsroom", Newsroom)
SETTINGS = web.AppKey("settings", Settings)
REQUEST_ID = web.RequestKey("request_id", str)  # kept in the request
ANSWER_BEGUN = web.RequestKey("answer_begun", bool)  # its head has gone out: it can only be cut
WAITERS = web.AppKey("waiters", Counter[str])  # calls that wait for their turn here, by user
TASKS = web.AppKey("tasks", Counter[str])  # background tasks that wait or run here, by user
TURNS = web.AppKey("turns", Turns)
AWAY = web.AppKey("away", Away)
LEDGER = web.AppKey("ledger", Ledger)
JOURNAL = web.AppKey("journal", Journal)
ALLOWANCES = web.AppKey("allowances", Allowances)
CONNECTIONS = web.AppKey("connections", Connections)  # to workers, for calls
UPSTREAM = web.AppKey("upstream", ClientSession)  # to who says that it is a worker
