"""Runs the Pipelines filter the way the Pipelines server does, beside a stand-in for Open WebUI.

The stand-in keeps what it was told and shows it to nobody; the real one is in tests/e2e.
"""

import asyncio
import json
import time
import types
import uuid
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import DEADLINE_S
from tests.owui.conftest import MODEL, WebUI, until

ADMIN_KEY = "sk-admin"

Json = dict[str, Any]


class Above:
    """Open WebUI's own API, as far as the filter uses it; it shows chats to nobody."""

    def __init__(self) -> None:
        self.url = ""
        self.tasks: list[str] = []
        self.events: list[tuple[str, str, Json]] = []  # chat, message, event
        self.last_active: dict[str, float] = {}
        self.groups: dict[str, list[str]] = {}
        self.presets: dict[str, str] = {}
        self.connections: list[tuple[str, Json]] = [("http://gateway/v1", {})]
        self.is_broken = False
        self.is_another_replica = False  # whose tasks are not those of our chats

    @property
    def words(self) -> list[str]:
        """Every status, of whatever chat."""
        told = [event for _, _, event in self.events if event["type"] == "status"]
        return [event["data"]["description"] for event in told]

    async def answer(self, request: web.Request) -> web.Response:
        """Every call comes here."""
        if self.is_broken:
            return web.Response(status=500, text="<html>")
        if request.headers.get("Authorization") != f"Bearer {ADMIN_KEY}":
            return web.json_response({"detail": "401 Unauthorized"}, status=401)
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
        return [event["data"] for event in self.told if event["type"] == "status"]

    @property
    def words(self) -> list[str]:
        return [status["description"] for status in self.statuses]

    @property
    def error(self) -> str:
        """The error on the user's page."""
        shown = [event for event in self.told if event["type"] == "chat:message:error"]
        text: str = shown[-1]["data"]["error"]["content"]
        return text

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
        self._messages: list[Message] = []

    async def set(self, **valves: object) -> None:
        """Change valves, as the server does."""
        kind = self.pipeline.valves.__class__
        self.pipeline.valves = kind(**{**self.pipeline.valves.model_dump(), **valves})
        await self.pipeline.on_valves_updated()

    def message(self, user: str, name: str = MODEL, **metadata: object) -> Message:
        """A message to the model of this name, sent in the browser, in a saved chat."""
        ids = {name: str(uuid.uuid4()) for name in ("chat_id", "message_id", "task_id")}
        known = {**ids, "session_id": "sid", "user_id": user, "model": {"id": name, "urlIdx": 0}}
        body = {"model": name, "messages": [], "metadata": known | metadata}
        made = Message(self.pipeline, self.above, {"id": user, "role": "user"}, body)
        self._messages.append(made)
        return made

    def api_call(self, user: str) -> Message:
        """A call of the chat API."""
        return self.message(user, chat_id="", message_id=None, session_id=None, task_id=None)

    async def is_taken_for_absent(self, user: str) -> None:
        """Wait until the filter noticed that the page was closed."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.pipeline._webui.is_active(user):
                pass
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
        await self.pipeline.on_shutdown()
        await self.pipeline._answers.all_over()
