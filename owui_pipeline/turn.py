"""One chat's way to its turn: join, wait, confirm, or give up.

Knows what a ticket may do while a chat waits, and who may be waiting: a page that can be closed, an
API call that can hang up, or something Open WebUI runs by itself. How news reach a person is
``Screen``'s, what is said is ``Words``'.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from owui_pipeline.calls import (
    AGAIN_S,
    COMING_BACK,
    Admission,
    Away,
    NoSuchClass,
    NoTicket,
    NotServed,
    Refused,
    Ticket,
    Unknown,
)
from owui_pipeline.lobby import Lobby
from owui_pipeline.screen import Screen
from owui_pipeline.webui import hung_up
from owui_pipeline.words import Words

turn_log = logging.getLogger("vestibule.turn")

STOP_WITHIN_S = 2.0  # Open WebUI's Stop button waits for us: for each step of leaving
LOOKS = 5  # at who is there, for each one at the ticket of somebody who is not
ABSENT_S = 60.0  # as admission's own grace (VESTIBULE_PRESENCE_GRACE): a reload is no absence
ENDED = ("abandoned", "queue_timeout", "draft_timeout", "idle", "removed", "pool_closed", "left")
"""Why a ticket may end while its chat waits; each is a key of `Words` with "ended_" before it."""
BEFORE = {"session_timeout": "over_then", "idle": "idle_then"}
"""How the last session ended, where that explains why there is a line again."""


Outcome = TypeVar("Outcome")


class NotNow(Exception):
    """The chat ends here; the text is for the user. Open WebUI shows it, API callers get a 400."""


class Kept(NotNow):
    """The same, and the place is kept for who comes back: no failure."""


@dataclass(frozen=True)
class Asker:
    """Who asks for a turn.

    ``client``: the chat message's id. ``kind``: "page", "api", or "alone" for what Open WebUI runs
    by itself, with nobody to go away. ``keeps_place``: a page that was closed keeps its place.
    """

    user_id: str
    model: str
    client: str
    kind: Literal["page", "api", "alone"]
    priority: str | None = None
    keeps_place: bool = False
    api_request: Any = None


def kind_of(metadata: dict[str, Any]) -> Literal["page", "api", "alone"]:
    """Who may go away while this chat waits: a page, an API call, or nobody (an automation, a
    channel: their session names what runs them and no socket).

    Without a session and a chat Open WebUI answers in the request itself (main.py,
    `chat_completion`).
    """
    session = str(metadata.get("session_id") or "")
    if not (session and metadata.get("chat_id")):
        return "api"
    return "alone" if ":" in session or metadata.get("automation_id") else "page"


@dataclass(frozen=True)
class Rules:
    """What the administrator decided; times in seconds."""

    max_wait_s: float
    away_grace_s: float
    refuse_when_away: bool
    show_waited: bool


class Turn:
    """One try to get a turn."""

    def __init__(
        self,
        asker: Asker,
        admission: Admission,
        screen: Screen,
        words: Words,
        rules: Rules,
        lobby: Lobby,
    ) -> None:
        self._asker, self._admission, self._screen = asker, admission, screen
        self._words, self._rules, self._lobby = words, rules, lobby
        self._clients = [asker.client]  # under what names it may have joined
        self._ticket_id = ""
        self._named_in = ""  # the session in which this answer is named
        self._kept_in = ""  # the ticket that need not be watched
        self._before = ""  # a text around the place, if the last session explains the line
        self._began_at: int | None = None  # the place in line when it joined
        self._priority = asker.priority
        self._sockets: frozenset[str] | None = None
        self._absent_since_s: float | None = None

    async def take(self) -> Ticket | None:
        """Wait for a slot; the session it is in. None: this chat goes on without one.

        Raises:
            NotNow: it ends here.
        """
        began_s = _now_s()
        try:
            ticket = await self._wait()
            waited = self._words.elapsed(_now_s() - began_s)
            last_words = self._words.say("admitted", waited=waited)
            await _unbroken(self._screen.close(last_words if self._rules.show_waited else ""))
            return ticket
        except NotServed:
            self._lobby.models.learn_elsewhere(self._asker.model)
            await _unbroken(self._screen.close())
            return None
        except asyncio.CancelledError:  # Stop
            await self._withdraw(self._words.say("left"))
            raise
        except Refused as error:
            await self._withdraw()
            raise NotNow(self._text(error)) from None
        except NotNow:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours must read like an outage
            await self._withdraw()
            self._may_go_without(error)
            return None

    async def _wait(self) -> Ticket:
        limit = asyncio.timeout(self._rules.max_wait_s)
        try:
            async with limit, aclosing(self._follow()) as news:
                ticket = await self._enter()
                while not (session := await self._goes_ahead(ticket)):
                    ticket = await anext(news)
                return session
        except TimeoutError:
            if not limit.expired():
                raise
        return await self._stop_watching()

    # --- where news come from ------------------------------------------------------------------

    async def _follow(self) -> AsyncGenerator[Ticket, None]:
        """Each change as it is told; being attached to the stream is presence."""
        while True:
            if await self._is_there():
                async with aclosing(self._admission.events()) as told:
                    async for ticket in told:
                        if not await self._is_there():
                            break
                        if ticket:
                            yield ticket
            yield await self._look()
            for _ in range(LOOKS):
                await asyncio.sleep(random.uniform(*AGAIN_S))
                if await self._is_there():
                    break

    async def _look(self) -> Ticket:
        """The ticket now. The heartbeat is presence for whom no stream reaches."""
        if await self._is_there():
            with suppress(Unknown):
                return await self._ask("heartbeat")
        with suppress(Unknown):  # a ticket that ended can be read for 5 minutes
            return await self._ask("status")
        if not await self._is_there():
            raise Refused("ended_abandoned")
        return await self._join()  # admission forgot us: its data are lost, or we were long away

    async def _is_there(self) -> bool:
        """Whether anybody would see the answer. A page that was opened anew is told at once.

        Only who was seen once can be missed: other apps may talk to Open WebUI without a socket.
        """
        if self._asker.kind == "api" and await hung_up(self._asker.api_request):
            raise Refused("gone")
        if self._asker.kind != "page":
            return True
        seen = self._sockets is not None
        sockets = await self._lobby.attendance.sockets(self._asker.user_id, seen=seen)
        if sockets is None or not (sockets or seen):
            return True
        self._sockets = sockets
        await self._screen.look()
        if sockets:
            self._absent_since_s = None
        elif self._absent_since_s is None:
            self._absent_since_s = _now_s()
        return bool(sockets)

    # --- what to do with them ------------------------------------------------------------------

    async def _enter(self) -> Ticket:
        """The session the user is in, or a place in line."""
        known = self._lobby.models.pool(self._asker.model)
        # An older one still tells how the last session ended.
        self._admission.pool = known or self._lobby.models.last_pool(self._asker.model)
        if self._admission.pool:
            try:
                ticket = await self._ask("heartbeat", client=self._asker.client)
                if known and ticket.status == "active":
                    self._ticket_id = self._named_in = ticket.ticket_id
                    return ticket
            except Unknown as error:
                self._before = BEFORE.get((error.ended and error.ended.reason) or "", "")
        return await self._join()

    async def _goes_ahead(self, ticket: Ticket) -> Ticket | None:
        """Act on what the ticket is now; the session once this chat may begin."""
        ours = ticket.ticket_id == self._ticket_id
        if ticket.status == "disconnected" and ours and ticket.reason in ENDED:
            raise Refused(f"ended_{ticket.reason}")
        if not await self._is_there():
            await self._while_absent(ticket)
            return None
        if ticket.status == "disconnected" or (ticket.status != "active" and not ours):
            # A session over before this chat began, or another chat of the user joined anew.
            ticket = await self._join()
        with suppress(Unknown):  # changed under our hands: the next news says what it is now
            if ticket.status == "draft":
                ticket = await self._ask("confirm", ticket_id=ticket.ticket_id)
            if ticket.status == "active" and ticket.ticket_id != self._named_in:
                # An answer that is named before it starts may finish past the session's end.
                ticket = await self._ask("heartbeat", client=self._asker.client)
            if ticket.status == "active":
                return ticket
        if ticket.status == "waiting":
            await self._tell(ticket)
        return None

    async def _while_absent(self, ticket: Ticket) -> None:
        """Nobody sees the answer, so the model is not asked. Admission lets a place that nobody
        claims be passed and forgets it in the end; who comes back before finds it again."""
        if not self._asker.keeps_place:
            return
        if self._kept_in != self._ticket_id:  # a turn that comes now is offered, not begun
            await self._keep_place()
            self._kept_in = self._ticket_id  # the place may be in another, if this one is over
        away_s = _now_s() - (self._absent_since_s or _now_s())
        if away_s >= ABSENT_S and ticket.status != "active":  # a session is no place to keep
            await self._stop_watching()

    async def _tell(self, ticket: Ticket) -> None:
        line = self._line(ticket)
        if self._began_at is None:
            self._began_at = ticket.position
        if ticket.position == self._began_at:  # the explanation stays until the line moves
            if self._before:
                line = self._words.say(self._before, line=line)
            elif ticket.may_be_passed:
                line = self._words.say("may_be_passed", line=line)
        await self._screen.show(line)

    def _line(self, ticket: Ticket) -> str:
        wait_s, high_s = ticket.estimated_wait, ticket.estimated_wait_high
        return self._words.line(ticket.position, wait_s, high_s, ticket.because or "")

    # --- calls ---------------------------------------------------------------------------------

    async def _join(self) -> Ticket:
        asker = self._asker
        facts: dict[str, str | bool] = {
            "auto_confirm": True,
            "model": asker.model,
            "client": asker.client,
        }
        if self._priority:
            facts["priority"] = self._priority
        try:
            ticket = await self._ask("join", **facts)
        except NoSuchClass:
            if not self._priority:
                raise
            turn_log.error("no_such_class priority=%s", self._priority)
            self._priority = None
            return await self._join()
        except Unknown as error:  # a join always finds a ticket: something else answers there
            raise Away("join: not an admission service") from error
        self._lobby.models.learn(asker.model, ticket.pool)
        self._ticket_id = ticket.ticket_id
        if ticket.status != "active":  # the place is this chat's now, if it was kept before
            with suppress(NoTicket):
                await self._once("leave", client=COMING_BACK)
        return ticket

    async def _ask(self, verb: str, **body: str | bool) -> Ticket:
        """Ask until there is an answer, for the grace that the administrator gave."""
        give_up_s = _now_s() + self._rules.away_grace_s
        while True:
            pause_s = random.uniform(*AGAIN_S)
            try:
                return await self._once(verb, **body)
            except Away as error:
                if _now_s() + pause_s >= give_up_s:
                    raise
                turn_log.info("admission_away error=%s", error)
            await self._screen.show(self._words.say("retrying"))
            await asyncio.sleep(pause_s)

    async def _once(self, verb: str, **body: str | bool) -> Ticket:
        """One call. What comes after it, a leave above all, does not overtake it."""
        return await _unbroken(self._admission.ask(verb, **body))

    # --- endings -------------------------------------------------------------------------------

    async def _stop_watching(self) -> Ticket:
        """Nobody need watch any longer; a page's place is kept (``will_return``).

        Raises:
            NotNow: what the chat says in the end.
        """
        asker = self._asker
        if asker.kind != "page":
            await self._withdraw()
            waited = self._words.elapsed(self._rules.max_wait_s)
            raise NotNow(self._words.say("too_long", waited=waited))
        ticket = await self._keep_place()
        if ticket.status == "active":  # in this very moment
            return ticket
        await self._ask("leave", client=asker.client)
        line = self._line(ticket)
        await self._screen.close(self._words.say("kept_status", line=line))
        raise Kept(self._words.say("kept"))

    async def _keep_place(self) -> Ticket:
        facts: dict[str, str | bool] = {"priority": self._priority} if self._priority else {}
        facts |= {"will_return": True, "model": self._asker.model, "client": COMING_BACK}
        self._clients = [self._asker.client, COMING_BACK]
        return await self._ask("join", **facts)

    async def _withdraw(self, words: str = "") -> None:
        """Leave, even while being stopped; without words nothing stays on the screen."""
        for client in self._clients:
            with suppress(NoTicket, TimeoutError):
                async with asyncio.timeout(STOP_WITHIN_S):
                    await self._admission.ask("leave", client=client)
        await self._screen.close(words)

    def _may_go_without(self, error: Exception) -> None:
        """Admission is away: the administrator chose what then."""
        elsewhere = self._lobby.models.is_elsewhere(self._asker.model)
        refuse = self._rules.refuse_when_away and not elsewhere
        turn_log.error("admission_away refused=%s", refuse, exc_info=error)
        if refuse:
            raise NotNow(self._words.say("away")) from None

    def _text(self, refused: Refused) -> str:
        if refused.key == "queue_full":
            return self._words.say("full", when=self._words.when(refused.retry_after_s))
        return self._words.say("paused" if refused.key == "pool_paused" else refused.key)


async def _unbroken(step: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Do this to its end, for STOP_WITHIN_S even while the chat is being stopped."""
    doing = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        with suppress(NoTicket, TimeoutError):
            await asyncio.wait_for(doing, STOP_WITHIN_S)
        raise


def _now_s() -> float:
    return asyncio.get_running_loop().time()
