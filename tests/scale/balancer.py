"""A load balancer of the tests: calls of one path go to the instances in turn, the last one first.

As with nginx, an instance that cannot be reached is passed over, and a call that was sent is never
sent again: what an instance loses, its caller loses.

``python -m tests.scale.balancer PORT URL URL`` is one that runs for itself.
"""

import asyncio
import sys
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import ClientConnectorError, ClientError, ClientSession, TCPConnector, web
from yarl import URL

_HOP_BY_HOP = {"connection", "content-length", "host", "transfer-encoding", "date", "server"}


class Balancer:
    """``passed``: the calls that were answered, as the instance, the method and the path."""

    def __init__(self, http: ClientSession, instances: Sequence[str]) -> None:
        self.url = ""
        self.passed: list[tuple[str, str, str]] = []
        self._http = http
        self._turns: defaultdict[str, deque[str]] = defaultdict(lambda: deque(instances))

    def answered(self, begins: str) -> list[str]:
        """Which instances answered the calls whose method and path begin so, in their order."""
        return [url for url, method, path in self.passed if f"{method} {path}".startswith(begins)]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body, turns = await request.read(), self._turns[request.path]
        turns.rotate(1)
        for url in list(turns):
            try:
                return await self._pass(url, request, body)
            except ClientConnectorError:
                continue
            except ClientError:
                break
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _pass(self, url: str, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        headers = [(n, v) for n, v in request.headers.items() if n.lower() not in _HOP_BY_HOP]
        async with self._http.request(
            request.method,
            URL(url + request.raw_path, encoded=True),
            data=body,
            headers=headers,
            allow_redirects=False,
        ) as answer:
            self.passed.append((url, request.method, request.path))
            given = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    given.headers.add(name, value)
            await given.prepare(request)
            async for piece in answer.content.iter_any():
                await given.write(piece)
            await given.write_eof()
            return given


@asynccontextmanager
async def balanced(*instances: str, port: int = 0) -> AsyncIterator[Balancer]:
    """One in front of the instances at these URLs. Each call has a connection of its own."""
    connector = TCPConnector(limit=0, force_close=True)
    async with ClientSession(connector=connector, auto_decompress=False) as http:
        balancer = Balancer(http, instances)
        server = web.Server(balancer.handle, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            balancer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield balancer
        finally:
            await runner.cleanup()


async def _run(port: int, *instances: str) -> None:
    async with balanced(*instances, port=port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1]), *sys.argv[2:]))
