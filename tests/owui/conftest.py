"""Runs the filter the way Open WebUI 0.12.4 does, on the real admission service."""

import asyncio
import contextvars
import inspect
import sys
import types
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from functools import cache
from typing import Any

import pytest

from admission.client import Client
from admission.domain import DEFAULT_POOL, WorkerReport
from admission.store.redis_store import RedisStore
from owui_pipeline import assemble
from tests.conftest import DEADLINE_S, Service
from tests.owui.wire import Wire, wired

MODEL = "tiny"

Json = dict[str, Any]


FUNCTION = assemble.function()


@cache
def _code(source: str) -> types.CodeType:
    for ours in ("utils", "apps", "main", "config"):
        source = source.replace(f"from {ours}", f"from open_webui.{ours}")
    return compile(source, "vestibule.py", "exec")


def load(source: str) -> types.ModuleType:
    """Execute the text as ``load_function_module_by_id`` (utils/plugin.py) does."""
    module = types.ModuleType(f"function_vestibule_{uuid.uuid4().hex}")
    sys.modules[module.__name__] = module
    try:
        exec(_code(source), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module


class Caller:
    """The request of an API call, whose caller may hang up."""

    def __init__(self) -> None:
        self.gone = False

    async def is_disconnected(self) -> bool:
        return self.gone


class Pages:
    """Open WebUI's session pool (socket/main.py): a page of a user is a socket."""

    def __init__(self) -> None:
        self.pool: Json = {}
        self.live: list[Json] = []  # what was shown without being stored

    def open(self, user: str, chat: str = "chat") -> str:
        """A page of this user now shows this chat; its socket."""
        sid = uuid.uuid4().hex
        self.pool[sid] = {"id": user, "chat_ids": [chat]}
        return sid

    def close(self, sid: str) -> None:
        """The page is closed, or loaded again, which closes its socket as well."""
        del self.pool[sid]

    def module(self) -> types.ModuleType:
        """`open_webui.socket.main`, as far as the plugin uses it."""
        main = types.ModuleType("open_webui.socket.main")
        vars(main).update(
            get_session_pool_batches=lambda: [list(self.pool.items())],
            get_event_emitter=self._get_event_emitter,
        )
        return main

    async def _get_event_emitter(self, metadata: Json, update_db: bool) -> Any:
        assert not update_db

        async def emit(event: Json) -> None:
            self.live.append(event)

        return emit


class Chat:
    """One message of a user. Its filter and its answer run in one task, as in Open WebUI."""

    def __init__(self, gate: Any, user: str, model: str, request: Caller | None, extra: Json):
        self.message_id = str(uuid.uuid4())
        self.request = request
        self.events: list[Json] = []
        self.answering = asyncio.Event()
        self.answered = asyncio.Event()
        metadata: Json = {"message_id": self.message_id, "session_id": "sid", "chat_id": "chat"}
        if request is not None:
            metadata = {"message_id": None, "session_id": None, "chat_id": ""}
        self.body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        facts = {"role": "user", **extra.pop("facts", {})}
        self._gate = gate
        self._known: Json = {
            "__user__": {"id": user, **facts},
            "__metadata__": {**metadata, "user_id": user, **extra},
            "__request__": request,
            "__model__": {"id": model},
            "__event_emitter__": self._emit,
        }
        self.task = asyncio.create_task(self._process())

    async def _process(self) -> Json:
        passed = await self._call("inlet")
        self._context = contextvars.copy_context()
        self.answering.set()
        await self.answered.wait()
        return passed

    async def _call(self, hook: str, **other: object) -> Json:
        """As ``process_filter_function`` (utils/filter.py) does: with what the signature names."""
        handler = getattr(self._gate, hook)
        named = inspect.signature(handler).parameters
        known = {name: value for name, value in (self._known | other).items() if name in named}
        body: Json = await handler(body=self.body, **known)
        return body

    async def delegate(self) -> None:
        """A sub-agent is about to ask the model, in a task that this chat's own began."""
        await self._context.run(asyncio.create_task, self._sub_agent())

    async def _sub_agent(self) -> None:
        metadata = {"message_id": "sub-agent", "session_id": "sid", "internal": True}
        for hook in ("inlet", "request"):
            await self._call(hook, __metadata__=metadata)

    async def _emit(self, event: Json) -> None:
        self.events.append(event)

    async def next_round(self) -> Json:
        """Another request to the model in the same turn, after a tool was called."""
        return await self._call("request")

    async def is_whole(self) -> Json:
        """The model has said all; the chat's task goes on to a title and the like."""
        return await self._call("outlet")

    @property
    def statuses(self) -> list[str]:
        """Every status this chat was shown."""
        return [event["data"]["description"] for event in self._of("status")]

    @property
    def toasts(self) -> list[str]:
        """Every notification on the user's page."""
        return [event["data"]["content"] for event in self._of("notification")]

    @property
    def last(self) -> Json:
        """The status the user sees now."""
        data: Json = self._of("status")[-1]["data"]
        return data

    def _of(self, kind: str) -> list[Json]:
        return [event for event in self.events if event["type"] == kind]

    async def sees(self, words: str) -> None:
        """Wait until what the user sees begins so."""
        await until(lambda: bool(self.statuses) and self.last["description"].startswith(words))

    async def is_answered(self) -> None:
        """Wait until the filter let the chat through; its answer runs on."""
        await until(lambda: self.answering.is_set() or self.task.done())
        if not self.answering.is_set():
            self.task.result()  # raises what the user was told

    async def ends(self) -> Json:
        """Let the answer come to its end; the body that was sent to the model."""
        self.answered.set()
        return await asyncio.wait_for(self.task, DEADLINE_S)

    async def refusal(self) -> str:
        """The text of the error that the user gets."""
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the text is what is looked at
            await asyncio.wait_for(self.task, DEADLINE_S)
        return str(caught.value)

    async def is_kept(self) -> None:
        """Wait until this chat ended without an error, and the place is kept."""
        await asyncio.wait({self.task}, timeout=DEADLINE_S)
        assert self.task.cancelled()
        assert "Your place is kept" in self.toasts[-1]
        assert self.last["description"].endswith("Your place is kept.")
        assert self.last["done"] is True

    async def stop(self) -> None:
        """The Stop button (``stop_task``, tasks.py)."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


async def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds; fail after a while."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - looks at what another task did
            await asyncio.sleep(0.01)


async def answers_are_told(gate: Any) -> None:
    """Returns when admission has heard of every answer that ended."""
    await asyncio.gather(*gate._answers._beats)


def tell_nobody(gate: Any) -> None:
    """End what tells people of their sessions' ends and of kept places, as the process would."""
    for task in (*gate._endings._watching.values(), *gate._lobby.returns._tasks):
        task.cancel()


class WebUI:
    """An Open WebUI with the filter, pointed at a service.

    ``elsewhere``: another frontend of the same users.
    """

    def __init__(self, plugin: types.ModuleType, service: Service) -> None:
        self.plugin, self.service = plugin, service
        self.gate = plugin.Filter()
        self.elsewhere = Client(service.url, service.service_key)
        self.set(admission_url=service.url, service_key=service.service_key, away_grace_s=0)
        self._chats: list[Chat] = []

    def set(self, **valves: object) -> None:
        """Change valves, as Open WebUI does before each call."""
        self.gate.valves = self.gate.Valves(**{**self.gate.valves.model_dump(), **valves})

    def chat(self, user: str, model: str = MODEL, **metadata: object) -> Chat:
        """A message sent in the browser; ``facts=``: more of the user's."""
        return self._started(Chat(self.gate, user, model, None, metadata))

    def api_call(self, user: str) -> Chat:
        """A call of the chat API with a key: no browser, no statuses."""
        return self._started(Chat(self.gate, user, MODEL, Caller(), {}))

    def user_valves(self, **values: object) -> Json:
        """Facts of a user who chose these."""
        return {"valves": self.gate.UserValves(**values)}

    def _started(self, chat: Chat) -> Chat:
        self._chats.append(chat)
        return chat

    def forget(self) -> None:
        """Let go of the chats, which are over."""
        assert all(chat.task.done() for chat in self._chats)
        self._chats.clear()

    async def close(self) -> None:
        """End what still runs, so that no connection stays open."""
        for chat in self._chats:
            chat.task.cancel()
        await asyncio.gather(*(chat.task for chat in self._chats), return_exceptions=True)
        await answers_are_told(self.gate)
        tell_nobody(self.gate)
        await self.elsewhere.aclose()

    async def ticket(self, user: str) -> Json:
        """Admission's view of a user."""
        async with self.service.http.get(f"/queue/status/{user}", headers=self._key) as reply:
            view: Json = await reply.json()
        return view

    async def metrics(self) -> Json:
        """Admission's counts."""
        async with self.service.http.get("/queue/metrics", headers=self._key) as reply:
            counts: Json = await reply.json()
        return counts

    async def has_in_line(self, user: str) -> None:
        """Wait until the user waits."""
        async with asyncio.timeout(DEADLINE_S):
            while (await self.ticket(user)).get("status") != "waiting":
                pass

    async def becomes(self, user: str, status: str) -> None:
        """Wait until the user's ticket has this status."""
        async with asyncio.timeout(DEADLINE_S):
            while (await self.ticket(user)).get("status") != status:
                pass

    async def waiting_are(self, number: int) -> None:
        """Wait until so many wait."""
        async with asyncio.timeout(DEADLINE_S):
            while (await self.metrics())["waiting"] != number:
                pass

    async def is_not_attached(self, user: str) -> None:
        """Wait until the plugin has no stream of the user open."""
        attached: Counter[str] = self.plugin.attached
        await until(lambda: not attached[user])

    async def is_heard(self, user: str) -> None:
        """The user's presence is renewed, as an open stream does every 15 s."""
        await self.elsewhere.heartbeat(user)

    async def sessions_last(self, seconds: int) -> None:
        """Change how long a session may last, as an admin would."""
        await self.service.store.configure(DEFAULT_POOL, {"session_ms": seconds * 1000})

    async def session_ends(self, chat: Chat, user: str) -> None:
        """The chat's answer comes to its end, then the user leaves; the slot is free."""
        await chat.ends()
        await self.elsewhere.leave(user)

    @property
    def _key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.service.service_key}"}


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The filter's module, with shorter pauses."""
    module = load(FUNCTION)
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    monkeypatch.setattr(module, "AGAIN_S", (0.05, 0.1))
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr(module, "SCAN_S", 0.02)
    monkeypatch.setattr(module, "MISSING_S", 0.0)
    monkeypatch.setattr(module, "ABSENT_S", 0.2)
    monkeypatch.setattr(module, "READ_AGAIN_S", 0.1)
    _count_streams(module)
    return module


def _count_streams(module: types.ModuleType) -> None:
    """Keep in `module.attached` how many event streams are open, by their user."""
    attached = vars(module).setdefault("attached", Counter[str]())
    events = module.Admission.events

    async def counted(self: Any) -> AsyncGenerator[Any, None]:
        attached[self._user] += 1
        try:
            async with aclosing(events(self)) as told:
                async for ticket in told:
                    yield ticket
        finally:
            attached[self._user] -= 1

    module.Admission.events = counted


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    """The pages people have open, where the plugin looks for them."""
    pages = Pages()
    for name in ("open_webui", "open_webui.socket"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "open_webui.socket.main", pages.module())
    return pages


@pytest.fixture
async def model_served(store: RedisStore) -> None:
    """A model server known before the service starts, so that it serves `MODEL` at once."""
    await store.load()
    report = WorkerReport(ready=True, reason=None, models=(MODEL,), slots=1)
    identity = {"url": "http://127.0.0.1:9", "kind": "static", "upstream_key": ""}
    await store.report_worker(DEFAULT_POOL, "upstream", report, identity=identity)


@pytest.fixture
async def webui(
    model_served: None, plugin: types.ModuleType, service: Service
) -> AsyncIterator[WebUI]:
    """Open WebUI in front of the service, which serves `MODEL` and has one slot."""
    webui = WebUI(plugin, service)
    yield webui
    await webui.close()


@pytest.fixture
async def wire(webui: WebUI) -> AsyncIterator[Wire]:
    """The way from the filter to its service."""
    async with wired(webui.service.url) as wire:
        webui.set(admission_url=wire.url)
        yield wire
        await webui.close()
