"""A chat for thin frontends: one call that waits its turn, asks the model and streams the answer.

The turn is the gateway's (``gateway.turn``), the queue the same as everybody's; only the way to say
it differs: ``data: {"type": …}`` lines of queue, sources, token, done and error.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web

from admission import wire
from admission.accounting.bill import Bill
from admission.accounting.record import Record
from admission.api import access
from admission.api.threads import ChatBody, user_of
from admission.auth import Caller, Kind
from admission.conversation import Thread
from admission.domain import Ticket
from admission.errors import (
    AdmissionError,
    NotFound,
    NoWorker,
    StoreUnavailable,
)
from admission.gateway import turn
from admission.gateway.ask import End, Piece, Sources, Token, ask
from admission.gateway.event_stream import EventStream
from admission.gateway.gate import turn_over
from admission.gateway.place import Place
from admission.keys import ALLOWANCES, DIRECTORY, JOURNAL, THREADS, TURNS
from admission.news import PING_S
from admission.pages.words import choose, words
from admission.store.thread_store import THREAD_BYTES_MAX

routes = web.RouteTableDef()


@routes.post("/chat/stream")
async def stream(request: web.Request) -> web.StreamResponse:
    who = access.must_be(request, Kind.SERVICE, Kind.USER)
    body = await wire.read_body(request, ChatBody)
    user = user_of(request, who, body.user_id)
    model = _model(request, body.model)
    memory = await _Memory.open(request, user, body.thread)
    return await _Chat(request, who, user, model, memory).run(body.message)


def _model(request: web.Request, named: str | None) -> str:
    directory = request.app[DIRECTORY]
    if named is not None and directory.pool_of(named) is None:
        raise NotFound(f"model: no worker serves {named!r}", code="model_not_served", field="model")
    served = directory.models()
    if not served or (named is not None and named not in served):
        raise NoWorker
    return named or served[0]


class _Memory:
    """The thread a chat belongs to; where it cannot be read or kept the answer goes on without."""

    def __init__(self, request: web.Request, user: str, thread: str, known: Thread | None) -> None:
        self._store = request.app[THREADS]
        self._user, self.thread, self._known = user, thread, known
        self._lost = False

    @classmethod
    async def open(cls, request: web.Request, user: str, thread: str | None) -> "_Memory":
        """Raises NotFound when the thread named is not there any more."""
        memory = cls(request, user, thread or uuid.uuid4().hex, None)
        if thread is None:
            return memory
        try:
            memory._known = await memory._store.read(user, thread)
        except StoreUnavailable:
            memory._lost = True
            return memory
        if memory._known is None:
            raise NotFound(
                "thread: there is none of this id; leave it out to begin a new one",
                code="thread_unknown",
                field="thread",
            )
        return memory

    def conversation(self, message: str) -> list[dict[str, str]]:
        """What the model is asked with."""
        known = self._known
        system = [{"role": "system", "content": known.system}] if known and known.system else []
        before = [{"role": m.role, "content": m.content} for m in known.messages] if known else []
        return [*system, *before, {"role": "user", "content": message}]

    async def keep(self, message: str, answer: str) -> bool:
        if self._lost or len(answer) > THREAD_BYTES_MAX:
            return False
        cleared = self._known.cleared if self._known else None
        try:
            return await self._store.append(
                self._user, self.thread, message, answer, cleared=cleared
            )
        except StoreUnavailable:
            return False


class _Chat:
    """One message: its turn, its answer."""

    def __init__(
        self, request: web.Request, who: Caller, user: str, model: str, memory: _Memory
    ) -> None:
        self._request, self._who, self._user = request, who, user
        self._model, self._memory = model, memory
        self._pool = request.app[DIRECTORY].pool_of(model) or ""
        self._message = uuid.uuid4().hex  # its name in the queue and to the gateway
        self._place = Place(request, who, self._pool, user, client=self._message)
        self._out = EventStream(request)
        accepted = request.headers.get("Accept-Language", "")
        self._words = words(choose(request.query.get("lang"), accepted))

    async def run(self, message: str) -> web.StreamResponse:
        app = self._request.app
        with await app[ALLOWANCES].take(self._who, self._user) as grant:
            record = Record(
                user=self._user,
                key=self._who.key or "",
                project=self._who.project or "",
                model=self._model,
                pool=self._pool,
            )
            with Bill(app[JOURNAL], grant, record) as bill:
                return await self._run(message, bill)

    async def _run(self, message: str, bill: Bill) -> web.StreamResponse:
        try:
            async with self._place:
                await self._place.take(self._tell)
                answer, reason = await self._answer(self._memory.conversation(message), bill)
                saved = await self._memory.keep(message, answer)
            thread = self._memory.thread
            await self._send("done", thread=thread, saved=saved, finish_reason=reason)
        except AdmissionError as error:
            if not self._out.begun:
                raise
            await self._send("error", code=error.code, message=error.detail)
        return await self._out.end()

    async def _tell(self, ticket: Ticket | None) -> None:
        if ticket is None:
            await self._out.ping()
        else:
            message = self._words.place_of(ticket)
            await self._send("queue", position=ticket.position, message=message)

    async def _send(self, kind: str, **fields: Any) -> None:
        await self._out.write(f"data: {json.dumps({'type': kind, **fields})}\n\n".encode())

    async def _answer(
        self, conversation: list[dict[str, str]], bill: Bill
    ) -> tuple[str, str | None]:
        """Stream the pieces; the answer, cut above what a thread may hold, and why it ended."""
        turns = self._request.app[TURNS]
        bill.begin()
        belongs_to = f"{self._user} {self._memory.thread}"
        parts: list[str] = []
        size = 0
        try:
            async with (
                turns.hold(
                    self._pool, self._user, message=self._message, ticket=self._place.ticket
                ),
                aclosing(ask(self._request, self._model, conversation, bill, belongs_to)) as pieces,
            ):
                while True:
                    match await self._piece(pieces):
                        case Token(text):
                            if size <= THREAD_BYTES_MAX:
                                parts.append(text)
                                size += len(text)
                            await self._send("token", content=text)
                        case Sources(items):
                            await self._send("sources", sources=items)
                        case End(reason):
                            return "".join(parts), reason
        except turn.TurnLost:
            raise turn_over(self._request, self._pool, self._user) from None

    async def _piece(self, pieces: AsyncGenerator[Piece, None]) -> Piece:
        """The next piece; pings while the model is silent."""
        coming: asyncio.Task[Piece] = asyncio.ensure_future(anext(pieces))
        try:
            while not (await asyncio.wait({coming}, timeout=PING_S))[0]:
                await self._out.ping()
            return coming.result()
        finally:
            if coming.cancel():
                await asyncio.wait({coming})
