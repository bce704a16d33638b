"""Find the usage in an answer as it passes: one reader for each form an answer may have.

Cheap by design: a search for a few bytes in each chunk, and JSON is read once, at the end.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

EVENT_BYTES_MAX = 4_194_304
"""One event or line that is longer passes unread: nobody's answer waits for so much."""
WHOLE_BYTES_MAX = 1_048_576
"""A longer answer in one piece (vectors, mostly) is not kept; its usage stands near its end."""
TAIL_BYTES = 65_536
COUNT_MAX = 1_000_000_000
"""A server that says more of one request is not believed."""

_MARK = b'"usage"'  # in a JSON string the quotes would be escaped
_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_EVENT = re.compile(rb".*?(?:\r?\n\r?\n|\r\r)", re.DOTALL)
_DATA = re.compile(rb"^data:(.*?)\r?$", re.MULTILINE)


class Counts(msgspec.Struct):
    """Tokens as one of the APIs names them."""

    prompt_tokens: int | None = None  # OpenAI: chat, completions, embeddings
    completion_tokens: int | None = None
    input_tokens: int | None = None  # OpenAI: responses
    output_tokens: int | None = None
    prompt_eval_count: int | None = None  # Ollama
    eval_count: int | None = None

    @property
    def pair(self) -> tuple[int, int] | None:
        """Prompt and completion tokens; None where neither is named."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        if prompt is None and completion is None:
            prompt, completion = self.input_tokens, self.output_tokens
        if prompt is None and completion is None:
            prompt, completion = self.prompt_eval_count, self.eval_count
        if prompt is None and completion is None:
            return None
        return _sane(prompt), _sane(completion)


class _Inner(msgspec.Struct):
    usage: Counts | None = None


class _Answer(Counts):
    usage: Counts | None = None
    response: msgspec.Raw = msgspec.Raw()  # of a streamed response its whole, of Ollama a text
    choices: Any = None

    @property
    def found(self) -> tuple[int, int] | None:
        usage = self.usage
        if usage is None and bytes(self.response).startswith(b"{"):
            usage = _INNER.decode(self.response).usage
        return usage.pair if usage else self.pair


_ANSWER = msgspec.json.Decoder(_Answer)
_INNER = msgspec.json.Decoder(_Inner)
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


class Reader(Protocol):
    """What an answer of one form is read with."""

    pieces: int  # so many events or lines have come

    def feed(self, chunk: bytes) -> bytes:
        """What to pass on now of this chunk and of those before."""

    def end(self) -> bytes:
        """What was held back, at the end of the answer."""

    def found(self) -> tuple[int, int] | None:
        """Prompt and completion tokens, when the answer has said."""


class Blind:
    """An answer of which nothing is read: an error, or a form nobody knows."""

    pieces = 0

    def feed(self, chunk: bytes) -> bytes:
        return chunk

    def end(self) -> bytes:
        return b""

    def found(self) -> None:
        return None


class Whole:
    """An answer that is one JSON value."""

    pieces = 0

    def __init__(self) -> None:
        self._kept = bytearray()
        self._cut = False

    def feed(self, chunk: bytes) -> bytes:
        self._kept += chunk
        if len(self._kept) > WHOLE_BYTES_MAX:
            self._cut = True
            del self._kept[:-TAIL_BYTES]
        return chunk

    def end(self) -> bytes:
        return b""

    def found(self) -> tuple[int, int] | None:
        if not self._cut:
            return _found(self._kept)
        places = [match.end() for match in _USAGE.finditer(self._kept)]
        if not places:
            return None
        try:
            text = self._kept[places[-1] :].decode(errors="replace")
            usage, _ = json.JSONDecoder().raw_decode(text)
            return msgspec.convert(usage, Counts).pair
        except (ValueError, *_UNREADABLE):
            return None


class Lines:
    """Ollama's stream: one JSON object a line, the last one with the counts
    (https://github.com/ollama/ollama/blob/main/docs/api.md)."""

    def __init__(self) -> None:
        self.pieces = 0
        self._tail = b""
        self._last = b""

    def feed(self, chunk: bytes) -> bytes:
        self.pieces += chunk.count(b"\n")
        lines, newline, tail = (self._tail + chunk).rpartition(b"\n")
        self._tail = tail if len(tail) <= EVENT_BYTES_MAX else b""
        if newline and b'eval_count"' in lines:
            named = [line for line in lines.split(b"\n") if b'eval_count"' in line]
            self._last = named[-1]
        return chunk

    def end(self) -> bytes:
        return b""

    def found(self) -> tuple[int, int] | None:
        return _found(self._last or self._tail)


class Events:
    """A stream of server-sent events, from which the one with the usage may be taken out."""

    def __init__(self, *, hides: bool) -> None:
        """``hides``: the caller has not asked for usage and does not see its event."""
        self.pieces = 0
        self._hides = hides
        self._tail = b""  # an event that is not whole yet; held back when ``hides``
        self._last = b""  # the latest event with a usage

    def feed(self, chunk: bytes) -> bytes:
        self.pieces += chunk.count(b"\n\n")
        data = self._tail + chunk
        marked = _MARK in data
        if not self._tail and not marked and chunk.endswith(b"\n\n"):
            return chunk  # whole events, as they mostly come
        end = _end(data)
        self._tail = data[end:]
        passed = self._read(data[:end]) if marked else data[:end]
        hides = self._hides
        if len(self._tail) > EVENT_BYTES_MAX:
            passed, self._tail, self._hides = passed + self._tail, b"", False
        return passed if hides else chunk

    def end(self) -> bytes:
        return self._tail if self._hides else b""

    def found(self) -> tuple[int, int] | None:
        return _found(_data(self._last))

    def _read(self, events: bytes) -> bytes:
        """The events without the one that is hidden."""
        kept, done = [], 0
        for start, end in _marked(events):
            event = events[start:end]
            if _USAGE.search(event):
                self._last = event
                if self._hides and _is_extra(event):
                    kept.append(events[done:start])
                    done = end
        return b"".join((*kept, events[done:])) if done else events


def _end(data: bytes) -> int:
    """Where the last whole event ends; 0 when none is."""
    end = data.rfind(b"\n\n") + 2
    if b"\r" in data:
        end = max(end, data.rfind(b"\n\r\n") + 3, data.rfind(b"\r\r") + 2)
    return end if end > 2 else 0


def _marked(events: bytes) -> Iterator[tuple[int, int]]:
    """Where the events that have the mark begin and end."""
    if b"\r" in events:  # any line end may stand anywhere
        yield from (each.span() for each in _EVENT.finditer(events) if _MARK in each[0])
        return
    end = 0
    while (mark := events.find(_MARK, end)) >= 0:
        before = events.rfind(b"\n\n", end, mark)
        start = end if before < 0 else before + 2
        end = events.index(b"\n\n", mark) + 2
        yield start, end


def _is_extra(event: bytes) -> bool:
    """Is this the event that came only because usage was asked for?"""
    if not _NO_CHOICES.search(event):
        return False
    try:
        answer = _ANSWER.decode(_data(event))
    except _UNREADABLE:
        return False
    return answer.choices == [] and answer.usage is not None


def _data(event: bytes) -> bytes:
    line, end, more = event.partition(b"\n")
    if end and more == b"\n" and line.startswith(b"data:"):  # as they mostly are
        return line[5:]
    return b"\n".join(_DATA.findall(event))


def _found(text: bytes | bytearray) -> tuple[int, int] | None:
    try:
        return _ANSWER.decode(text).found if text else None
    except _UNREADABLE:
        return None


def _sane(count: int | None) -> int:
    return min(max(0, count or 0), COUNT_MAX)
