"""Runs a turn beside its test, which sees what the block's frontend sees."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from admission.client import Client, Ticket, Turn
from tests.api.calls import Caller
from tests.conftest import DEADLINE_S


class Person:
    """One who wants a turn, and keeps it until they are told to go.

    ``told``: every update; ``turn``: once it has come.
    """

    def __init__(self) -> None:
        self.told: list[Ticket] = []
        self.turn: Turn | None = None
        self.task: asyncio.Task[None]
        self.go = asyncio.Event()
        self._news = asyncio.Event()

    async def run(
        self, client: Client, user: str, also: Callable[[Ticket], object] | None, **wish: Any
    ) -> None:
        def update(ticket: Ticket) -> None:
            self.told.append(ticket)
            self._news.set()
            if also:
                also(ticket)

        async with client.turn(user, on_update=update, **wish) as self.turn:
            self._news.set()
            await self.go.wait()

    async def waits(self) -> Ticket:
        """Returns when they know that they wait."""
        return await self._until(lambda: self.statuses[-1:] == ["waiting"])

    async def is_in(self) -> Ticket:
        """Returns when they have a ticket."""
        return await self._until(lambda: bool(self.told))

    async def has_it(self) -> Turn:
        """Returns when their block runs."""
        await self._until(lambda: self.turn is not None)
        assert self.turn is not None
        return self.turn

    async def hears(self, status: str, position: int | None = None) -> Ticket:
        """Returns when this is the last they were told."""
        return await self._until(
            lambda: [(t.status, t.position) for t in self.told[-1:]] == [(status, position)]
        )

    async def ends(self) -> None:
        """The block ends as it should."""
        self.go.set()
        async with asyncio.timeout(DEADLINE_S):
            await self.task

    @property
    def statuses(self) -> list[str]:
        return [ticket.status.value for ticket in self.told]

    async def _until(self, holds: Any) -> Ticket:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                if self.task.done():
                    self.task.result()
                    raise AssertionError("the block is over")
                self._news.clear()
                waiting = asyncio.ensure_future(self._news.wait())
                await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        return self.told[-1]


@asynccontextmanager
async def person(
    client: Client, user: str, *, also: Callable[[Ticket], object] | None = None, **wish: Any
) -> AsyncIterator[Person]:
    """Somebody who wants a turn; gone at the block's end."""
    someone = Person()
    someone.task = asyncio.create_task(someone.run(client, user, also, **wish))
    try:
        yield someone
    finally:
        someone.task.cancel()
        with suppress(BaseException):
            await someone.task


async def status(call: Caller, user: str) -> str:
    """What the service says of a user, in a word."""
    seen = await call("GET", f"/queue/status/{user}")
    return str(seen.json["status" if seen.status == 200 else "code"])
