"""Open WebUI as another process sees it: its HTTP API (0.12.4), called with an administrator's key.

The Pipelines server has no other way to a chat: no emitter, no socket, no task to await. Whatever
fails here is not known or not shown; it never costs a turn. Never imports ``open_webui``.
"""

import asyncio
import logging
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp

from owui_pipeline.screen import Screen
from owui_pipeline.webui import Attendance, Emit, Json, name_at_gateway

WEBUI_CALL_S = 4.0  # a slow Open WebUI delays news, not turns
STATUS_EVERY_S = 3.0  # each one rewrites the chat's row
KEPT_EVERY_S = 60.0  # where nobody need watch
TASKS_S = 2.0
PEOPLE_S = 15.0
SETTINGS_S = 60.0
AWAY_S = 120.0  # a page beats every 30 s, in the background every 60 s (fe: routes/+layout.svelte)
MISSING_TIMES = 2  # looks in a row without a task that was there: one may have met another replica

remote_log = logging.getLogger("vestibule.remote")


class Reply(NamedTuple):
    """What Open WebUI answered, and when by its own clock (s since 1970; 0.0 untold)."""

    content: Any
    at_s: float


class OpenWebUI:
    """One Open WebUI. All who wait in this process share one look at the same thing."""

    def __init__(self) -> None:
        self._url = self._key = ""
        self._http: aiohttp.ClientSession | None = None
        self._looks: dict[str, tuple[float, asyncio.Task[Reply | None]]] = {}
        self._failing: set[str] = set()  # logged when it begins, not each time

    def configure(self, url: str, key: str) -> None:
        """Where it is and an administrator's API key; without a key nothing is known or shown."""
        self._url, self._key = url.rstrip("/"), key
        self._looks.clear()

    async def aclose(self) -> None:
        """Close the connections; who still waits goes on without it."""
        self.configure("", "")
        if self._http is not None:
            await self._http.close()

    @property
    def is_known(self) -> bool:
        """Whether it can be asked."""
        return bool(self._url and self._key)

    async def post(self, path: str, body: Json | None = None) -> bool:
        """Whether that was done."""
        reply = await self._call("POST", path, body)
        return reply is not None and bool(reply.content)

    async def tasks(self, fresh_s: float | None = None) -> frozenset[str] | None:
        """The chats being processed, by `task_id`, as of so many seconds ago at most (TASKS_S
        without a number); None when that is not known."""
        reply = await self._look("/api/tasks", TASKS_S if fresh_s is None else fresh_s)
        try:
            return None if reply is None else frozenset(reply.content["tasks"])
        except (KeyError, TypeError):
            return None

    async def task_ends(self, task_id: str) -> None:
        """Wait until this chat's task is over, by Stop or else; for ever where nobody can tell.

        One that was never there is none that ended: another replica may be the one that answers.
        """
        missing, was_there, fresh_s = 0, False, 0.0
        while missing < MISSING_TIMES:
            tasks = await self.tasks(fresh_s) if task_id else None
            if tasks is not None:
                was_there, fresh_s = was_there or task_id in tasks, TASKS_S
                missing = missing + 1 if was_there and task_id not in tasks else 0
            await asyncio.sleep(TASKS_S)

    async def is_active(self, user_id: str) -> bool | None:
        """Whether the user has a page open; its closing is noticed after AWAY_S at the earliest."""
        reply = await self._user(user_id)
        last_s = reply and reply.content.get("last_active_at")
        if not reply or not last_s or not reply.at_s:
            return None
        return reply.at_s - float(last_s) < AWAY_S

    async def groups(self, user_id: str) -> list[str]:
        """The names of the user's groups, none when they are not known."""
        reply = await self._user(user_id)
        return [str(group.get("name")) for group in (reply and reply.content.get("groups")) or []]

    async def served_name(self, name: str, known: Json, admission_url: str) -> str | None:
        """As ``webui.served_name``. ``known``: what the chat's metadata tell of its model."""
        facts = known if known.get("id") == name else await self._preset(name)
        if facts.get("pipe") or facts.get("owned_by") == "ollama":
            return None
        name = str((facts.get("info") or {}).get("base_model_id") or name)
        reply = await self._look("/openai/config", SETTINGS_S)
        if reply is None:
            return name
        try:
            urls, own = reply.content["OPENAI_API_BASE_URLS"], reply.content["OPENAI_API_CONFIGS"]
            return name_at_gateway(name, facts.get("urlIdx"), urls, own, admission_url)
        except (KeyError, IndexError, TypeError, AttributeError):
            return name

    async def _preset(self, name: str) -> Json:
        """Of the second of two models side by side the metadata tell nothing."""
        reply = await self._look(f"/api/v1/models/model?id={quote(name, safe='')}", SETTINGS_S)
        return {"info": reply.content} if reply and isinstance(reply.content, dict) else {}

    async def _user(self, user_id: str) -> Reply | None:
        reply = await self._look(f"/api/v1/users/{quote(user_id, safe='')}", PEOPLE_S)
        return reply if reply and isinstance(reply.content, dict) else None

    async def _look(self, path: str, fresh_s: float) -> Reply | None:
        now_s = asyncio.get_running_loop().time()
        began_s, looking = self._looks.get(path, (float("-inf"), None))
        if looking is None or now_s - began_s >= fresh_s:
            self._looks = {p: it for p, it in self._looks.items() if now_s - it[0] < SETTINGS_S}
            looking = asyncio.create_task(self._call("GET", path))
            self._looks[path] = (now_s, looking)
        return await asyncio.shield(looking)

    async def _call(self, method: str, path: str, body: Json | None = None) -> Reply | None:
        if not self.is_known:
            return None
        if self._http is None:
            limit = aiohttp.ClientTimeout(total=WEBUI_CALL_S)
            self._http = aiohttp.ClientSession(timeout=limit, trust_env=True)
        headers = {"Authorization": f"Bearer {self._key}"}
        route = "/".join(path.split("/")[:4])  # whose chat it is, no log need know
        try:
            url = self._url + path
            async with self._http.request(method, url, json=body, headers=headers) as answer:
                what = f"status {answer.status}"
                if answer.status == 200:
                    self._failing.discard(route)
                    return Reply(await answer.json(), _date_s(answer.headers))
        except Exception as error:  # noqa: BLE001 - nothing that fails here may cost a turn
            what = type(error).__name__
        if route not in self._failing:
            self._failing.add(route)
            remote_log.warning("open_webui_does_not_help route=%s error=%s", route, what)
        return None


def _date_s(headers: Mapping[str, str]) -> float:
    try:
        return parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return 0.0


class RemoteAttendance(Attendance):
    """Which users have a page open, as far as their last sign of life tells."""

    def __init__(self, webui: OpenWebUI) -> None:
        super().__init__()
        self._webui = webui

    async def sockets(self, user_id: str) -> frozenset[str] | None:
        """One for who is there; a reload is not seen."""
        is_active = await self._webui.is_active(user_id)
        return None if is_active is None else frozenset({"page"} if is_active else ())

    async def has_open(self, user_id: str, chat_id: str) -> bool:
        """Nobody tells which chat a page shows."""
        return True


class Postbox:
    """The event endpoint of one chat message, which stores every status."""

    def __init__(self, webui: OpenWebUI, chat_id: str, message_id: str) -> None:
        self._webui = webui
        self._path = f"/api/v1/chats/{quote(chat_id, safe='')}/messages/{quote(message_id)}/event"
        self._latest: Json | None = None
        self._telling: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()

    async def send(self, event: Json) -> None:
        """Send it now; a status that was to be sent soon is old then."""
        if event["type"] == "status":
            self._latest = None
        async with self._sending:  # in the order of their making
            await self._webui.post(self._path, event)

    async def send_soon(self, event: Json) -> None:
        """Send it, or a later one in its place, when the last is some seconds old; nobody waits."""
        self._latest = event
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        while (event := self._latest) is not None:
            await self.send(event)
            await asyncio.sleep(KEPT_EVERY_S if event["data"]["done"] else STATUS_EVERY_S)


class RemoteScreen(Screen):
    """What one chat message shows, sent to Open WebUI. Only saved chats can be reached."""

    def __init__(self, webui: OpenWebUI, metadata: Json, attendance: Attendance) -> None:
        chat_id, message_id = str(metadata.get("chat_id") or ""), metadata.get("message_id")
        # "temporary:…", "local:…" and "channel:…" are no saved chats.
        reaches = webui.is_known and bool(chat_id and message_id) and ":" not in chat_id
        postbox = Postbox(webui, chat_id, str(message_id)) if reaches else None
        super().__init__(postbox.send if postbox else None, metadata, attendance)
        self._soon = postbox.send_soon if postbox else None
        self._webui = webui

    async def end(self, words: str, *, noted: bool) -> None:
        """End the chat with these words, as the Stop button would end it: of an error that the
        Pipelines server answers, Open WebUI shows "Internal Server Error" only.

        ``noted``: a status that says so stands there already.
        """
        if self._stored is None:
            return
        if not noted:
            await self.note(words)
        await self._send(self._stored, "chat:message:error", {"error": {"content": words}})
        if task_id := self._metadata.get("task_id"):
            await self._webui.post(f"/api/tasks/stop/{quote(str(task_id), safe='')}")

    async def repeat(self) -> None:
        """Every status is stored, so who comes back sees the last."""

    async def call(self, title: str, words: str) -> None:
        """Reach the user where this chat is open; ``title`` is for places that are not reached."""
        await self.notify("success", words)

    async def _emitter(self, *, store: bool) -> Emit | None:
        return self._stored if store else self._soon
