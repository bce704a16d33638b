"""One HTTP/1.1 answer as its bytes come, no I/O (RFC 9112). llhttp reads it; what llhttp lets pass
and a worker never sends is refused here."""

from typing import NamedTuple

from aiohttp import ClientError
from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpResponseParser,
)
from multidict import CIMultiDict

HEADS_MAX = 8  # interim ones (100, 103) before an answer
_EMPTY = frozenset({204, 304})


class Unreadable(ClientError):
    """What came is not HTTP/1.1."""


class Head(NamedTuple):
    """``keeps``: the connection may carry another request after the body."""

    status: int
    headers: CIMultiDict[str]
    keeps: bool


class Reader:
    """One answer. ``head`` is there when it has come, ``whole`` says that the body has;
    ``ends_by_close``: only the end of the connection can tell.

    Args:
        head_bytes: at most so many of a head, or of what stands between a body's chunks.
    """

    def __init__(self, head_bytes: int) -> None:
        self.head: Head | None = None
        self.whole = self.ends_by_close = False
        self._head_bytes = head_bytes
        self._heads = 0
        self._headers: CIMultiDict[str] = CIMultiDict()
        self._size = 0  # of the headers
        self._framing = 0  # bytes since the head or the last piece of the body
        self._pieces: list[bytes] = []
        self._parser = HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in ``data``. Raises Unreadable."""
        if self.whole:
            raise Unreadable("more than its body")
        if not (self.head or self._heads or self._framing or data.startswith(b"H")):
            raise Unreadable("status line")  # llhttp skips empty lines, and reads RTSP and ICE
        self._framing += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except (HttpParserError, HttpParserUpgrade) as error:
            raise Unreadable(str(error)) from error
        if self._framing > self._head_bytes:
            raise Unreadable("the head is too long, or what stands between chunks")
        if self.whole:
            del self._parser  # it refers back to this
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # --- what the parser calls -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.head:
            raise Unreadable("more than its body")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head:  # a trailer
            return
        self._size += len(name) + len(value) + 4
        # No tabs: llhttp finds no coding it knows in "chunked<tab>", nor may we.
        self._headers.add(name.decode(), value.rstrip(b" ").decode("utf-8", "surrogateescape"))

    def on_headers_complete(self) -> None:
        status, headers = self._parser.get_status_code(), self._headers
        if self._parser.get_http_version() not in ("1.0", "1.1") or not 100 <= status < 600:
            raise Unreadable("status line")
        if self._size > self._head_bytes:
            raise Unreadable("the head is too long")
        self._framing = self._size = 0
        if status < 200:
            self._heads += 1
            if self._heads > HEADS_MAX:
                raise Unreadable("interim answer")
            self._headers = CIMultiDict()
            return
        codings = [coding.lower() for coding in headers.getall("Transfer-Encoding", ())]
        if status not in _EMPTY:
            if codings not in ([], ["chunked"]):
                raise Unreadable("transfer encoding")
            self.ends_by_close = not codings and "Content-Length" not in headers
        self.head = Head(status, headers, self._parser.should_keep_alive())

    def on_body(self, piece: bytes) -> None:
        if self.head is None:
            raise Unreadable("interim answer")  # llhttp gives some of them a body
        self._framing = 0
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        self.whole = self.head is not None
