"""HTTP/1.1 to the workers: connections that are kept, one request at a time on each.

A client of our own, because the usual one costs more than all the rest of a call: 150 of 470 µs
with aiohttp 3.14, 35 here (``bench.gateway``, with a parser slower than today's), and for each
chunk of a stream half of it. What the bytes mean is httptools' to say (``framing``). It knows only
what a gateway needs: the body is in memory, the answer passes as it comes, undecoded, and is
given up by closing the connection. No redirects, no cookies, no retries.
"""

import asyncio
import ssl
from collections import defaultdict, deque
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple, Self, cast
from urllib.parse import urlsplit

from aiohttp import ClientError, Fingerprint
from multidict import CIMultiDict

from admission.gateway.framing import Reader, Unreadable

UNREAD_BYTES_MAX = 65_536  # of an answer; then the worker is not read from until its reader comes


class NotConnected(ClientError):
    """Nobody listens there, or somebody else; nothing was sent."""


class Disconnected(ClientError):
    """The connection was lost after the request had gone out, in front of or in its answer."""


class Silence(TimeoutError):
    """Nothing came for too long, or the whole took too long."""


class Limits(NamedTuple):
    """Seconds to connect, between two pieces of an answer, and for all of it; how long a connection
    is kept unused; and bytes of an answer's head."""

    connect_s: float
    silence_s: float
    total_s: float
    idle_s: float
    head_bytes: int


class Address(NamedTuple):
    """Where a worker listens. ``base``: the path before every path."""

    host: str
    port: int
    tls: bool
    netloc: str
    base: str


@lru_cache(maxsize=4096)
def address_of(url: str) -> Address:
    """The parts of a worker's address. Raises ValueError when it is none."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    if not tls and parts.scheme != "http":
        raise ValueError(f"{parts.scheme}: not http or https")
    port = parts.port or (443 if tls else 80)
    netloc = parts.netloc.rpartition("@")[2]
    return Address(parts.hostname or "", port, tls, netloc, parts.path.rstrip("/"))


class Connections:
    """All connections of this process to workers."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._idle: defaultdict[tuple[str, object], deque[Connection]] = defaultdict(deque)
        self._open: set[Connection] = set()
        self._reaper: asyncio.TimerHandle | None = None

    async def request(  # noqa: PLR0913 - one request
        self,
        url: str,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        trust: Fingerprint | bool = True,
    ) -> "Answer":
        """The answer, whose head has come; close it when you are done.

        Args:
            url: the worker's. path: with its query, as it goes out.
            trust: of https; True is the usual check, else this certificate alone.

        Raises:
            NotConnected, ServerFingerprintMismatch: nothing was sent.
            Disconnected, Unreadable, Silence: before the head was whole.
        """
        address = address_of(url)
        sent = _request_bytes(address, method, path, headers, body)
        key = (url, trust)
        connection = self._kept(key) or await self._connect(address, trust)
        answer = Answer(self, key, connection)
        try:
            await connection.ask(answer, sent)
        except BaseException:
            connection.abort()
            raise
        return answer

    def keep(self, key: tuple[str, object], connection: "Connection") -> None:
        """It may carry another request."""
        loop = asyncio.get_running_loop()
        connection.idle_since_s = loop.time()
        self._idle[key].append(connection)
        if self._reaper is None:
            self._reaper = loop.call_later(self._limits.idle_s, self._reap)

    async def close(self) -> None:
        """Close all; what is under way is cut."""
        loop = asyncio.get_running_loop()
        if self._reaper:
            self._reaper.cancel()
        for connection in list(self._open):
            connection.fail(Disconnected("closed here"))
        self._idle.clear()
        told = loop.create_future()  # the transports tell their protocols in the loop's next turn
        loop.call_soon(told.set_result, None)
        await told

    def _kept(self, key: tuple[str, object]) -> "Connection | None":
        """The one used last, if it was a moment ago: a worker closes those it forgot."""
        idle = self._idle.get(key)
        since_s = asyncio.get_running_loop().time() - self._limits.idle_s
        while idle:
            connection = idle.pop()
            if connection.is_usable and connection.idle_since_s >= since_s:
                return connection
            connection.abort()
        return None

    def _reap(self) -> None:
        """Close what nobody needed; those used longest ago stand first."""
        loop = asyncio.get_running_loop()
        since_s = loop.time() - self._limits.idle_s
        for key, idle in list(self._idle.items()):
            while idle and not (idle[0].is_usable and idle[0].idle_since_s > since_s):
                idle.popleft().abort()
            if not idle:
                del self._idle[key]
        self._reaper = loop.call_later(self._limits.idle_s / 2, self._reap) if self._idle else None

    async def _connect(self, address: Address, trust: Fingerprint | bool) -> "Connection":
        loop = asyncio.get_running_loop()
        context = _tls(isinstance(trust, Fingerprint)) if address.tls else None
        connection = Connection(self._limits, self._open)
        try:
            async with asyncio.timeout(self._limits.connect_s):
                transport, _ = await loop.create_connection(
                    lambda: connection,
                    address.host,
                    address.port,
                    ssl=context,
                    server_hostname=address.host if context else None,
                )
        except (OSError, TimeoutError, ValueError) as error:  # the last: no host has such a name
            self._open.discard(connection)
            raise NotConnected(type(error).__name__) from error
        except asyncio.CancelledError:  # uvloop closes it, and tells it of no end
            self._open.discard(connection)
            raise
        if context and isinstance(trust, Fingerprint):
            try:
                trust.check(transport)
            except ClientError:
                connection.abort()
                raise
        return connection


@lru_cache(maxsize=2)
def _tls(pinned: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if pinned:  # who made the certificate says nothing; it is compared
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _request_bytes(
    address: Address, method: str, path: str, headers: Mapping[str, str], body: bytes | None
) -> bytes:
    """The whole request. Raises ValueError when a header would be two."""
    lines = [f"{method} {address.base}{path} HTTP/1.1", f"Host: {address.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1 or "\0" in head:
        raise ValueError("a header with a line end in it")
    return head.encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b"")


class Answer:
    """One answer, as it comes: iterated, it gives the body's pieces. ``status`` and ``headers`` are
    there from the beginning."""

    def __init__(
        self, connections: Connections, key: tuple[str, object], connection: "Connection"
    ) -> None:
        self._connections, self._key = connections, key
        self._connection: Connection | None = connection
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()

    @property
    def content_type(self) -> str:
        """Without its parameters, in small letters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Of the body what came since the last piece, as one.

        Raises:
            Disconnected, Unreadable, Silence: it is not whole.
        """
        while (connection := self._connection) is not None:
            piece = connection.take()
            if piece:
                return piece
            if connection.is_whole:
                self.close()
            else:
                await connection.more()
        raise StopAsyncIteration

    async def read(self, most: int) -> bytes:
        """The body, or its first ``most`` bytes. Raises what went wrong meanwhile."""
        parts, size = [], 0
        async for piece in self:
            parts.append(piece)
            size += len(piece)
            if size >= most:
                break
        return b"".join(parts)[:most]

    def close(self) -> None:
        """Done with it: the connection is kept when the answer is whole, else closed, which ends
        the work at the worker. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.is_whole and connection.is_usable:
            self._connections.keep(self._key, connection)
        else:
            connection.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Connection(asyncio.Protocol):
    """One connection, and the one answer on it."""

    def __init__(self, limits: Limits, opened: "set[Connection]") -> None:
        self._limits, self._opened = limits, opened
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._reader = Reader(limits.head_bytes)
        self._keeps = True
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ends_s = self._heard_s = 0.0
        self.idle_since_s = 0.0
        self.is_whole = True

    @property
    def is_usable(self) -> bool:
        """May it carry a request? Not while one is still going out: its answer came early."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._error or not self._keeps:
            return False
        return not transport.get_write_buffer_size()

    async def ask(self, answer: Answer, sent: bytes) -> None:
        """Returns when the answer's head has come. Raises as ``Connections.request``."""
        if self._transport is None:
            raise Disconnected("closed")
        self._answer, self._reader = answer, Reader(self._limits.head_bytes)
        self._unread, self._unread_bytes = [], 0  # of the answer before, which nobody read
        self.is_whole = False
        self._heard_s = self._loop.time()
        self._ends_s = self._heard_s + self._limits.total_s
        if self._timer is None:  # that of the answer before may still run, and looks for this one
            self._timer = self._loop.call_at(self._deadline_s(), self._look)
        self._transport.write(sent)
        while self._reader.head is None:
            await self.more()

    def take(self) -> bytes:
        """What came and was not taken yet."""
        unread = self._unread
        if not unread:
            return b""
        piece = unread[0] if len(unread) == 1 else b"".join(unread)
        self._unread, self._unread_bytes = [], 0
        if self._paused and self._transport:
            self._paused = False
            self._heard_s = self._loop.time()
            self._transport.resume_reading()
        return piece

    async def more(self) -> None:
        """Returns when something came, or the end. Raises what went wrong."""
        if self._error:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def abort(self) -> None:
        """Close it now; nobody reads on."""
        self._keeps = False
        if self._timer:
            self._timer.cancel()
        if self._transport:
            self._transport.abort()

    # --- what the event loop calls ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._opened.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.discard(self)
        self._transport = None
        if self.is_whole or self._error:  # what we closed ourselves is no answer's end
            return
        if exc is None and self._reader.ends_by_close:
            self._finish()
        else:
            self.fail(Disconnected(type(exc).__name__ if exc else "closed"))

    def data_received(self, data: bytes) -> None:
        if self.is_whole or self._error:  # nobody asked for this
            self.abort()
            return
        self._heard_s = self._loop.time()
        try:
            piece = self._reader.feed(data)
        except Unreadable as error:
            self.fail(error)
            return
        head = self._reader.head
        if head is None:
            return
        if self._answer:  # the head has just come
            self._answer.status, self._answer.headers, self._keeps = head
            self._answer = None
        if piece:
            self._hold(piece)
        if self._reader.whole:
            self._finish()
        self._wake()

    def _hold(self, piece: bytes) -> None:
        """Until its reader comes."""
        self._unread.append(piece)
        self._unread_bytes += len(piece)
        if self._unread_bytes > UNREAD_BYTES_MAX and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()

    def _finish(self) -> None:
        self.is_whole = True
        if self._paused and self._transport:
            self._paused = False
            self._transport.resume_reading()
        self._wake()

    def fail(self, error: Exception) -> None:
        """Close it now; who reads on hears why."""
        self._error = error
        self.abort()
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter and not waiter.done():
            if self._error:
                waiter.set_exception(self._error)
            else:
                waiter.set_result(None)

    def _deadline_s(self) -> float:
        return min(self._heard_s + self._limits.silence_s, self._ends_s)

    def _look(self) -> None:
        """Has it been silent for too long? A reader that lets it wait is not its silence."""
        self._timer = None
        if self.is_whole:
            return
        now_s = self._loop.time()
        if self._paused:
            self._heard_s = now_s
        if now_s < self._deadline_s():
            self._timer = self._loop.call_at(self._deadline_s(), self._look)
        else:
            self.fail(Silence("total" if now_s >= self._ends_s else "silence"))
