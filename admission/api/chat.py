"""A chat for thin frontends: one call that waits its turn, asks the model and streams the answer.

The turn is the gateway's (``gateway.turn``), the queue the same as everybody's; only the way to say
it differs: ``data: {"type": …}`` lines of queue, sources, token, done and error.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from admission import wire
from admission.api import access, joins
from admission.auth import Caller, Kind
from admission.conversation import Thread
from admission.domain import Status, Ticket
from admission.errors import (
    AdmissionError,
    BadInput,
    Busy,
    NotFound,
    NoWorker,
    StoreUnavailable,
    Unavailable,
)
from admission.gateway import turn
from admission.gateway.ask import End, Piece, Sources, Token, ask
from admission.keys import DIRECTORY, GATEKEEPER, NEWSROOM, SETTINGS, STORE, THREADS
from admission.news import PING_S
from admission.outcomes import Confirmed, NotConfirmed
from admission.pages.words import choose, words
from admission.store.thread_store import THREAD_BYTES_MAX

MESSAGE_CHARACTERS_MAX = 32_768
THREAD_ID = "[A-Za-z0-9._-]{1,64}"

routes = web.RouteTableDef()


class ChatBody(wire.Body):
    message: Annotated[str, Field(min_length=1, max_length=MESSAGE_CHARACTERS_MAX)]
    model: wire.Name | None = None  # none: the first one served
    thread: Annotated[str, Field(pattern=f"^{THREAD_ID}$")] | None = None  # none: a new one
    user_id: wire.UserId | None = None


@routes.post("/chat/stream")
async def stream(request: web.Request) -> web.StreamResponse:
    who = access.must_be(request, Kind.SERVICE, Kind.USER)
    body = await wire.read_body(request, ChatBody)
    user = user_of(request, who, body.user_id)
    model = _model(request, body.model)
    memory = await _Memory.open(request, user, body.thread)
    return await _Chat(request, who, user, model, memory).run(body.message)


def user_of(request: web.Request, who: Caller, named: str | None) -> str:
    """The user a chat is for: the token's, or with a service key the one who is named.

    Raises:
        BadInput: nobody is named.
        Forbidden: somebody else than the token's user.
    """
    user = named or who.user
    if user is None:
        raise BadInput("user_id: a service key must name the user", field="user_id")
    request.app[GATEKEEPER].may_act_for(who, user)
    return user


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


class _Out:
    """The answer's events. Until the first nothing has gone out, and an error is a proper one."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None

    @property
    def begun(self) -> bool:
        return self._response is not None

    async def send(self, kind: str, **fields: Any) -> None:
        await self._write(f"data: {json.dumps({'type': kind, **fields})}\n\n".encode())

    async def ping(self) -> None:
        """Keep proxies from thinking that nobody is there."""
        if self.begun:
            await self._write(b": ping\n\n")

    async def end(self) -> web.StreamResponse:
        assert self._response is not None
        await self._response.write_eof()
        return self._response

    async def _write(self, data: bytes) -> None:
        if self._response is None:
            self._response = web.StreamResponse(
                headers={
                    "Content-Type": "text/event-stream",
                    "Cache-Control": "no-store",
                    "X-Accel-Buffering": "no",  # nginx would hold the events back
                }
            )
            await self._response.prepare(self._request)
        await self._response.write(data)


class _Chat:
    """One message: its turn, its answer. ``client`` names it in the queue and to the gateway."""

    def __init__(
        self, request: web.Request, who: Caller, user: str, model: str, memory: _Memory
    ) -> None:
        self._request, self._who, self._user = request, who, user
        self._model, self._memory = model, memory
        self._store = request.app[STORE]
        self._pool = request.app[DIRECTORY].pool_of(model) or ""
        self._client = uuid.uuid4().hex
        self._out = _Out(request)
        self._ticket, self._stays = "", False
        accepted = request.headers.get("Accept-Language", "")
        self._words = words(choose(request.query.get("lang"), accepted))

    async def run(self, message: str) -> web.StreamResponse:
        try:
            await self._wait()
            answer, reason = await self._answer(self._memory.conversation(message))
            saved = await self._memory.keep(message, answer)
            thread = self._memory.thread
            await self._out.send("done", thread=thread, saved=saved, finish_reason=reason)
        except AdmissionError as error:
            if not self._out.begun:
                raise
            await self._out.send("error", code=error.code, message=error.detail)
        finally:
            await asyncio.shield(self._leave())
        return await self._out.end()

    async def _leave(self) -> None:
        """This chat is over: the last one that waited takes the place along, a session stays."""
        if not self._stays:
            with suppress(StoreUnavailable):
                await self._store.leave(
                    self._pool, self._user, client=self._client, ticket=self._ticket
                )

    # --- the turn ------------------------------------------------------------------------------

    async def _wait(self) -> None:
        ticket = await self._join()
        self._ticket = ticket.ticket_id
        if ticket.status is Status.ACTIVE:
            return
        newsroom = self._request.app[NEWSROOM]
        with newsroom.listener(self._pool, self._user, self._ticket) as listener:
            async for news in newsroom.told(listener):
                if news is None:
                    await self._out.ping()
                elif await self._is_my_turn(news.ticket):
                    return
        if newsroom.closing:
            self._stays = True  # the place is kept for one grace, and found again by the next call
            raise Unavailable("The service restarts: ask again.", code="closing", retry_after_s=1)
        raise _turn_over()

    async def _is_my_turn(self, ticket: Ticket) -> bool:
        """Tell a place, take an offered slot."""
        if ticket.status is Status.DRAFT:
            match await self._store.confirm(self._pool, self._user, ticket=ticket.ticket_id):
                case Confirmed():
                    return True
                case NotConfirmed("waiting", _):
                    return False
            raise _turn_over()
        if ticket.status is Status.WAITING:
            await self._tell(ticket)
        return ticket.status is Status.ACTIVE

    async def _join(self) -> Ticket:
        """Also for a caller who goes away meanwhile the join is whole, and can be left again."""
        wish = wire.JoinBody(auto_confirm=True, client=self._client, request_id=self._client)
        joining = asyncio.ensure_future(
            joins.join(self._request, self._who, self._pool, self._user, wish)
        )
        try:
            return await asyncio.shield(joining)
        except asyncio.CancelledError:
            with suppress(AdmissionError):
                self._ticket = (await joining).ticket_id  # this one is left, no other request's
            raise

    async def _tell(self, ticket: Ticket) -> None:
        message = self._words["waiting"]["heading"]
        if ticket.position is not None:
            wait_s = None if ticket.wait_ms is None else round(ticket.wait_ms / 1000)
            message = self._words.place(ticket.position, wait_s)
        await self._out.send("queue", position=ticket.position, message=message)

    # --- the answer ----------------------------------------------------------------------------

    async def _answer(self, conversation: list[dict[str, str]]) -> tuple[str, str | None]:
        """Stream the pieces; the answer, cut above what a thread may hold, and why it ended."""
        concurrency = self._request.app[SETTINGS].session_concurrency
        parts: list[str] = []
        size = 0
        try:
            async with (
                turn.hold(
                    self._store,
                    self._pool,
                    self._user,
                    message=self._client,
                    concurrency=concurrency,
                    request=self._client,
                ),
                aclosing(ask(self._request, self._model, conversation)) as pieces,
            ):
                while True:
                    match await self._piece(pieces):
                        case Token(text):
                            if size <= THREAD_BYTES_MAX:
                                parts.append(text)
                                size += len(text)
                            await self._out.send("token", content=text)
                        case Sources(items):
                            await self._out.send("sources", sources=items)
                        case End(reason):
                            return "".join(parts), reason
        except turn.TurnLost:
            raise Busy("Your session ended before the answer did.", code="session_over") from None

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


def _turn_over() -> Busy:
    return Busy("Your turn ended before it came.", code="ticket_ended")
