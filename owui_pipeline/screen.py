"""The one status line of a chat, and where else a person is told something."""

import asyncio
import logging

from owui_pipeline.webui import (
    Attendance,
    Emit,
    Json,
    call_pages,
    emitter_of,
    left_open,
    live_emitter,
    push_outside,
)

CUT_SHORT = "cut_short"
"""In a status of who waits: the words for its place if the process dies that keeps it true."""
TIDY_AFTER_S = (0.0, 5.0, 25.0, 300.0)  # each after the one before

screen_log = logging.getLogger("vestibule.screen")


class Screen:
    """What one chat message shows. The first and the last words are stored with the chat; those
    between are only shown, for storing rewrites the chat's row."""

    def __init__(
        self, emit: Emit | None, metadata: Json, attendance: Attendance, cut_short: str = ""
    ) -> None:
        """``emit``: None for a call that nobody looks at; ``cut_short``: see CUT_SHORT."""
        self.user_id = str(metadata.get("user_id"))
        self.shown = ""
        self._stored = emit
        self._metadata = metadata
        self._attendance = attendance
        self._cut_short = {CUT_SHORT: cut_short} if cut_short else {}
        self._chat_id = str(metadata.get("chat_id"))
        # A channel shows no status; its message has a text, which the answer will replace
        # (socket/main.py, `_make_channel_emitter`).
        self._is_channel = self._chat_id.startswith("channel:")
        self._kept = ""  # what is stored
        self._done = False
        self._pages: frozenset[str] | None = None  # that showed this chat at the last look

    async def show(self, words: str) -> None:
        """Show this, if it is news."""
        if words != self.shown:
            first, self.shown, self._done = not self.shown, words, False
            await self._status(await self._emitter(store=first), words, done=False)

    async def look(self) -> None:
        """Say it again to pages that show this chat since the last look: they know only what is
        stored. To be called every few seconds."""
        pages = await self._attendance.showing(self.user_id, self._chat_id)
        if pages is None:
            return
        if self._pages is not None and pages - self._pages and self.shown != self._kept:
            await self.repeat()
        self._pages = pages

    async def repeat(self) -> None:
        """Store what is shown, and show it again."""
        if self.shown:
            await self._status(self._stored, self.shown, done=self._done)

    async def close(self, words: str = "") -> None:
        """Leave these as the last words, or nothing; who never waited sees nothing anyway."""
        if self.shown:
            self.shown = ""
            await self._status(self._stored, words, done=True, hidden=not words)

    async def note(self, words: str, *, store: bool = True) -> None:
        """Say this, if it is news, above an answer that is there, or in a chat that does not wait
        any more."""
        if words != self.shown:
            self.shown, self._done = words, True
            await self._status(await self._emitter(store=store), words, done=True)

    async def notify(self, kind: str, words: str) -> None:
        """A toast on the user's pages that show this chat; ``kind``: info, success, warning."""
        await self._send(self._stored, "notification", {"type": kind, "content": words})

    async def call(self, title: str, words: str) -> None:
        """Reach the user wherever they are: this chat, another page, or outside."""
        await self.notify("success", f"{title}. {words}")
        await call_pages(self._metadata, title, words)
        await push_outside(self.user_id, title, words)

    async def _emitter(self, *, store: bool) -> Emit | None:
        if store or self._is_channel:
            return self._stored
        return await live_emitter(self._metadata, self._stored)

    async def _status(
        self, emit: Emit | None, words: str, *, done: bool, hidden: bool = False
    ) -> None:
        if emit is self._stored:
            self._kept = words
        if not self._is_channel:
            status = {"description": words, "done": done, "hidden": hidden}
            status |= {} if done else self._cut_short
            await self._send(emit, "status", status)
        elif words and not done:
            await self._send(emit, "chat:completion", {"content": words})

    async def _send(self, emit: Emit | None, kind: str, data: Json) -> None:
        try:
            if emit:
                await emit({"type": kind, "data": data})
        except Exception:  # noqa: BLE001 - foreign code; what is not shown must not cost the turn
            screen_log.warning("not_shown kind=%s", kind, exc_info=True)


async def tidy_up() -> None:
    """In chats whose wait ended with a process of Open WebUI, say so: they would show a place for
    ever that nobody holds. To be called when a process begins.

    Done again for a while: pages come back meanwhile, and bring what they showed. With Redis the
    tasks of a dead process count as running for 300 s (env.py, `REDIS_TASK_TTL`).
    """
    for pause_s in TIDY_AFTER_S:
        await asyncio.sleep(pause_s)
        for metadata, status in await left_open(CUT_SHORT):
            screen = Screen(await emitter_of(metadata), metadata, Attendance())
            await screen.note(str(status[CUT_SHORT]))
