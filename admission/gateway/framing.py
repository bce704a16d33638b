"""Where an HTTP/1.1 answer's head ends and its body: bytes in, bytes out, no I/O (RFC 9112)."""

import re
from typing import NamedTuple

from aiohttp import ClientError
from multidict import CIMultiDict

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n\0]*)?")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_LENGTH = re.compile(r"[0-9]{1,15}")
_LINE_BYTES_MAX = 4_096  # before a chunk, or behind the last
_EMPTY = frozenset({204, 304})


class Unreadable(ClientError):
    """What came is not HTTP/1.1."""


class Head(NamedTuple):
    """``keeps``: the connection may carry another request after the body."""

    status: int
    headers: CIMultiDict[str]
    keeps: bool


def read_head(raw: bytes) -> Head:
    """The head, without the empty line behind it.

    Raises:
        Unreadable: it is none.
    """
    first, *lines = raw.split(b"\r\n")
    found = _STATUS_LINE.fullmatch(first)
    if not found:
        raise Unreadable("status line")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name) or b"\n" in value or b"\r" in value:
            raise Unreadable("header")
        if b"\0" in value:
            raise Unreadable("header")
        headers.add(name.decode(), value.strip(b" \t").decode("utf-8", "surrogateescape"))
    said = ",".join(headers.getall("Connection", ())).lower()
    keeps = "close" not in said and (found[1] == b"1" or "keep-alive" in said)
    return Head(int(found[2]), headers, keeps)


class Sized:
    """A body of a known length."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.whole = not length

    def feed(self, data: bytes) -> bytes:
        """What of ``data`` belongs to the body. Raises Unreadable when there is more."""
        self._left -= len(data)
        if self._left < 0:
            raise Unreadable("more than its length")
        self.whole = not self._left
        return data


class UntilClose:
    """A body that ends with its connection."""

    whole = False

    def feed(self, data: bytes) -> bytes:
        return data


class Chunked:
    """A body in chunks; trailers are dropped."""

    def __init__(self) -> None:
        self._rest = b""  # less than a line
        self._left = 0  # of a chunk's bytes
        self._ended = False  # the last chunk's size was read, trailers follow
        self._gap = False  # a chunk's closing line end is due
        self.whole = False

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in ``data``. Raises Unreadable."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        parts, at, end = [], 0, len(data)
        while at < end:
            if self._left:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                self._gap = not self._left
                continue
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                if end - at > _LINE_BYTES_MAX:
                    raise Unreadable("chunk")
                self._rest = data[at:]
                break
            line, at = data[at:line_end], line_end + 2
            self._take_line(line, surplus=at < end)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take_line(self, line: bytes, *, surplus: bool) -> None:
        if self._gap:
            if line:
                raise Unreadable("chunk")
            self._gap = False
        elif self._ended:
            self.whole = not line
            if self.whole and surplus:
                raise Unreadable("more than its chunks")
        else:
            size = line.partition(b";")[0].rstrip(b" \t")
            if not _SIZE.fullmatch(size):
                raise Unreadable("chunk")
            self._left = int(size, 16)
            self._ended = not self._left


Body = Sized | UntilClose | Chunked


def body_of(head: Head) -> Body:
    """How the body behind this head ends.

    Raises:
        Unreadable: the head says it in two ways.
    """
    lengths = set(head.headers.getall("Content-Length", ()))
    codings = head.headers.getall("Transfer-Encoding", ())
    if head.status in _EMPTY:
        return Sized(0)
    if codings:
        if lengths or [coding.lower() for coding in codings] != ["chunked"]:
            raise Unreadable("transfer encoding")
        return Chunked()
    if not lengths:
        return UntilClose()
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise Unreadable("length")
    return Sized(int(length))
