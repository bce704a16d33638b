"""Cuts off who reads nothing of its answer: what waits for them fills memory and holds a worker,
or their place in the queue.

aiohttp waits for such a caller without end. It tells its protocol when the connection takes no more
(``pause_writing``), which is where the time begins (3.14: ``base_protocol.BaseProtocol``). What
fits into the kernel's buffers, as a place and a ping do, the kernel watches: a machine that is gone
without a word acknowledges none of it, which Linux by itself bears for a quarter of an hour
(tcp(7): TCP_USER_TIMEOUT, tcp_retries2).
"""

import asyncio
import logging
import socket
import sys

from aiohttp.web_protocol import RequestHandler

from admission import logs

INT_MAX = 2**31 - 1  # what the kernel takes

log = logging.getLogger(__name__)


class Patient(RequestHandler):
    """One connection. ``patience_s``: how long its caller may read nothing while bytes wait."""

    __slots__ = ("_losing_patience", "patience_s")

    patience_s: float
    _losing_patience: asyncio.TimerHandle | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if sys.platform == "linux":
            connection = transport.get_extra_info("socket")
            limit_ms = min(round(1000 * self.patience_s), INT_MAX)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)

    def pause_writing(self) -> None:
        super().pause_writing()
        loop = asyncio.get_running_loop()
        self._losing_patience = loop.call_later(self.patience_s, self._cut)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._calm()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._calm()
        if isinstance(exc, TimeoutError):
            self._log()
        super().connection_lost(exc)

    def _calm(self) -> None:
        handle = getattr(self, "_losing_patience", None)
        if handle is not None:
            handle.cancel()
            self._losing_patience = None

    def _cut(self) -> None:
        self._log()
        if self.transport is not None:
            self.transport.abort()

    def _log(self) -> None:
        logs.event(log, "caller_reads_nothing", logging.WARNING, after_s=self.patience_s)
