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
from owui_pipeline.webui import OTHER_VERSION, Attendance, Emit, Json, name_at_gateway

WEBUI_CALL_S = 4.0  # what is asked before a chat joins delays it by no more
DELIVERED_WITHIN_S = 8.0  # all last words of a chat
STATUS_EVERY_S = 3.0  # each one rewrites the chat's row
PLACES_A_S = 10  # of all who wait, whom Open WebUI is told of in a second
KEPT_EVERY_S = 60.0  # where nobody need watch
TASKS_S = 2.0
PEOPLE_S = 15.0
SETTINGS_S = 60.0
AWAY_S = 120.0
"""A page beats every 30 s, in the background every 60 s (fe: routes/+layout.svelte), and a beat is
written 60 s after the last (DATABASE_USER_ACTIVE_STATUS_UPDATE_INTERVAL)."""
NO_MESSAGE = "none"  # an event of none changes no chat: pages look for its message first

remote_log = logging.getLogger("vestibule.remote")


class Reply(NamedTuple):
    """What Open WebUI answered, and when by its own clock (s since 1970; 0.0 untold)."""

    content: Any
    at_s: float


class Look(NamedTuple):
    """A question under way or answered, when it began on the loop's clock, and what the one before
    it brought."""

    began_s: float
    asking: "asyncio.Task[Reply | None]"
    before: Reply | None

    @property
    def known(self) -> Reply | None:
        """What is known without waiting."""
        return self.asking.result() if self.asking.done() else self.before


class OpenWebUI:
    """One Open WebUI. All who wait in this process share one look at the same thing."""

    def __init__(self) -> None:
        self._url = self._key = ""
        self._looks: dict[str, Look] = {}
        self._failing: set[str] = set()  # logged when it begins, not each time
        self._pace = asyncio.Lock()

    def configure(self, url: str, key: str) -> None:
        """Where it is and an administrator's API key; without a key nothing is known or shown."""
        self._url, self._key = url.rstrip("/"), key
        self._looks.clear()

    @property
    def is_known(self) -> bool:
        """Whether it can be asked."""
        return bool(self._url and self._key)

    async def may_be_told(self) -> None:
        """Wait until one more may tell it a place: PLACES_A_S, first come, first served."""
        async with self._pace:
            await asyncio.sleep(1 / PLACES_A_S)

    async def post(self, path: str, body: Json | None = None) -> bool:
        """Whether that was done."""
        reply = await self._call("POST", path, body)
        return reply is not None and bool(reply.content)

    async def tasks(self, fresh_s: float | None = None) -> frozenset[str] | None:
        """The chats being processed, by `task_id`, as of so many seconds ago at most (TASKS_S
        without a number); None when that is not known."""
        reply = await self._ask("/api/tasks", TASKS_S if fresh_s is None else fresh_s)
        try:
            return None if reply is None else frozenset(reply.content["tasks"])
        except OTHER_VERSION:
            return None

    async def task_ends(self, task_id: str) -> None:
        """Wait until this chat's task is over, by Stop or else; for ever where nobody can tell.

        One that was never there is none that ended: another replica may be the one that answers.
        """
        was_there, fresh_s = False, 0.0
        while True:
            tasks = await self.tasks(fresh_s) if task_id else None
            if tasks is not None:
                if was_there and task_id not in tasks:
                    return
                was_there, fresh_s = task_id in tasks, TASKS_S
            await asyncio.sleep(TASKS_S / 2)  # what is asked, all who wait here share

    def is_active(self, user_id: str) -> bool | None:
        """Whether the user has a page open; its closing is noticed after AWAY_S at the earliest.
        None while that is not known: nobody waits for it."""
        reply = self._look(_user(user_id), PEOPLE_S).known
        try:
            last_s = float(reply.content["last_active_at"]) if reply else 0.0
        except OTHER_VERSION:
            return None
        return reply.at_s - last_s < AWAY_S if reply and last_s and reply.at_s else None

    async def groups(self, user_id: str) -> list[str]:
        """The names of the user's groups, none when they are not known."""
        reply = await self._ask(_user(user_id), PEOPLE_S)
        try:
            return [str(group["name"]) for group in reply.content["groups"]] if reply else []
        except OTHER_VERSION:
            return []

    async def served_name(self, name: str, known: Json, admission_url: str) -> str | None:
        """As ``webui.served_name``. ``known``: what the chat's metadata tell of its model."""
        facts = known if known.get("id") == name else await self._preset(name)
        if facts.get("pipe") or facts.get("owned_by") == "ollama":
            return None
        name = str((facts.get("info") or {}).get("base_model_id") or name)
        reply = await self._ask("/openai/config", SETTINGS_S)
        if reply is None:
            return name
        try:
            urls, own = reply.content["OPENAI_API_BASE_URLS"], reply.content["OPENAI_API_CONFIGS"]
            return name_at_gateway(name, facts.get("urlIdx"), urls, own, admission_url)
        except OTHER_VERSION:
            return name

    async def _preset(self, name: str) -> Json:
        """Of the second of two models side by side the metadata tell nothing."""
        reply = await self._ask(f"/api/v1/models/model?id={quote(name, safe='')}", SETTINGS_S)
        return {"info": reply.content} if reply and isinstance(reply.content, dict) else {}

    async def _ask(self, path: str, fresh_s: float) -> Reply | None:
        return await asyncio.shield(self._look(path, fresh_s).asking)

    def _look(self, path: str, fresh_s: float) -> Look:
        """The question, asked again when its last answer is so many seconds old."""
        now_s = asyncio.get_running_loop().time()
        look = self._looks.get(path)
        if look is None or (look.asking.done() and now_s - look.began_s >= fresh_s):
            before = look and look.asking.result()
            recent = {p: it for p, it in self._looks.items() if now_s - it.began_s < SETTINGS_S}
            look = Look(now_s, asyncio.create_task(self._call("GET", path)), before)
            self._looks = {**recent, path: look}
        return look

    async def _call(self, method: str, path: str, body: Json | None = None) -> Reply | None:
        if not self.is_known:
            return None
        headers = {"Authorization": f"Bearer {self._key}"}
        route = "/".join(path.split("/")[:4])  # whose chat it is, no log need know
        limit = aiohttp.ClientTimeout(total=WEBUI_CALL_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit, trust_env=True) as http,
                http.request(method, self._url + path, json=body, headers=headers) as answer,
            ):
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


def _user(user_id: str) -> str:
    return f"/api/v1/users/{quote(user_id, safe='')}"


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

    async def sockets(self, user_id: str, *, seen: bool) -> frozenset[str] | None:
        """One for who is there; a reload is not seen."""
        is_active = self._webui.is_active(user_id)
        return None if is_active is None else frozenset({"page"} if is_active else ())

    async def showing(self, user_id: str, chat_id: str) -> None:
        """Nobody tells which chat a page shows."""


class Postbox:
    """The event endpoint of one chat message, which stores every status. Nobody waits for it."""

    def __init__(self, webui: OpenWebUI, chat_id: str, message_id: str) -> None:
        self._webui = webui
        self._path = f"/api/v1/chats/{quote(chat_id, safe='')}/messages/{quote(message_id)}/event"
        self._latest: Json | None = None
        self._telling: asyncio.Task[None] | None = None
        self._posts: set[asyncio.Task[None]] = set()
        self._one_by_one = asyncio.Lock()  # in the order of their making
        self._arrived = False

    async def send(self, event: Json) -> None:
        """Send it; a status that was to be sent soon is old then."""
        if event["type"] == "status":
            self._latest = None
        post = asyncio.create_task(self._post(event))
        self._posts.add(post)
        post.add_done_callback(self._posts.discard)

    async def send_soon(self, event: Json) -> None:
        """Send it, or a later one in its place, when the last is some seconds old."""
        self._latest = event
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())

    async def has_arrived(self) -> bool:
        """Whether the last that was sent reached Open WebUI; waits DELIVERED_WITHIN_S for it."""
        posts = self._posts.copy()
        _, late = await asyncio.wait(posts, timeout=DELIVERED_WITHIN_S) if posts else (posts, ())
        return self._arrived and not late

    async def _tell(self) -> None:
        while self._latest is not None:
            await self._webui.may_be_told()
            if (event := self._latest) is not None:  # the last words may have come before it
                self._latest = None
                await self._post(event)
                await asyncio.sleep(KEPT_EVERY_S if event["data"]["done"] else STATUS_EVERY_S)

    async def _post(self, event: Json) -> None:
        async with self._one_by_one:
            self._arrived = await self._webui.post(self._path, event)


class RemoteScreen(Screen):
    """What one chat message shows, sent to Open WebUI. Only saved chats can be reached."""

    def __init__(self, webui: OpenWebUI, metadata: Json, attendance: Attendance) -> None:
        chat_id, message_id = str(metadata.get("chat_id") or ""), metadata.get("message_id")
        # "temporary:…", "local:…" and "channel:…" are no saved chats.
        reaches = webui.is_known and bool(chat_id and message_id) and ":" not in chat_id
        self._postbox = Postbox(webui, chat_id, str(message_id)) if reaches else None
        self._elsewhere = Postbox(webui, chat_id, NO_MESSAGE) if reaches else None
        super().__init__(self._postbox.send if self._postbox else None, metadata, attendance)
        self._webui = webui

    @property
    def is_reached(self) -> bool:
        """Whether anything can be shown."""
        return self._postbox is not None

    async def end(self, words: str, *, failed: bool) -> None:
        """End the chat with these words, as the Stop button would end it: of an error that the
        Pipelines server answers, Open WebUI shows "Internal Server Error" only. That is left to it
        where the words do not arrive."""
        if self._postbox is None:
            return
        if failed:
            await self.note(words)
        await self.notify("error" if failed else "info", words)
        task_id = self._metadata.get("task_id")
        if task_id and await self._postbox.has_arrived():
            await self._webui.post(f"/api/tasks/stop/{quote(str(task_id), safe='')}")

    async def repeat(self) -> None:
        """Every status is stored, so who comes back sees the last."""

    async def call(self, title: str, words: str) -> None:
        """Reach the user on whatever page, as ``call_pages`` does; nobody outside is reached."""
        await self.notify("success", f"{title}. {words}")
        if self._elsewhere:
            told = {"done": True, "content": words, "title": title}
            await self._send(self._elsewhere.send, "chat:completion", told)

    async def _emitter(self, *, store: bool) -> Emit | None:
        return self._stored if store or self._postbox is None else self._postbox.send_soon
