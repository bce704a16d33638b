"""The floor for Python: ``python -m bench.gateway.bare PORT UPSTREAM…`` relays and does nothing
else. No keys, no turns, no accounting, no errors handled; aiohttp on both sides, on uvloop.
"""

import asyncio
import sys
from itertools import cycle

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

KEPT = ("content-type", "content-length")


async def _app(upstreams: list[str]) -> web.Application:
    http = ClientSession(
        connector=TCPConnector(limit=0), auto_decompress=False, cookie_jar=DummyCookieJar()
    )
    turn = cycle(upstreams)

    async def relay(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"Content-Type": "application/json"}
        url = f"{next(turn)}{request.path_qs}"
        async with http.request(request.method, url, data=body, headers=headers) as answer:
            kept = {name: answer.headers[name] for name in KEPT if name in answer.headers}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", relay)
    return app


async def _serve(port: int, upstreams: list[str]) -> None:
    runner = web.AppRunner(await _app(upstreams), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2:]))
