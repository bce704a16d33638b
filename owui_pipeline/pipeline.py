"""
title: Vestibule
author: Vestibule
version: 0.2.0
license: Apache-2.0
description: A fair, visible turn on busy models, for those who still run the Pipelines server.

The Pipelines filter: what the Function does, as far as a server beside Open WebUI can do it; what
it cannot do stands in docs/pipelines.md. Nothing of a request is kept on the one `Pipeline`. The
server makes a new one when any file is uploaded; chats and kept places of the old one go on there,
so it has no `on_shutdown`.
"""

import asyncio
import uuid
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any

from pydantic import Field, model_validator

from owui_pipeline.calls import Admission, Ticket
from owui_pipeline.lobby import Lobby
from owui_pipeline.remote import OpenWebUI, RemoteAttendance, RemoteScreen
from owui_pipeline.session import Answers, Endings
from owui_pipeline.turn import Asker, Kept, NotNow, Rules, Turn, kind_of
from owui_pipeline.valves import SharedValves, priority_of
from owui_pipeline.webui import Json, browser_language
from owui_pipeline.words import Words, choose, own_texts

OPEN_AFTER_S = 300.0
"""Open WebUI asks a filter with aiohttp's own limit, and then goes on without it (0.12.4,
routers/pipelines.py)."""
MAX_WAIT_S = 270
GIVE_UP_S = 275.0  # since it asked; leaving and saying so take 18 s at most
ANSWER_S = 3600.0  # no answer is renewed for longer, whatever Open WebUI says
UNSEEN_ANSWER_S = 60.0  # the way to the gateway, which renews an answer while it runs there


class Stopped(Exception):
    """The chat is over in Open WebUI: nobody hears what is answered."""


class Pipeline:
    """The gate: a chat passes when its user holds a slot."""

    class Valves(SharedValves):
        """What an administrator may set."""

        pipelines: list[str] = Field(
            default=["*"], description="The models that need a turn; * for all."
        )
        open_webui_url: str = Field(
            default="http://127.0.0.1:8080",
            description="Where Open WebUI listens, as seen by this server.",
        )
        open_webui_key: str = Field(
            default="",
            description="An API key of an Open WebUI administrator. Without it this filter holds"
            " no chat: all wait at the gateway.",
        )
        max_wait_s: int = Field(
            default=240,
            ge=1,
            le=MAX_WAIT_S,
            description="How long a chat waits, in seconds. Then its place is kept: the chat says"
            " when the turn comes, and the next message takes it. At most 270: after 300 Open"
            " WebUI goes on without asking.",
        )

        @model_validator(mode="before")
        @classmethod
        def _none_is_the_default(cls, values: Any) -> Any:
            """Open WebUI's page writes null for a valve that is set to "None"."""
            if not isinstance(values, dict):
                return values
            return {name: value for name, value in values.items() if value is not None}

    def __init__(self) -> None:
        self.type, self.id, self.name = "filter", "vestibule", "Vestibule"
        self.valves = self.Valves()
        self._webui = OpenWebUI()
        self._lobby = Lobby(attendance=RemoteAttendance(self._webui))
        self._answers, self._endings = Answers(), Endings(self._lobby.returns)
        self._ends: set[asyncio.Task[None]] = set()  # of answers, waited for

    async def on_startup(self) -> None:
        """The valves were read."""
        await self.on_valves_updated()

    async def on_valves_updated(self) -> None:
        """They were changed: who waits is told by the new address."""
        self._webui.configure(self.valves.open_webui_url, self.valves.open_webui_key)

    async def inlet(self, body: Json, user: Json | None = None) -> Json:
        """Hold the chat until its turn. What it raises, Open WebUI does not show."""
        asked_s = asyncio.get_running_loop().time()
        valves, metadata = self.valves, body.get("metadata") or {}
        user_id = str((user or {}).get("id") or "")
        if not user_id or any(metadata.get(key) for key in ("internal", "direct", "task")):
            return body
        screen = RemoteScreen(self._webui, metadata, self._lobby.attendance)
        if body.get("stream") and not screen.is_reached:
            return body  # it waits at the gateway, which tells the place in the answer's stream
        known = metadata.get("model") or {}
        model = await self._webui.served_name(str(body["model"]), known, valves.admission_url)
        if model is None:
            return body
        asker = Asker(
            user_id=user_id,
            model=model,
            client=str(metadata.get("message_id") or uuid.uuid4()),
            kind=kind_of(metadata),
            priority=await priority_of(user or {}, valves.priorities, self._webui.groups),
        )
        language = choose(valves.language, browser_language(metadata, None))
        words = Words(language, own_texts(valves.texts)[language])
        try:
            async with asyncio.timeout_at(asked_s + GIVE_UP_S):
                await self._take(valves, asker, screen, words, str(metadata.get("task_id") or ""))
        except (NotNow, TimeoutError) as error:
            await screen.end(str(error) or words.say("away"), failed=not isinstance(error, Kept))
            raise
        return body

    async def outlet(self, body: Json, user: Json | None = None) -> Json:
        """The answer is whole: titles and follow-ups that come after need no turn."""
        if answer := self._answers.of(str(body.get("id") or "")):
            answer.end()
        return body

    async def _take(
        self, valves: "Pipeline.Valves", asker: Asker, screen: RemoteScreen, words: Words, task: str
    ) -> None:
        rules = Rules(
            max_wait_s=valves.api_max_wait_s if asker.kind == "api" else valves.max_wait_s,
            away_grace_s=valves.away_grace_s,
            refuse_when_away=valves.when_admission_is_away == "refuse",
            show_waited=valves.show_waited,
        )

        def connect() -> Admission:
            return Admission(valves.admission_url, valves.service_key, asker.user_id)

        async with AsyncExitStack() as stack:
            admission = await stack.enter_async_context(aclosing(connect()))
            gone = asyncio.create_task(self._webui.task_ends(task))
            stack.callback(gone.cancel)
            turn = Turn(asker, admission, screen, words, rules, self._lobby)
            try:
                session = await self._unless_stopped(turn, gone)
            except Kept:
                self._lobby.returns.keep(asker.user_id, admission, screen, words)
                stack.pop_all()  # it closes when the user is back
                gone.cancel()
                raise
            if session is None:
                return
            if valves.show_time_left and asker.kind == "page":
                await self._endings.warn(session, screen, words)
                self._endings.watch(session, screen, words, connect)
            if self._answers.of(asker.client) is None:
                end = asyncio.create_task(self._until_answered(task, gone))
                self._ends.add(end)
                end.add_done_callback(self._ends.discard)
                self._answers.begin(end, admission, asker.client)
                stack.pop_all()  # it closes with the answer

    async def _unless_stopped(self, turn: Turn, gone: asyncio.Task[None]) -> Ticket | None:
        """Take the turn; Stop does not reach a filter here, so it is looked for. ``gone``: the one
        watch of the chat's task, for its wait and its answer: a second would not know that it was
        there before."""
        taking: asyncio.Task[Ticket | None] = asyncio.create_task(turn.take())
        try:
            await asyncio.wait({taking, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not taking.done():
                taking.cancel()
                await asyncio.wait({taking})  # it leaves the line and says so
        if taking.cancelled():
            raise Stopped
        return taking.result()

    async def _until_answered(self, task: str, gone: asyncio.Task[None]) -> None:
        """No end of an answer but a good one is told here; that its task is gone is looked for."""
        can_look = task and await self._webui.tasks() is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S if can_look else UNSEEN_ANSWER_S):
                await gone
