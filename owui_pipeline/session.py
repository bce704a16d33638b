"""What goes on after a chat got its turn: its answer is renewed, and the session's end is told.

Knows heartbeats and deadlines; the answer itself runs in Open WebUI.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from owui_pipeline.calls import AGAIN_S, Admission, Away, NoTicket, Ticket, Unknown
from owui_pipeline.coming_back import Returns
from owui_pipeline.screen import Screen
from owui_pipeline.words import Words

BEAT_S = 10.0  # admission forgets an answer that is not renewed for 30 s
WARN_S = 120.0  # so long before its end a session's time is told,
WARN_SHARE = 0.1  # but not before so much of it is left
NEAR_S = 10.0  # so often it is looked at then
READ_AGAIN_S = 1.0  # after a deadline; admission publishes an expiry within a second
READABLE_S = 300.0  # so long after its end admission still knows how a session ended

AskAdmission = Callable[[], Admission]

_current: ContextVar["Answer | None"] = ContextVar("answer", default=None)
"""Whose chat's task this is; a sub-agent's task was begun by its parent's (utils/subagents.py)."""


class Answer:
    """One chat message that is being prepared or answered."""

    def __init__(self, admission: Admission, client: str) -> None:
        self._admission, self._client = admission, client
        self._begun_s = _clock_s()
        self._over = asyncio.Event()
        self._waits = False

    async def is_held(self) -> bool:
        """Whether it may still ask the model: its session runs, or lets it finish.

        Not asked again while the turn is fresh; an admission that does not answer ends nothing.
        """
        if _clock_s() - self._begun_s < BEAT_S:
            return True
        try:
            ticket = await self._admission.ask("heartbeat", client=self._client)
        except Unknown as gone:
            return gone.finishing
        except NoTicket:
            return True
        return ticket.status == "active" or ticket.finishing

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Its chat waits for another turn: then only who looks at it is present, not its beat."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    async def step_aside(self) -> None:
        """A sub-agent of it needs a turn: after the session's end this answer does not keep the
        slot, in which it would only wait for its sub-agent. One that works in the background
        cannot be told from others: for it, too, the slot is given up, though nobody waits for
        it."""
        with suppress(NoTicket):
            if (await self._admission.ask("status")).status != "active":
                await self._admission.ask("leave", client=self._client)

    @property
    def is_over(self) -> bool:
        """Whether it ended; admission may not have heard of it yet."""
        return self._over.is_set()

    def end(self) -> None:
        """It is whole, or was stopped, or failed."""
        self._over.set()

    async def beat(self) -> None:
        """Renew it until its end, and then say so."""
        async with aclosing(self._admission):
            while not self._over.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), BEAT_S)
                    break
                if self._waits:
                    continue
                with suppress(NoTicket):  # also when the session is over: it may finish
                    await self._admission.ask("heartbeat", client=self._client)
            with suppress(NoTicket):
                await self._admission.ask("leave", client=self._client)


class Answers:
    """All answers of this process."""

    def __init__(self) -> None:
        self._running: dict[str, Answer] = {}
        self._beats: set[asyncio.Task[None]] = set()  # the event loop alone keeps no task alive

    def begin(self, chat: asyncio.Task[Any], admission: Admission, client: str) -> None:
        """Renew an answer's lease until its chat's task ends, in whatever way, and then say so.

        The task's end is the one sign that comes after success, error, Stop and a lost caller
        alike; `outlet` does not. After a killed process nothing comes, and the lease lapses.
        """
        answer = Answer(admission, client)
        chat.add_done_callback(lambda _: answer.end())
        self._running[client] = answer
        _current.set(answer)
        beats = asyncio.create_task(answer.beat())
        self._beats.add(beats)
        beats.add_done_callback(lambda _: self._forget(client, answer, beats))

    def of(self, client: str) -> Answer | None:
        """The answer to this chat message, while it runs."""
        answer = self._running.get(client)
        return answer if answer and not answer.is_over else None

    def parent(self) -> Answer | None:
        """The answer that waits for this sub-agent."""
        answer = _current.get()
        return answer if answer and not answer.is_over else None

    def _forget(self, client: str, answer: Answer, beats: asyncio.Task[None]) -> None:
        self._beats.discard(beats)
        if self._running.get(client) is answer:
            del self._running[client]


class Endings:
    """Tells users that their sessions come to an end, in the chat they used last."""

    def __init__(self, returns: Returns) -> None:
        """``returns``: who is told of a place that the session's end gave (VESTIBULE_REQUEUE)."""
        self._returns = returns
        self._screens: dict[str, tuple[Screen, Words]] = {}  # by ticket
        self._watching: dict[str, asyncio.Task[None]] = {}

    def watch(self, ticket: Ticket, screen: Screen, words: Words, ask: AskAdmission) -> None:
        """The user wrote in this chat now; ``ask`` makes a connection to admission."""
        if ticket.expires_in is None:
            return
        self._screens[ticket.ticket_id] = (screen, words)
        if ticket.ticket_id not in self._watching:
            task = asyncio.create_task(self._tell(ticket, ask))
            self._watching[ticket.ticket_id] = task
            task.add_done_callback(lambda _: self._forget(ticket.ticket_id))

    async def warn(self, ticket: Ticket, screen: Screen, words: Words) -> None:
        """Tell how much time is left, if it is little, in this chat and no more in the last."""
        if before := self._screens.get(ticket.ticket_id):
            # The last chat closes after this, so that nothing is told there any more.
            self._screens[ticket.ticket_id] = (screen, words)
            await before[0].close()
        if ticket.expires_in is not None and ticket.expires_in <= _warn_s(ticket):
            await screen.note(_time_left(ticket, words))

    async def _tell(self, ticket: Ticket, ask: AskAdmission) -> None:
        ends_s = _clock_s() + (ticket.expires_in or 0)
        await asyncio.sleep(ends_s - _clock_s() - _warn_s(ticket))
        async with aclosing(ask()) as admission:
            admission.pool = ticket.pool
            try:
                now = await _status(admission, ends_s + READABLE_S)
                if _runs(ticket, now):
                    await self._tell_left(ticket, now)
                elif _clock_s() < ends_s:  # left, or ended otherwise before its time
                    return
                while _runs(ticket, now):
                    await asyncio.sleep(min(NEAR_S, (now.expires_in or 0) + READ_AGAIN_S))
                    now = await _status(admission, ends_s + READABLE_S)
                    await self._count_down(ticket, now)
                await self._tell_over(ticket, now, ask)
            except NoTicket:
                await self._screens[ticket.ticket_id][0].close()

    async def _tell_left(self, ticket: Ticket, now: Ticket) -> None:
        screen, words = self._screens[ticket.ticket_id]
        await screen.note(_time_left(now, words))  # or it was told at once
        await screen.notify("warning", _time_left(now, words))

    async def _count_down(self, ticket: Ticket, now: Ticket) -> None:
        screen, words = self._screens[ticket.ticket_id]
        if _runs(ticket, now):
            await screen.note(_time_left(now, words), store=False)
            await screen.look()

    async def _tell_over(self, ticket: Ticket, now: Ticket, ask: AskAdmission) -> None:
        screen, words = self._screens[ticket.ticket_id]
        if requeued := _is_requeued(ticket, now):
            line = words.line(now.position, now.estimated_wait, now.estimated_wait_high)
            told = words.say("over_then", line=line)
        elif now.ticket_id == ticket.ticket_id and now.reason != "left":
            told = words.say("session_over")
        else:  # of the user's own will, or there is another one already
            await screen.close()
            return
        await screen.note(told)
        await screen.notify("info", told)
        if requeued:
            admission = ask()
            admission.pool = ticket.pool
            self._returns.keep(screen.user_id, admission, screen, words)

    def _forget(self, ticket_id: str) -> None:
        self._watching.pop(ticket_id, None)
        self._screens.pop(ticket_id, None)


def _runs(ticket: Ticket, now: Ticket) -> bool:
    return now.ticket_id == ticket.ticket_id and now.status == "active"


def _is_requeued(ticket: Ticket, now: Ticket) -> bool:
    """Whether who ran out of time was put back in line (VESTIBULE_REQUEUE=on), which makes one
    ticket after the other of the first: `first`, `first-2`, … (store/lua/lib/disconnect.lua). Who
    waits with another one wrote a message meanwhile, and is told there."""
    first, _, _ = ticket.ticket_id.partition("-")
    return now.status == "waiting" and now.ticket_id.startswith(f"{first}-")


async def _status(admission: Admission, give_up_s: float) -> Ticket:
    """The user's ticket, as soon as admission answers; ``give_up_s``: on the loop's clock."""
    while True:
        try:
            return await admission.ask("status")
        except Away:
            if _clock_s() >= give_up_s:
                raise
        await asyncio.sleep(random.uniform(*AGAIN_S))


def _time_left(ticket: Ticket, words: Words) -> str:
    return words.say("time_left", time=words.left(ticket.expires_in or 0))


def _warn_s(ticket: Ticket) -> float:
    return min(WARN_S, WARN_SHARE * (ticket.session_duration or WARN_S / WARN_SHARE))


def _clock_s() -> float:
    return asyncio.get_running_loop().time()
