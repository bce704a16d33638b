"""What lies between a client and the service: passes everything on until a test breaks it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import ClientSession, web

from tests.api.calls import until

Act = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Wire:
    """A proxy. ``seen``, ``answered``: the calls that came, by their verbs; ``acts``: what is done
    instead of passing one on, by its verb."""

    def __init__(self, http: ClientSession, target: str) -> None:
        self.target = target
        self.url = ""
        self.seen: list[str] = []
        self.answered: list[str] = []
        self.acts: dict[str, Act] = {}
        self.streams = 0  # that are open
        self._http = http
        self._open: set[asyncio.Transport] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        verb = request.path.split("/")[2]
        self.seen.append(verb)
        answer = await self.acts.get(verb, self.forward)(request)
        self.answered.append(verb)
        return answer

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Pass it on, and the answer back as it comes."""
        headers = {k: v for k, v in request.headers.items() if k in ("Authorization",)}
        body = await request.read()
        async with self._http.request(
            request.method, self.target + request.path_qs, data=body, headers=headers
        ) as answer:
            kept = ("Content-Type", "Retry-After")
            response = web.StreamResponse(status=answer.status)
            response.headers.update({k: v for k, v in answer.headers.items() if k in kept})
            await response.prepare(request)
            assert request.transport is not None
            self._open.add(request.transport)
            self.streams += answer.content_type == "text/event-stream"
            try:
                async for piece in answer.content.iter_any():
                    await response.write(piece)
            finally:
                self._open.discard(request.transport)
                self.streams -= answer.content_type == "text/event-stream"
            await response.write_eof()
            return response

    async def loses_the_answer(self, request: web.Request) -> web.StreamResponse:
        """The service has done it, and nobody hears of it."""
        body, headers = await request.read(), {"Authorization": request.headers["Authorization"]}
        async with self._http.request(
            request.method, self.target + request.path_qs, data=body, headers=headers
        ) as answer:
            assert answer.status == 200
        return cut_off(request)

    async def holds_back(self, request: web.Request) -> web.StreamResponse:
        """As a proxy that waits for the whole answer before it passes any of it on."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    async def is_slow(self, request: web.Request) -> web.StreamResponse:
        """It passes after a while."""
        await asyncio.sleep(0.3)
        return await self.forward(request)

    async def is_gone(self, request: web.Request) -> web.StreamResponse:
        """Nobody is there."""
        return cut_off(request)

    async def has_answered(self, verb: str, times: int = 1) -> bool:
        return self.answered.count(verb) >= times

    async def beats(self) -> None:
        """Returns after a heartbeat that began after now."""
        seen = self.answered.count("heartbeat")
        await until(lambda: self.has_answered("heartbeat", seen + 2))

    def cut(self) -> None:
        """Every connection that carries an answer now is lost."""
        for transport in list(self._open):
            transport.abort()

    def once(self, verb: str, act: Act) -> None:
        """Do so the next time, and pass on as ever after it."""

        async def first(request: web.Request) -> web.StreamResponse:
            del self.acts[verb]
            return await act(request)

        self.acts[verb] = first


def cut_off(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def says(status: int, **headers: str) -> Act:
    """An answer that is nobody's of ours."""

    async def act(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="<html>", headers=headers)

    return act


@asynccontextmanager
async def wired(http: ClientSession, target: str) -> AsyncIterator[Wire]:
    """A wire to ``target``."""
    wire = Wire(http, target)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", wire.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    wire.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield wire
    await runner.cleanup()
