"""
title: Vestibule
author: Vestibule
version: 0.2.0
license: Apache-2.0
description: A fair, visible turn on busy models: each chat shows its place in line.
required_open_webui_version: 0.12.4

The filter Function: which chats need a turn, who asks for it, and what an administrator may set.
All users of a process share one `Filter`, so nothing of a request is kept on it.
"""

import asyncio
import uuid
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any

from pydantic import BaseModel, Field

from owui_pipeline.calls import Admission
from owui_pipeline.lobby import Lobby
from owui_pipeline.screen import Screen, tidy_up
from owui_pipeline.session import Answers, Endings
from owui_pipeline.turn import Asker, Kept, Rules, Turn, kind_of
from owui_pipeline.valves import Language, SharedValves, priority_of
from owui_pipeline.webui import Emit, Json, browser_language, group_names, served_name
from owui_pipeline.words import Words, choose, own_texts

CLIENT = "vestibule"  # in a chat's metadata: its name for admission, the same in every hook


def spoken(valves: "Filter.Valves", user: Json, metadata: Json, request: Any) -> Words:
    """The words for this user: as they chose, else as the administrator did, else as the page."""
    own = getattr(user.get("valves"), "language", None)
    language = choose(own, valves.language, browser_language(metadata, request))
    return Words(language, own_texts(valves.texts)[language])


class Filter:
    """The gate: a chat passes when its user holds a slot."""

    class Valves(SharedValves):
        """What an administrator may set."""

        max_wait_s: int = Field(
            default=1800,
            ge=1,
            description="How long a chat waits on the page, in seconds. Then its place is kept:"
            " the user is told when the turn comes, and the next message takes it.",
        )

    class UserValves(BaseModel):
        """What each user may set."""

        language: Language = Field(default="auto", description="The language of its messages.")
        keep_place: bool = Field(
            default=False,
            description="Keep my place when I close the page while I wait. When my turn comes I"
            " have a few minutes to come back and send a message.",
        )

    def __init__(self) -> None:
        self.valves = self.Valves()
        self._lobby, self._answers = Lobby(), Answers()
        self._endings = Endings(self._lobby.returns)
        self._tidying: asyncio.Task[None] | None = None
        with suppress(RuntimeError):  # no loop: somebody only looks at this file
            self._tidying = asyncio.get_running_loop().create_task(tidy_up())

    async def inlet(
        self,
        body: Json,
        __user__: Json | None = None,
        __metadata__: Json | None = None,
        __request__: Any = None,
        __model__: Json | None = None,
        __event_emitter__: Emit | None = None,
    ) -> Json:
        """Hold the chat until its turn; raises an Exception whose text is for the user."""
        valves, user, metadata = self.valves, __user__ or {}, __metadata__ or {}
        # A sub-agent runs inside its parent's turn; a direct connection or a task needs none.
        if not user.get("id") or any(metadata.get(key) for key in ("internal", "direct", "task")):
            return body
        model = await served_name(body, __model__, __request__, valves.admission_url)
        if model is None:
            return body
        known = metadata.get(CLIENT) or metadata.get("message_id")  # an API call's has no id
        metadata[CLIENT] = client = str(known or uuid.uuid4())
        kind = kind_of(metadata)
        emit = __event_emitter__ if kind != "api" else None
        asker = Asker(
            user_id=str(user["id"]),
            model=model,
            client=client,
            kind=kind,
            priority=await priority_of(user, valves.priorities, group_names),
            keeps_place=getattr(user.get("valves"), "keep_place", False),
            api_request=__request__,
        )
        words = spoken(valves, user, metadata, __request__)
        screen = Screen(emit, metadata, self._lobby.attendance, words.say("cut_short"))
        await self._take(valves, asker, screen, words)
        return body

    async def request(
        self,
        body: Json,
        __user__: Json | None = None,
        __metadata__: Json | None = None,
        __request__: Any = None,
        __model__: Json | None = None,
        __event_emitter__: Emit | None = None,
    ) -> Json:
        """Before each request to the model: one more round of tools may come after the session's
        end and its grace, and then waits for a turn as a new message would. A sub-agent's waits at
        the gateway."""
        if (__metadata__ or {}).get("internal"):
            if parent := self._answers.parent():
                await parent.step_aside()
            return body
        answer = self._answers.of(str((__metadata__ or {}).get(CLIENT) or ""))
        if answer is None or await answer.is_held():
            return body
        with answer.waiting():
            return await self.inlet(
                body, __user__, __metadata__, __request__, __model__, __event_emitter__
            )

    async def outlet(self, body: Json, __metadata__: Json | None = None) -> Json:
        """The answer is whole: titles and follow-ups that come after need no turn."""
        if answer := self._answers.of(str((__metadata__ or {}).get(CLIENT) or "")):
            answer.end()
        return body

    async def _take(
        self, valves: "Filter.Valves", asker: Asker, screen: Screen, words: Words
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
            try:
                session = await Turn(asker, admission, screen, words, rules, self._lobby).take()
            except Kept as kept:
                self._lobby.returns.keep(asker.user_id, admission, screen, words)
                stack.pop_all()  # it closes when the user is back
                await screen.notify("info", str(kept))
                # As Stop ends a chat: an error would be shown in red (main.py, `process_chat`).
                raise asyncio.CancelledError from None
            chat = asyncio.current_task()
            if session is None or chat is None:
                return
            if self._answers.of(asker.client) is None:
                self._answers.begin(chat, admission, asker.client)
                stack.pop_all()  # it closes with the answer
            if valves.show_time_left and asker.kind == "page":
                await self._endings.warn(session, screen, words)
                self._endings.watch(session, screen, words, connect)
