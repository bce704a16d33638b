"""
title: Vestibule
author: Vestibule
version: 0.1.0
license: Apache-2.0
description: A fair, visible turn on busy models: each chat shows its place in line.
required_open_webui_version: 0.12.4

Knows what a chat of Open WebUI (0.12.4) lives through while it waits for its turn, and the words.
Does not know how turns are given: that is the admission service, reached over HTTP only. All users
of a process share one `Filter`, so nothing of a request is kept on it.
"""

import asyncio
import json
import logging
import random
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any, Literal
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, Field

log = logging.getLogger("vestibule.filter")  # Open WebUI gives this module a random name

CALL_TIMEOUT_S = 5.0
SNAPSHOT_WITHIN_S = 5.0  # a stream silent for longer at its start is held back by a proxy
SILENCE_S = 40.0  # admission pings its streams every 15 s
BEAT_S = 10.0  # admission forgets an answer that is not renewed for 30 s
STOP_WITHIN_S = 2.0  # Open WebUI's Stop button waits for us
API_POLL_S = 1.0
AGAIN_S = (1.0, 3.0)  # chosen between, so that all who wait do not ask in the same instant
ENDLESS = aiohttp.ClientTimeout(total=None)

Json = dict[str, Any]
Emit = Callable[[Json], Awaitable[None]]

WORDS = {
    "waiting": "You are {place} in line",
    "waiting_about": "You are {place} in line, {wait}",
    "admitted": "Your turn. Waited {waited}.",
    "left": "You left the line.",
    "retrying": "The line does not answer. Trying again.",
    "away": "The waiting line cannot be reached right now. Please try again in a minute.",
    "full": "The line is full. Please try again in {wait}.",
    "paused": "This model takes no new chats at the moment. Please try again later.",
    "key": "The waiting line does not accept this Open WebUI. Please tell your administrator.",
    "too_long": "No turn came up within {waited}. Please try again later.",
    "gone": "The caller hung up while waiting for a turn.",
}
"""Everything a person reads, with the next table and the three functions below it."""

ENDED_WORDS = {  # by the reason of a ticket that ended while it waited
    "abandoned": "You lost your place because nobody was waiting here. Send your message again.",
    "queue_timeout": "You waited as long as this line allows. Send your message to wait again.",
    "draft_timeout": "Your turn came and went unused. Send your message to wait again.",
    "removed": "An administrator took you out of the line.",
    "pool_closed": "This line was closed. Please try again later.",
    "left": "You left the line.",
}


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    teens = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def about(seconds: float) -> str:
    """A time to come as people say it: "less than a minute", "about 4 minutes", "about 2 hours"."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return "less than a minute"
    if minutes < 90:
        return f"about {minutes} minute{'' if minutes == 1 else 's'}"
    return f"about {round(minutes / 60)} hours"


def elapsed(seconds: float) -> str:
    """A time that passed: "42 s", "3 min 5 s", "1 h 10 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


class Ticket(BaseModel):
    """The part of admission's ticket view that matters here; times in seconds."""

    ticket_id: str = ""  # the reply to leave has none
    pool: str
    status: Literal["waiting", "draft", "active", "disconnected"]
    position: int | None = None
    estimated_wait: float | None = None
    reason: str | None = None

    def words(self) -> str:
        """The place in line, with the estimate when there is one."""
        place = ordinal(self.position or 1)
        if self.estimated_wait is None:
            return WORDS["waiting"].format(place=place)
        return WORDS["waiting_about"].format(place=place, wait=about(self.estimated_wait))


class NoTicket(Exception):
    """A call brought no ticket; one subclass for each way to go on."""


class Away(NoTicket):
    """Admission did not answer, or not with anything it should say."""


class NotServed(NoTicket):
    """This model's turns are not admission's business."""


class Unknown(NoTicket):
    """The user has no ticket, or it is over, or not in the state the call needs."""


class Refused(NoTicket):
    """The chat ends here; the message is for the user."""


def refusal(status: int, code: str, retry_after: str) -> NoTicket:
    """What an answer other than 200 means; `code` is the problem's own word for it."""
    if code in ("model_not_served", "request_pool"):
        return NotServed(code)
    if code == "queue_full":
        wait = about(float(retry_after)) if retry_after.isdigit() else "a minute"
        return Refused(WORDS["full"].format(wait=wait))
    if code == "pool_paused":
        return Refused(WORDS["paused"])
    if status in (404, 409):
        return Unknown(code)
    if status in (408, 429) or status >= 500:
        return Away(f"status {status} {code}")
    log.error("admission_refuses status=%d code=%s hint='is service_key right?'", status, code)
    return Refused(WORDS["key"])


class Admission:
    """What may be asked about one user."""

    def __init__(self, valves: "Filter.Valves", user_id: str) -> None:
        self._where: dict[str, str] = {}
        self._path = f"{valves.admission_url.rstrip('/')}/queue/{{}}/{quote(user_id, safe='')}"
        key = valves.service_key
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S),
            trust_env=True,  # proxy variables count, as for Open WebUI's own connections
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def ask(self, verb: str, **body: str | bool) -> Ticket:
        """One call; raises a kind of `NoTicket`."""
        method, url = "GET" if verb == "status" else "POST", self._path.format(verb)
        try:
            async with self._http.request(method, url, json=body, params=self._where) as reply:
                answer = json.loads(await reply.read())
            if reply.status == 200:
                ticket = Ticket.model_validate(answer)
                self._where = {"pool": ticket.pool}  # a join finds the pool of its model
                return ticket
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Away(f"{verb}: {error!r}") from error
        code = str(answer.get("code")) if isinstance(answer, dict) else ""
        raise refusal(reply.status, code, reply.headers.get("Retry-After", ""))

    async def events(self) -> AsyncGenerator[Ticket, None]:
        """The ticket at once and at each change, until the stream ends for whatever reason."""
        patience_s, event = SNAPSHOT_WITHIN_S, b""
        with suppress(aiohttp.ClientError, TimeoutError, ValueError):
            async with asyncio.timeout(patience_s):
                url = self._path.format("events")
                reply = await self._http.get(url, params=self._where, timeout=ENDLESS)
            async with reply as stream:
                stream.raise_for_status()
                while True:
                    async with asyncio.timeout(patience_s):
                        line = await stream.content.readline()
                    if not line:
                        return
                    field, _, value = line.partition(b":")
                    if field == b"event":
                        event = value.strip()
                    elif field == b"data" and event == b"ticket":
                        patience_s = SILENCE_S
                        yield Ticket.model_validate_json(value)


class Screen:
    """The one status line of a chat. The first and the last words are stored with the chat; those
    between are only shown, for storing rewrites the chat's row."""

    def __init__(self, emit: Emit | None, metadata: Json) -> None:
        self._store, self._metadata, self._shown = emit, metadata, ""

    async def show(self, words: str) -> None:
        """Show this, if it is news."""
        if words != self._shown:
            emit = await self._live() if self._shown else self._store
            self._shown = words
            await self._send(emit, words, done=False)

    async def close(self, words: str = "") -> None:
        """Leave these as the last words, or nothing; who never waited sees nothing anyway."""
        if self._shown:
            await self._send(self._store, words, done=True, hidden=not words)

    async def _live(self) -> Emit | None:
        try:
            from open_webui.socket.main import get_event_emitter

            live: Emit = await get_event_emitter(self._metadata, update_db=False)
        except (ImportError, TypeError):  # another version: every status is stored
            return self._store
        return live if self._store else None

    async def _send(self, emit: Emit | None, words: str, **flags: bool) -> None:
        try:
            if emit:
                await emit({"type": "status", "data": {"description": words, **flags}})
        except Exception:  # noqa: BLE001 - foreign code; a status not shown must not cost the turn
            log.warning("status_not_shown", exc_info=True)


_elsewhere: set[str] = set()
"""Models admission said it does not serve: they stay usable while it cannot be asked."""


class Turn:
    """One chat's way to its turn: join, wait, confirm, or give up."""

    def __init__(
        self, admission: Admission, screen: Screen, valves: "Filter.Valves", model: str, client: str
    ) -> None:
        self._admission, self._screen, self._valves = admission, screen, valves
        self._model, self._client, self._ticket_id = model, client, ""

    async def take(self, api_request: Any = None) -> bool:
        """Wait for a slot. API calls name their request: they see no status and wait less.

        False: this chat goes on without a slot. `Refused`: it ends here.
        """
        source = self._poll(api_request) if api_request else self._follow()
        max_s = self._valves.api_max_wait_s if api_request else self._valves.max_wait_s
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(max_s), aclosing(source) as news:
                ticket = await self._join()
                while not await self._goes_ahead(ticket):
                    ticket = await anext(news)
        except NotServed:
            _elsewhere.add(self._model)
            await self._screen.close()
            return False
        except asyncio.CancelledError:  # Stop
            await self._withdraw(WORDS["left"])
            raise
        except Refused:
            await self._withdraw()
            raise
        except TimeoutError:
            await self._withdraw()
            raise Refused(WORDS["too_long"].format(waited=elapsed(max_s))) from None
        except Exception as error:  # noqa: BLE001 - a fault of ours must read like an outage
            await self._withdraw()
            return self._go_without(error)
        words = WORDS["admitted"].format(waited=elapsed(time.monotonic() - began_s))
        await self._screen.close(words if self._valves.show_waited else "")
        return True

    async def _follow(self) -> AsyncGenerator[Ticket, None]:
        """Each change as it is told; being attached to the stream is presence."""
        while True:
            async with aclosing(self._admission.events()) as told:
                async for ticket in told:
                    yield ticket
            yield await self._look()
            await asyncio.sleep(random.uniform(*AGAIN_S))

    async def _poll(self, request: Any) -> AsyncGenerator[Ticket, None]:
        """The ticket every second, while the caller still listens."""
        while True:
            await asyncio.sleep(API_POLL_S)
            if await hung_up(request):
                raise Refused(WORDS["gone"])
            yield await self._look()

    async def _goes_ahead(self, ticket: Ticket) -> bool:
        """Act on what the ticket is now; True once this chat may begin."""
        ours = ticket.ticket_id == self._ticket_id
        if ticket.status == "disconnected" and ours and ticket.reason in ENDED_WORDS:
            raise Refused(ENDED_WORDS[ticket.reason])
        if ticket.status == "disconnected" or (ticket.status != "active" and not ours):
            # A session over before this chat began, or another chat of the user joined anew.
            ticket = await self._join()
        with suppress(Unknown):  # changed under our hands: the next news says what it is now
            if ticket.status == "draft":
                ticket = await self._ask("confirm", ticket_id=ticket.ticket_id)
            if ticket.status == "active":
                # An answer that is named before it starts may finish past the session's end.
                await self._ask("heartbeat", client=self._client)
                return True
        if ticket.status == "waiting":
            await self._screen.show(ticket.words())
        return False

    async def _join(self) -> Ticket:
        facts: Json = {"auto_confirm": True, "model": self._model, "client": self._client}
        try:
            ticket = await self._ask("join", **facts)
        except Unknown as error:  # a join always finds a ticket: something else answers there
            raise Away("join: not an admission service") from error
        _elsewhere.discard(self._model)
        self._ticket_id = ticket.ticket_id
        return ticket

    async def _look(self) -> Ticket:
        """The ticket now; the heartbeat is presence for whom no stream reaches."""
        with suppress(Unknown):
            return await self._ask("heartbeat")
        with suppress(Unknown):  # a ticket that ended can be read for 5 minutes
            return await self._ask("status")
        return await self._join()  # admission forgot us: its data are lost, or we were long away

    async def _ask(self, verb: str, **body: str | bool) -> Ticket:
        """Ask until there is an answer, for `away_grace_s`."""
        give_up_s = time.monotonic() + self._valves.away_grace_s
        while True:
            try:
                return await self._admission.ask(verb, **body)
            except Away as error:
                if time.monotonic() >= give_up_s:
                    raise
                log.info("admission_away error=%s", error)
            await self._screen.show(WORDS["retrying"])
            await asyncio.sleep(random.uniform(*AGAIN_S))

    async def _withdraw(self, words: str = "") -> None:
        """Leave, even while being stopped; without words nothing stays on the screen."""
        leave = self._admission.ask("leave", client=self._client)
        with suppress(NoTicket, TimeoutError):
            await asyncio.shield(asyncio.wait_for(leave, STOP_WITHIN_S))
        await self._screen.close(words)

    def _go_without(self, error: Exception) -> bool:
        """Admission is away: the administrator chose what then."""
        refuse = self._valves.when_admission_is_away == "refuse" and self._model not in _elsewhere
        log.error("admission_away refused=%s", refuse, exc_info=error)
        if refuse:
            raise Refused(WORDS["away"]) from None
        return False


_answers: set[asyncio.Task[None]] = set()
"""Keeps the tasks below alive; the event loop alone would not."""


def accompany(chat: asyncio.Task[Any], admission: Admission, client: str) -> None:
    """Renew an answer's lease until its chat's task ends, in whatever way, and then say so.

    The task's end is the one sign that comes after success, error, Stop and a lost caller alike;
    `outlet` does not. After a killed process nothing comes, and the lease lapses.
    """
    over = asyncio.Event()
    chat.add_done_callback(lambda _: over.set())
    beats = asyncio.create_task(_beat(over, admission, client))
    _answers.add(beats)
    beats.add_done_callback(_answers.discard)


async def _beat(over: asyncio.Event, admission: Admission, client: str) -> None:
    async with aclosing(admission):
        while not over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), BEAT_S)
                break
            with suppress(NoTicket):  # also when the session is over: its last answer may finish
                await admission.ask("heartbeat", client=client)
        with suppress(NoTicket):
            await admission.ask("leave", client=client)


async def served_name(body: Json, model: Json | None, request: Any) -> str:
    """The model as the gateway names it: a preset's base model, without a connection's prefix."""
    facts = model or {}
    name = str((facts.get("info") or {}).get("base_model_id") or body.get("model") or "")
    try:  # as routers/openai.py finds the connection
        from open_webui.routers.openai import get_openai_connection

        state = request.app.state
        known = (facts, state.MODELS.get(name) or {}, state.OPENAI_MODELS.get(name) or {})
        index = next(entry["urlIdx"] for entry in known if "urlIdx" in entry)
        _, _, connection = await get_openai_connection(index)
    except (ImportError, AttributeError, LookupError, TypeError, StopIteration):
        return name  # no such connection, or another version
    prefix = connection.get("prefix_id")
    return name.removeprefix(f"{prefix}.") if prefix else name


async def hung_up(request: Any) -> bool:
    """Has an API caller gone? (Of a browser's chat this would always be true.)"""
    try:
        return bool(await request.is_disconnected())
    except (RuntimeError, AttributeError):  # Open WebUI called itself: nobody can hang up
        return False


class Filter:
    """The gate: a chat passes when its user holds a slot."""

    class Valves(BaseModel):
        """What an administrator may set; the defaults refuse rather than overload."""

        admission_url: str = Field(
            default="http://127.0.0.1:8600",
            description="Where Vestibule listens, as seen by Open WebUI's server.",
        )
        service_key: str = Field(
            default="",
            description="The service_key in Vestibule's keys.json.",
            json_schema_extra={"input": {"type": "password"}},
        )
        priority: int = Field(
            default=100, description="Order among filters. High: what may refuse comes before."
        )
        show_waited: bool = Field(
            default=True, description="Leave 'Your turn. Waited 42 s.' above answers that waited."
        )
        max_wait_s: int = Field(
            default=3600, ge=1, description="How long a chat in the browser may wait, in seconds."
        )
        api_max_wait_s: int = Field(
            default=50,
            ge=1,
            description="How long an API call may wait, in seconds. It hears nothing meanwhile: "
            "stay under the time limit of the proxies on its way (often 60).",
        )
        when_admission_is_away: Literal["refuse", "pass"] = Field(
            default="refuse",
            description="Without an answer from Vestibule: refuse chats, or let them pass.",
        )
        away_grace_s: int = Field(
            default=20, ge=0, description="How long to try before that, in seconds."
        )

    def __init__(self) -> None:
        self.valves = self.Valves()

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
        valves, metadata, chat = self.valves, __metadata__ or {}, asyncio.current_task()
        user_id = str((__user__ or {}).get("id") or "")
        # A sub-agent runs inside its parent's turn; a direct connection or a task needs none.
        if not user_id or any(metadata.get(key) for key in ("internal", "direct", "task")):
            return body
        client = str(metadata.get("message_id") or uuid.uuid4())
        in_browser = bool(metadata.get("session_id"))
        screen = Screen(__event_emitter__ if in_browser else None, metadata)
        model = await served_name(body, __model__, __request__)
        async with AsyncExitStack() as stack:
            admission = await stack.enter_async_context(aclosing(Admission(valves, user_id)))
            turn = Turn(admission, screen, valves, model, client)
            if await turn.take(None if in_browser else __request__) and chat:
                accompany(chat, admission, client)
                stack.pop_all()  # it closes with the answer
        return body
