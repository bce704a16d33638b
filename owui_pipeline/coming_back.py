"""The place of somebody who need not watch: kept in line, and told of when the turn comes.

Admission keeps the place by itself (``will_return``); what is here only tells. After a restart of
Open WebUI nobody is told, and the place is still there for the next message.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

from owui_pipeline.calls import AGAIN_S, Admission, NoTicket, Refused, Ticket, Unknown
from owui_pipeline.screen import Screen
from owui_pipeline.words import Words

SILENT_S = 600.0  # an admission that says nothing for longer is at this address no more
GIVEN_UP = ("left", "abandoned", "queue_timeout", "removed", "pool_closed")
"""Why a kept place may end before its turn; each is a key of `Words` with "ended_" before it."""


class KeptChat:
    """One chat that does not wait any more, of a user whose place is kept."""

    def __init__(self, screen: Screen, words: Words) -> None:
        self._screen, self._words = screen, words
        self._status = "waiting"

    async def tell(self, ticket: Ticket) -> None:
        """Show how the place stands; a page that was opened meanwhile is told, too."""
        changed, self._status = ticket.status != self._status, ticket.status
        await self._screen.note(self._said(ticket), store=changed)
        await self._screen.look()

    async def call(self, ticket: Ticket) -> None:
        """It is the user's turn: reach them."""
        await self._screen.call(self._words.say("your_turn"), self._time_left(ticket))

    async def tell_end(self, ended: Ticket | None) -> None:
        """The place is kept no longer; None when it was forgotten."""
        await self._screen.note(self._words.say(_end(ended)))

    def _said(self, ticket: Ticket) -> str:
        words = self._words
        if ticket.status == "draft":
            return f"{words.say('your_turn')}. {self._time_left(ticket)}"
        line = words.line(ticket.position, ticket.estimated_wait, ticket.estimated_wait_high)
        return words.say("kept_status", line=line)

    def _time_left(self, ticket: Ticket) -> str:
        return self._words.say("time_to_send", time=self._words.left(ticket.expires_in or 0))


class Returns:
    """Everybody who may come back to this process's chats; one place for each user and pool."""

    def __init__(self) -> None:
        self._chats: dict[tuple[str, str], list[KeptChat]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop alone keeps no task alive

    def keep(self, user_id: str, admission: Admission, screen: Screen, words: Words) -> None:
        """Tell this chat, too, how its user's place moves. Closes the connection to admission."""
        place, chat = (user_id, admission.pool), KeptChat(screen, words)
        if known := self._chats.get(place):
            known.append(chat)
            task = asyncio.create_task(admission.aclose())
        else:
            self._chats[place] = [chat]
            task = asyncio.create_task(self._watch(place, admission))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, place: tuple[str, str], admission: Admission) -> None:
        """Whoever cannot be told any more, as the key or the address was changed, is told no end:
        the place may still be kept, and the next chat brings a connection that may be good."""
        chats = self._chats[place]
        with suppress(NoTicket):
            async with aclosing(admission):
                try:
                    ended = await _tell_until_over(admission, chats)
                finally:
                    del self._chats[place]  # what is kept from now on is another place
            for chat in chats:
                await chat.tell_end(ended)


async def _tell_until_over(admission: Admission, chats: Sequence[KeptChat]) -> Ticket | None:
    """The ticket when its place is kept no longer; None when admission forgot it.

    Raises:
        NoTicket: as `_news`.
    """
    called = ""
    async with aclosing(_news(admission)) as news:
        async for ticket in news:
            if ticket.status in ("active", "disconnected"):
                return ticket
            for chat in chats:
                await chat.tell(ticket)
            if ticket.status == "draft" and ticket.ticket_id != called:
                called = ticket.ticket_id
                await chats[-1].call(ticket)
    return None


async def _news(admission: Admission) -> AsyncGenerator[Ticket, None]:
    """The ticket at each change, and every few seconds with what is left of its time; ends when
    admission does not know it.

    Raises:
        NoTicket: it refuses to tell, or said nothing for SILENT_S.
    """
    clock = asyncio.get_running_loop().time
    told_s = clock()
    while True:
        async with aclosing(admission.events()) as told:
            ticket, heard_s = None, 0.0
            async for change in told:
                if change:
                    ticket, heard_s = change, clock()
                if ticket:
                    told_s = clock()
                    yield _after(ticket, told_s - heard_s)
        await asyncio.sleep(random.uniform(*AGAIN_S))
        try:
            ticket = await admission.ask("status")  # also where no stream comes through
        except Unknown:
            return
        except NoTicket as error:
            if isinstance(error, Refused) or clock() - told_s >= SILENT_S:
                raise
            continue
        told_s = clock()
        yield ticket


def _end(ended: Ticket | None) -> str:
    """The key in `Words` for how a kept place ended."""
    if ended is None:
        return "lost"
    if ended.reason == "draft_timeout":
        return "missed"
    return f"ended_{ended.reason}" if ended.reason in GIVEN_UP else "taken"


def _after(ticket: Ticket, seconds: float) -> Ticket:
    """The same ticket so much later."""
    if ticket.expires_in is None:
        return ticket
    return ticket.model_copy(update={"expires_in": max(0.0, ticket.expires_in - seconds)})
