"""The place of somebody who need not watch: kept in line, and told of when the turn comes.

Admission keeps the place by itself (``will_return``); what is here only tells. After a restart of
Open WebUI nobody is told, and the place is still there for the next message.
"""

import asyncio
import random
from contextlib import aclosing, suppress

from owui_pipeline.calls import AGAIN_S, Admission, NoTicket, Ticket, Unknown
from owui_pipeline.screen import Screen
from owui_pipeline.words import Words


class Returns:
    """Everybody who may come back to this process's chats; one place for each user and pool."""

    def __init__(self) -> None:
        self._watching: dict[tuple[str, str], asyncio.Task[None]] = {}

    def keep(self, user_id: str, admission: Admission, screen: Screen, words: Words) -> None:
        """Tell this chat how its user's place moves. Closes the connection to admission."""
        key = (user_id, admission.pool)
        if before := self._watching.get(key):
            before.cancel()
        task = asyncio.create_task(_watch(admission, screen, words))
        self._watching[key] = task
        task.add_done_callback(lambda done: self._drop(key, done))

    def close(self) -> None:
        """Tell nobody any more."""
        for task in self._watching.values():
            task.cancel()

    def _drop(self, key: tuple[str, str], done: asyncio.Task[None]) -> None:
        if self._watching.get(key) is done:
            del self._watching[key]


async def _watch(admission: Admission, screen: Screen, words: Words) -> None:
    offered = ""
    async with aclosing(admission):
        while True:
            async with aclosing(admission.events()) as told:
                async for ticket in told:
                    if ticket is None:
                        continue
                    if ticket.status in ("active", "disconnected"):
                        await _tell_end(ticket, screen, words)
                        return
                    if ticket.status == "waiting":
                        await _tell_place(ticket, screen, words)
                    elif ticket.ticket_id != offered:
                        offered = ticket.ticket_id
                        await _tell_turn(ticket, screen, words)
            await asyncio.sleep(random.uniform(*AGAIN_S))
            try:
                with suppress(Unknown):
                    await admission.ask("status")
                    continue
                return  # forgotten
            except NoTicket:
                continue


async def _tell_place(ticket: Ticket, screen: Screen, words: Words) -> None:
    line = words.line(ticket.position, ticket.estimated_wait, ticket.estimated_wait_high)
    await screen.note(words.say("kept_status", line=line), store=False)


async def _tell_turn(ticket: Ticket, screen: Screen, words: Words) -> None:
    told = words.say("your_turn", time=words.left(ticket.expires_in or 0))
    await screen.note(told)
    await screen.call(words.say("your_turn_title"), told)


async def _tell_end(ticket: Ticket, screen: Screen, words: Words) -> None:
    if ticket.reason == "draft_timeout":
        await screen.note(words.say("missed"))
    elif ticket.reason in ("removed", "pool_closed", "queue_timeout"):
        await screen.note(words.say(f"ended_{ticket.reason}"))
    else:  # taken in another chat, or given up there: nothing is to be said here any more
        await screen.clear()
