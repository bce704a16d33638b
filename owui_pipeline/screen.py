"""The one status line of a chat, and where else a person is told something."""

import logging

from owui_pipeline.webui import Attendance, Emit, Json, live_emitter, push_outside

screen_log = logging.getLogger("vestibule.screen")


class Screen:
    """What one chat message shows. The first and the last words are stored with the chat; those
    between are only shown, for storing rewrites the chat's row."""

    def __init__(self, emit: Emit | None, metadata: Json, attendance: Attendance) -> None:
        """``emit``: None for a call that nobody looks at."""
        self._stored, self._metadata, self._attendance = emit, metadata, attendance
        self.shown = ""
        # A channel shows no status; its message has a text, which the answer will replace
        # (socket/main.py, `_make_channel_emitter`).
        self._is_channel = str(metadata.get("chat_id") or "").startswith("channel:")

    async def show(self, words: str) -> None:
        """Show this, if it is news."""
        if words != self.shown:
            first, self.shown = not self.shown, words
            await self._status(await self._emitter(store=first), words, done=False)

    async def repeat(self) -> None:
        """Say it again for a page that was just opened, which knows only what is stored."""
        if self.shown:
            await self._status(self._stored, self.shown, done=False)

    async def close(self, words: str = "") -> None:
        """Leave these as the last words, or nothing; who never waited sees nothing anyway."""
        if self.shown:
            self.shown = ""
            await self._status(self._stored, words, done=True, hidden=not words)

    async def clear(self) -> None:
        """Show nothing any more: what was said last is no longer true."""
        await self._status(self._stored, "", done=True, hidden=True)

    async def note(self, words: str, *, store: bool = True) -> None:
        """Say this above an answer that is there, or in a chat that does not wait any more."""
        await self._status(await self._emitter(store=store), words, done=True)

    async def notify(self, kind: str, words: str) -> None:
        """A toast on the user's pages that show this chat; ``kind``: info, success, warning."""
        await self._send(self._stored, "notification", {"type": kind, "content": words})

    async def call(self, title: str, words: str) -> None:
        """Reach the user wherever they are: this chat, another page, or outside."""
        user_id, chat_id = str(self._metadata.get("user_id")), str(self._metadata.get("chat_id"))
        # Of a temporary chat nobody but its own page knows.
        if chat_id.startswith("temporary:") or await self._attendance.has_open(user_id, chat_id):
            await self.notify("success", words)
        else:
            # Pages that show another chat show this as a toast that leads here; it stores nothing
            # (fe: routes/+layout.svelte, `chatEventHandler`).
            live = await self._emitter(store=False)
            told = {"done": True, "content": words, "title": title}
            await self._send(live, "chat:completion", told)
        await push_outside(user_id, title, words)

    async def _emitter(self, *, store: bool) -> Emit | None:
        if store or self._is_channel:
            return self._stored
        return await live_emitter(self._metadata, self._stored)

    async def _status(
        self, emit: Emit | None, words: str, *, done: bool, hidden: bool = False
    ) -> None:
        if not self._is_channel:
            status = {"description": words, "done": done, "hidden": hidden}
            await self._send(emit, "status", status)
        elif words and not done:
            await self._send(emit, "chat:completion", {"content": words})

    async def _send(self, emit: Emit | None, kind: str, data: Json) -> None:
        try:
            if emit:
                await emit({"type": kind, "data": data})
        except Exception:  # noqa: BLE001 - foreign code; what is not shown must not cost the turn
            screen_log.warning("not_shown kind=%s", kind, exc_info=True)
