"""Runs the Pipelines filter the way the Pipelines server does, beside a stand-in for Open WebUI.

The stand-in keeps what it was told and shows it to nobody; the real one is in tests/e2e.
"""

import asyncio
import json
import time
import types
import uuid
from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import DEADLINE_S
from tests.owui.conftest import MODEL, WebUI, answers_are_told, tell_nobody, until

ADMIN_KEY = "sk-admin"

Json = dict[str, Any]


class Above:
    """Open WebUI's own API, as far as the filter uses it; it shows chats to nobody."""

    def __init__(self) -> None:
        self.url = ""
        self.tasks: list[str] = []
        self.events: list[tuple[str, str, Json]] = []  # chat, message, event
        self.last_active: dict[str, float] = {}
        self.looked_for = Counter[str]()  # how often somebody's last sign of life was asked for
        self.groups: dict[str, list[str]] = {}
        self.presets: dict[str, str] = {}
        self.connections: list[tuple[str, Json]] = [("http://gateway/v1", {})]
        self.is_broken = False
        self.is_another_replica = False  # whose tasks are not those of our chats
        self.hangs_at = ""  # what a path begins with that is never answered
        self.refuses_events = False  # ENABLE_ADMIN_CHAT_ACCESS=false
        self.nonsense: object = None  # its every answer, if it is another program

    @property
    def words(self) -> list[str]:
        """Every status, of whatever chat."""
        told = [event for _, _, event in self.events if event["type"] == "status"]
        return [event["data"]["description"] for event in told]

    async def answer(self, request: web.Request) -> web.Response:
        """Every call comes here."""
        if self.hangs_at and request.path.startswith(self.hangs_at):
            await asyncio.Event().wait()
        return self._refusal(request) or await self._reply(request)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self.is_broken:
            return web.Response(status=500, text="<html>")
        if self.nonsense is not None:
            return web.json_response(self.nonsense)
        is_event = request.path.endswith("/event")
        if request.headers.get("Authorization") != f"Bearer {ADMIN_KEY}" or (
            is_event and self.refuses_events
        ):
            return web.json_response({"detail": "401 Unauthorized"}, status=401)
        return None

    async def _reply(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        match path.split("/"):
            case ["api", "tasks"]:
                listed = [] if self.is_another_replica else self.tasks
                return web.json_response({"tasks": listed})
            case ["api", "tasks", "stop", task]:
                self.tasks.remove(task)
                return web.json_response({"status": True})
            case ["api", "v1", "chats", chat, "messages", message, "event"]:
                self.events.append((chat, message, await request.json()))
                return web.json_response(True)
            case ["api", "v1", "users", user]:
                self.looked_for[user] += 1
                facts = {"id": user, "groups": [{"name": n} for n in self.groups.get(user, [])]}
                last_s = self.last_active.get(user, time.time())
                return web.json_response({**facts, "last_active_at": int(last_s)})
            case ["api", "v1", "models", "model"]:
                base = self.presets.get(request.query["id"])
                return web.json_response(base and {"base_model_id": base})
            case ["openai", "config"]:
                urls, settings = zip(*self.connections, strict=True)
                configs = {str(i): own for i, own in enumerate(settings)}
                known = {"OPENAI_API_BASE_URLS": urls, "OPENAI_API_CONFIGS": configs}
                return web.json_response(known)
        raise AssertionError(path)


class Message:
    """One message in Open WebUI, which calls the filter and does not tell it of Stop."""

    def __init__(self, pipeline: Any, above: Above, user: Json, body: Json) -> None:
        self._pipeline, self._above, self._user = pipeline, above, user
        self.metadata: Json = body["metadata"]
        self.body = body
        self.passed: Json | None = None
        self.call = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        if task := self.metadata.get("task_id"):
            self._above.tasks.append(task)
        sent = json.loads(json.dumps(self.body))
        self.passed = await self._pipeline.inlet(sent, self._user)

    @property
    def told(self) -> list[Json]:
        """Every event this message got."""
        message = self.metadata.get("message_id")
        return [event for _, to, event in self._above.events if to == message]

    @property
    def statuses(self) -> list[Json]:
        """Every status stored with it."""
        return self._of("status")

    @property
    def words(self) -> list[str]:
        return [status["description"] for status in self.statuses]

    @property
    def toasts(self) -> list[tuple[str, str]]:
        """Every notification on the user's page: its kind and its words."""
        return [(data["type"], data["content"]) for data in self._of("notification")]

    def _of(self, kind: str) -> list[Json]:
        return [event["data"] for event in self.told if event["type"] == kind]

    @property
    def is_stopped(self) -> bool:
        """Whether Open WebUI's task for it is over."""
        return self.metadata["task_id"] not in self._above.tasks

    async def sees(self, words: str) -> None:
        """Wait until the last status begins so."""
        await until(lambda: bool(self.words) and self.words[-1].startswith(words))

    async def is_answered(self) -> None:
        """Wait until the filter let it through."""
        await asyncio.wait_for(asyncio.shield(self.call), DEADLINE_S)
        assert self.passed == self.body

    async def refusal(self) -> str:
        """What the filter raised."""
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the text is what is looked at
            await asyncio.wait_for(asyncio.shield(self.call), DEADLINE_S)
        return str(caught.value)

    def stop(self) -> None:
        """The Stop button, or any other end that reaches no filter."""
        self._above.tasks.remove(self.metadata["task_id"])

    async def ends(self) -> None:
        """The answer is whole."""
        known = {"id": self.metadata["message_id"], "model": self.body["model"], "messages": []}
        await self._pipeline.outlet(known, self._user)


class PipelinesServer:
    """A Pipelines server with the one filter, beside an Open WebUI."""

    def __init__(self, plugin: types.ModuleType, above: Above, admission: WebUI) -> None:
        self.plugin, self.above, self.admission = plugin, above, admission
        self.pipeline = plugin.Pipeline()
        self._old: list[Any] = []  # pipelines that were made anew, whose chats go on
        self._messages: list[Message] = []

    async def set(self, **valves: object) -> None:
        """Change valves, as the server does."""
        kind = self.pipeline.valves.__class__
        self.pipeline.valves = kind(**{**self.pipeline.valves.model_dump(), **valves})
        await self.pipeline.on_valves_updated()

    async def reload(self) -> None:
        """Another pipeline was uploaded: the server makes all of them anew (main.py, `reload`)."""
        if hasattr(self.pipeline, "on_shutdown"):
            await self.pipeline.on_shutdown()
        old, self.pipeline = self.pipeline, self.plugin.Pipeline()
        self._old.append(old)
        await self.set(**old.valves.model_dump())

    def message(
        self, user: str, name: str = MODEL, *, stream: bool = True, **metadata: object
    ) -> Message:
        """A message to the model of this name, sent in the browser, in a saved chat."""
        ids = {name: str(uuid.uuid4()) for name in ("chat_id", "message_id", "task_id")}
        known = {**ids, "session_id": "sid", "user_id": user, "model": {"id": name, "urlIdx": 0}}
        body = {"model": name, "messages": [], "stream": stream, "metadata": known | metadata}
        made = Message(self.pipeline, self.above, {"id": user, "role": "user"}, body)
        self._messages.append(made)
        return made

    def api_call(self, user: str) -> Message:
        """A call of the chat API which wants its answer whole."""
        ids: Json = dict.fromkeys(("message_id", "session_id", "task_id"))
        return self.message(user, stream=False, chat_id="", **ids)

    async def is_taken_for_absent(self, user: str) -> None:
        """Wait until the filter noticed that the page was closed."""
        await until(lambda: self.pipeline._webui.is_active(user) is False)
        await until(lambda: not self.plugin.attached.total())

    async def session_ends(self, message: Message) -> None:
        """The answer comes to its end, then the user leaves; the slot is free."""
        await message.ends()
        await until(lambda: self.pipeline._answers.of(message.metadata["message_id"]) is None)
        await self.admission.elsewhere.leave(message.metadata["user_id"])

    async def close(self) -> None:
        """End everything that runs."""
        self.above.tasks.clear()
        for message in self._messages:
            message.call.cancel()
        calls = (message.call for message in self._messages)
        await asyncio.gather(*calls, return_exceptions=True)
        for pipeline in (*self._old, self.pipeline):
            tell_nobody(pipeline)
            for end in pipeline._ends:
                end.cancel()
            await answers_are_told(pipeline)
