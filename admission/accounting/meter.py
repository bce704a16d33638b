"""Reads the tokens off one call and its answer, which pass byte by byte.

A streamed chat or completion is asked for its usage where its caller did not; the event that then
comes is taken out of the answer again. Knows bytes; nothing of HTTP, users or limits.
"""

from typing import Any, NamedTuple

import msgspec

from admission.accounting.readers import Blind, Events, Lines, Reader, Whole
from admission.accounting.usage_option import with_usage

KINDS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
    "/v1/embeddings": "embedding",
    "/v1/responses": "response",
    "/api/chat": "chat",
    "/api/generate": "completion",
    "/api/embed": "embedding",
    "/api/embeddings": "embedding",
}
"""Kind of endpoint by path; the others are "other"."""
COUNTS = frozenset({"/v1/messages/count_tokens"})
"""Whose answer is a number of tokens that nobody computed."""
_WITH_OPTION = ("/v1/chat/completions", "/v1/completions")
CHARACTERS_PER_TOKEN = 4  # of English text, https://platform.openai.com/tokenizer


class Tokens(NamedTuple):
    """What one request used."""

    prompt: int
    completion: int
    estimated: bool

    @property
    def total(self) -> int:
        return self.prompt + self.completion


class Meter:
    """One call to a model server, and its answer.

    Send ``body``; tell ``begin`` the answer's head; pass on what ``feed`` and at last ``end`` give
    instead of the chunks. ``tokens`` may be asked at any time, also when the answer was cut. An
    answer must come unpacked (``Accept-Encoding: identity``), or nothing can be read in it.

    Attributes:
        kind: of endpoint, one of ``KINDS`` or "other".
        body: the caller's, with ``stream_options.include_usage`` where that was missing.
        hides: an event may be taken out, so a ``Content-Length`` of the answer is not true.
    """

    def __init__(self, path: str, body: bytes, *, streams: bool) -> None:
        """``path``: without the query. ``body``: a JSON object that was read once."""
        self.kind, self._counts = KINDS.get(path, "other"), path in COUNTS
        self.body, asked = body, True
        if streams and path in _WITH_OPTION:
            self.body, asked = with_usage(body)
        self.hides = not asked
        self._given = body
        self._reader: Reader | None = None

    def begin(self, status: int, content_type: str) -> None:
        """The answer's head has come; once more for another worker's. ``content_type`` may carry
        parameters."""
        media = content_type.partition(";")[0].strip().lower()
        self._reader = Blind()
        if status >= 400 or self._counts:
            return
        if media == "text/event-stream":
            self._reader = Events(hides=self.hides)
        elif media == "application/x-ndjson":
            self._reader = Lines()
        elif media == "application/json":
            self._reader = Whole()

    def feed(self, chunk: bytes) -> bytes:
        """What to pass on now: mostly the chunk itself, perhaps nothing. An event that came in
        parts is passed on when it is whole, if it could be the hidden one."""
        assert self._reader is not None, "begin comes first"
        return self._reader.feed(chunk)

    def end(self) -> bytes:
        """What is still to be passed on when the answer has ended by itself; mostly nothing."""
        return b"" if self._reader is None else self._reader.end()

    @property
    def tokens(self) -> Tokens:
        """What was used so far.

        Where the model server has not said (an answer that was cut, or a server that never does)
        it is estimated: a prompt has one token for each 4 characters of its text, pictures and
        sounds none; an answer one for each event or line that came, but for the first of a chat,
        which is empty (vLLM sends one event a token, or one for some). Nothing was used when no
        answer began, or when it was an error.
        """
        reader = self._reader
        if reader is None or isinstance(reader, Blind):
            return Tokens(0, 0, estimated=False)
        found = reader.found()
        if found:
            return Tokens(*found, estimated=False)
        empty = 1 if self.kind == "chat" and isinstance(reader, Events) else 0
        return Tokens(_prompt_tokens(self._given), max(0, reader.pieces - empty), estimated=True)


class _Prompt(msgspec.Struct):
    messages: Any = None
    prompt: Any = None
    input: Any = None


_PROMPT = msgspec.json.Decoder(_Prompt)
_TEXT = ("content", "text", "prompt", "input")


def _prompt_tokens(body: bytes) -> int:
    try:
        prompt = _PROMPT.decode(body)
        size = _size([prompt.messages, prompt.prompt, prompt.input])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return 0
    return -(-size // CHARACTERS_PER_TOKEN)


def _size(value: Any) -> int:
    """Characters of the texts in it; numbers in a list are tokens already."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_size, value))
    if isinstance(value, dict):
        return sum(_size(value.get(name)) for name in _TEXT)
    return CHARACTERS_PER_TOKEN if type(value) is int else 0
