"""What the plugin knows of Open WebUI's inside (0.12.4), each import at the moment it is needed.

Another version may lack any of it: then the answer is the one with which a chat goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
Emit = Callable[[Json], Awaitable[None]]

OUR_HEADER = "X-Vestibule-Message"  # in the settings of each connection that leads to a gateway
SCAN_S = 2.0  # all who wait in this process share one look at who is connected
MISSING_S = 0.2  # who is not found may have arrived since
NEWEST = 2000  # answers that are looked at: mostly more than begin within the longest wait
AHEAD_S = 86_400  # by how much a browser's clock may be fast
OTHER_VERSION = (ImportError, AttributeError, LookupError, TypeError, ValueError)

webui_log = logging.getLogger("vestibule.webui")


class Attendance:
    """Which sockets each user has open, in all processes of this Open WebUI.

    A user without one has closed the page: nothing else tells (a closed tab cancels no chat, and a
    reloaded one comes back with another socket; socket/main.py, `disconnect`).
    """

    def __init__(self) -> None:
        self._sockets: dict[str, dict[str, frozenset[str]]] | None = {}
        self._seen_s = float("-inf")
        self._looking = asyncio.Lock()

    async def sockets(self, user_id: str, *, seen: bool) -> frozenset[str] | None:
        """The user's sockets, of at most SCAN_S ago; None when that cannot be known.

        ``seen``: whether there was one before; a page that was closed is worth no scan of its own.
        """
        known = seen or user_id in (self._sockets or ())
        everybody = await self._everybody(SCAN_S if known else MISSING_S)
        return None if everybody is None else frozenset(everybody.get(user_id, {}))

    async def showing(self, user_id: str, chat_id: str) -> frozenset[str] | None:
        """Which of the user's sockets show this chat, as of SCAN_S ago; None when that cannot be
        known. A page that goes to another chat leaves this one (socket/main.py, `chat_events`)."""
        everybody = await self._everybody(SCAN_S)
        if everybody is None:
            return None
        sockets = everybody.get(user_id, {})
        return frozenset(sid for sid, chats in sockets.items() if chat_id in chats)

    async def _everybody(self, age_s: float) -> dict[str, dict[str, frozenset[str]]] | None:
        """All sockets, as they were at most ``age_s`` ago."""
        loop = asyncio.get_running_loop()
        async with self._looking:
            if loop.time() - self._seen_s >= age_s:
                try:
                    # With Redis this reads over a connection that blocks (open-webui #28172).
                    self._sockets = await asyncio.to_thread(_session_pool)
                except Exception:  # noqa: BLE001 - foreign code: unknown is not absent
                    webui_log.warning("sessions_unknown", exc_info=True)
                    self._sockets = None
                self._seen_s = loop.time()
        return self._sockets


def _session_pool() -> dict[str, dict[str, frozenset[str]]]:
    """The open chats of each socket of each user."""
    from open_webui.socket.main import get_session_pool_batches

    sockets: dict[str, dict[str, frozenset[str]]] = {}
    for batch in get_session_pool_batches():
        for sid, session in list(batch):
            if session:
                open_chats = frozenset(session.get("chat_ids") or ())
                sockets.setdefault(session["id"], {})[sid] = open_chats
    return sockets


async def live_emitter(metadata: Json, stored: Emit | None) -> Emit | None:
    """An emitter that shows and does not store: storing a status rewrites the chat's row."""
    if stored is None:
        return None
    try:
        from open_webui.socket.main import get_event_emitter

        live: Emit | None = await get_event_emitter(metadata, update_db=False)
    except OTHER_VERSION:  # every status is stored
        return stored
    return live or stored


async def call_pages(metadata: Json, title: str, text: str) -> None:
    """Tell it where the user does not look at this chat: on pages that show another, as a toast
    that leads here, and for pages in the background by the browser's own notification, if the user
    allowed those.

    It names no message, so it changes none and stores nothing (fe: routes/+layout.svelte,
    `chatEventHandler`; Chat.svelte looks for the message first). Of a temporary chat or a channel
    nothing is told: the toast leads to /c/…, where only a saved chat is found.
    """
    if ":" in str(metadata.get("chat_id")):  # utils/chat_id.py, `NON_SAVED_CHAT_ID_PREFIXES`
        return
    told = {"done": True, "content": text, "title": title}
    try:
        from open_webui.socket.main import get_event_emitter

        emit = await get_event_emitter({**metadata, "message_id": None}, update_db=False)
        if emit:
            await emit({"type": "chat:completion", "data": told})
    except Exception as error:  # noqa: BLE001 - foreign code; the chat itself tells it, too
        webui_log.info("not_called error=%s", type(error).__name__)


async def left_open(sign: str) -> list[tuple[Json, Json]]:
    """The answers, among the newest, that no process works at any more and whose last status is
    still open and has this key: each as an emitter's metadata, and that status.

    Nothing else closes them: a process that dies calls nobody (socket/main.py, tasks.py).
    """
    found: list[tuple[Json, Json]] = []
    try:
        from open_webui.env import UVICORN_WORKERS, WEBSOCKET_MANAGER
        from open_webui.main import app

        redis = app.state.redis
        if redis is None and (UVICORN_WORKERS > 1 or WEBSOCKET_MANAGER == "redis"):
            return []  # each process knows its own tasks only
        for key, chat_id, user_id, statuses, meta in await _newest_answers():
            match statuses:
                case [*_, {"done": False} as last] if sign in last:
                    if not await _is_worked_at(redis, chat_id, meta):
                        message_id = key.removeprefix(f"{chat_id}-")
                        whose = {"chat_id": chat_id, "message_id": message_id, "user_id": user_id}
                        found.append((whose, last))
    except Exception as error:  # noqa: BLE001 - foreign code; the text just stays
        webui_log.info("not_looked_after error=%s", type(error).__name__)
    return found


async def _newest_answers() -> Sequence[Any]:
    """At most NEWEST rows: id, chat, user, statuses, meta.

    ``created_at`` is what a browser or an import says, in seconds since 1970. One in milliseconds,
    or of more than a day ahead, is wrong (models/chat_messages.py, `_normalize_timestamp`), and
    would come before all others.
    """
    from open_webui.internal.db import get_async_db_context
    from open_webui.models.chat_messages import ChatMessage
    from sqlalchemy import extract, func, select

    made = ChatMessage.created_at
    answers = (
        select(
            ChatMessage.id,
            ChatMessage.chat_id,
            ChatMessage.user_id,
            ChatMessage.status_history,
            ChatMessage.meta,
        )
        .where(ChatMessage.role == "assistant", made <= extract("epoch", func.now()) + AHEAD_S)
        .order_by(made.desc())
        .limit(NEWEST)
    )
    async with get_async_db_context() as db:
        rows: Sequence[Any] = (await db.execute(answers)).all()
    return rows


async def _is_worked_at(redis: Any, chat_id: str, meta: Any) -> bool:
    """Whether an answer's task runs, by the id that it has in ``meta`` (main.py, "Fan out"); of one
    without an id, whether any task of its chat does."""
    from open_webui.tasks import list_task_ids_by_item_id

    running = await list_task_ids_by_item_id(redis, chat_id)
    match meta:
        case {"task_id": str(task)}:
            return task in running
    return bool(running)


async def emitter_of(metadata: Json) -> Emit | None:
    """What shows events in this chat message, and stores them."""
    try:
        from open_webui.socket.main import get_event_emitter

        emit: Emit | None = await get_event_emitter(metadata)
    except OTHER_VERSION:
        return None
    return emit


async def served_name(body: Json, model: Json | None, request: Any, admission: str) -> str | None:
    """The model as the gateway names it: a preset's base model, without a connection's prefix.

    None: another server answers this model. ``admission``: Vestibule's address.
    """
    facts = model or {}
    name = str((facts.get("info") or {}).get("base_model_id") or body.get("model") or "")
    try:  # as routers/openai.py finds the connection
        from open_webui.routers.openai import get_openai_runtime_config

        state = request.app.state
        known = [
            entry
            for entry in (facts, state.MODELS.get(name), state.OPENAI_MODELS.get(name))
            if entry
        ]
        if facts.get("pipe") or facts.get("owned_by") == "ollama":
            return None
        index = next((entry["urlIdx"] for entry in known if "urlIdx" in entry), None)
        _, urls, _, settings = await get_openai_runtime_config()
        return name_at_gateway(name, index, urls, settings, admission)
    except OTHER_VERSION:
        return name


def name_at_gateway(
    name: str, index: int | None, urls: list[str], settings: Json, admission: str
) -> str | None:
    """A base model's name without its connection's prefix; None: the connection is not ours.

    ``index``: its connection among ``urls``; None when that is not known: then it is one of ours
    whose prefix the name has. Where no connection is known as ours, admission decides by the name.
    """
    # Older versions filed settings under the address.
    each = [settings.get(str(i)) or settings.get(url) or {} for i, url in enumerate(urls)]
    ours = [_leads_to_us(url, own, admission) for url, own in zip(urls, each, strict=True)]
    if index is not None and any(ours) and not ours[index]:
        return None
    for i in [index] if index is not None else range(len(urls)):
        prefix = each[i].get("prefix_id")
        if prefix and (ours[i] or not any(ours)) and name.startswith(f"{prefix}."):
            return name.removeprefix(f"{prefix}.")
    return name


def _leads_to_us(url: str, settings: Json, admission: str) -> bool:
    """By the header that the installer sets, or by the address where it was set by hand."""
    headers = {name.lower() for name in settings.get("headers") or {}}
    return OUR_HEADER.lower() in headers or urlsplit(url)[:2] == urlsplit(admission)[:2]


async def group_names(user_id: str) -> list[str]:
    """The groups the user is in."""
    try:
        from open_webui.models.groups import Groups

        return [group.name for group in await Groups.get_groups_by_member_id(user_id)]
    except Exception:  # noqa: BLE001 - foreign code; a class is not worth the turn
        webui_log.warning("groups_unknown", exc_info=True)
        return []


async def hung_up(request: Any) -> bool:
    """Has an API caller gone? (Of a browser's chat this would always be true.)"""
    try:
        return bool(await request.is_disconnected())
    except (RuntimeError, AttributeError):  # Open WebUI called itself: nobody can hang up
        return False


async def push_outside(user_id: str, title: str, text: str) -> None:
    """Send it where the user has Open WebUI's own notifications sent (a webhook), if anywhere."""
    try:
        from open_webui.models.config import Config
        from open_webui.utils.notifications import notify_target

        if await Config.get("ui.enable_user_webhooks"):
            await notify_target(user_id, text, title=title)
    except Exception as error:  # noqa: BLE001 - foreign code; most users have none
        webui_log.info("not_pushed error=%s", type(error).__name__)


def browser_language(metadata: Json, request: Any) -> str:
    """The language the page is set to, then the browser's, as one list; "" when none is known."""
    chosen = (metadata.get("variables") or {}).get("{{USER_LANGUAGE}}")
    try:
        header = request.headers.get("accept-language")
    except (AttributeError, KeyError):
        header = None
    return ",".join(str(known) for known in (chosen, header) if known)
