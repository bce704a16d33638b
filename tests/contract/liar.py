"""A service that does not keep the contract: a true one, and someone in between who lies."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, web
from multidict import CIMultiDict
from yarl import URL


@dataclass
class Answer:
    """What the true service said, to be changed; ``body`` is JSON."""

    call: str  # its method and path
    status: int
    headers: CIMultiDict[str]
    body: Any


Lie = Callable[[Answer], Awaitable[None] | None]


@asynccontextmanager
async def lying(url: str, lie: Lie) -> AsyncIterator[str]:
    """The URL of someone who passes calls on to ``url``, and lies about the answers."""

    async def passed(request: web.BaseRequest) -> web.Response:
        given = {name: value for name, value in request.headers.items() if name != "Host"}
        async with http.request(
            request.method,
            URL(url + request.raw_path, encoded=True),
            headers=given,
            data=await request.read(),
        ) as true:
            text = await true.text()
            answer = Answer(
                f"{request.method} {request.path}",
                true.status,
                CIMultiDict((n, value) for n, value in true.headers.items() if n not in _OWN),
                json.loads(text) if text else None,
            )
        told = lie(answer)
        if told is not None:
            await told
        body = None if answer.body is None else json.dumps(answer.body).encode()
        return web.Response(status=answer.status, headers=answer.headers, body=body)

    async with ClientSession() as http:
        runner = web.ServerRunner(web.Server(passed))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


_OWN = {"Content-Length", "Transfer-Encoding", "Connection", "Date", "Server"}
