"""A way to Redis that loses replies: what was asked is done, and nobody hears of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class LossyWay:
    """Connections to a server's socket; ``lose`` many of the next replies end theirs instead."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self.lose = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        up, down = await asyncio.open_unix_connection(self._path)
        asked = asyncio.create_task(_copy(reader, down))
        try:
            while reply := await up.read(65536):
                if self.lose:
                    self.lose -= 1
                    return
                writer.write(reply)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            asked.cancel()
            for end in (down, writer):
                end.close()
                with suppress(ConnectionError):
                    await end.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while sent := await reader.read(65536):
            writer.write(sent)
            await writer.drain()


@asynccontextmanager
async def lossy_way(url: str) -> AsyncIterator[LossyWay]:
    """A way to the server at this ``unix://`` URL, under a URL of its own."""
    way = LossyWay(urlsplit(url).path)
    server = await asyncio.start_server(way.serve, "127.0.0.1", 0)
    way.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield way
    finally:
        server.close()
        await server.wait_closed()
