"""Sets ``stream_options.include_usage`` in a body and leaves all its other bytes as they are.

https://platform.openai.com/docs/api-reference/chat/create#chat-create-stream_options, which vLLM
follows (0.32, entrypoints/serve/utils/api_utils.py).
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

_MEMBER = b'"include_usage":true'
_OPTION = b'"stream_options":{' + _MEMBER + b"}"
# Possessive: a prompt is one token of megabytes, and a backtracking loop would remember each step.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]++', re.DOTALL)


class _Options(msgspec.Struct):
    stream_options: Any = None


_OPTIONS = msgspec.json.Decoder(_Options)


def with_usage(body: bytes) -> tuple[bytes, bool]:
    """The body that asks for usage, and whether it did so before.

    Args:
        body: a JSON object that can be read.
    """
    try:
        options = _OPTIONS.decode(body).stream_options if b"stream_options" in body else None
    except msgspec.MsgspecError:
        return body, True  # which is the model server's to refuse
    if options is None:
        start = body.index(b"{") + 1
        span = _value(body, start - 1, "stream_options") if b"stream_options" in body else None
        if span:  # it says null
            return _put(body, span, b"{" + _MEMBER + b"}"), False
        return _put(body, (start, start), _OPTION + b","), False
    if not isinstance(options, dict):
        return body, True
    if options.get("include_usage") not in (None, False):
        return body, True
    span = _value(body, body.index(b"{"), "stream_options")
    assert span is not None, "it was just read"
    inner = _value(body, span[0], "include_usage")
    if inner:
        return _put(body, inner, b"true"), False
    start = span[0] + 1
    return _put(body, (start, start), _MEMBER + (b"," if options else b"")), False


def _put(body: bytes, span: tuple[int, int], new: bytes) -> bytes:
    return body[: span[0]] + new + body[span[1] :]


def _value(body: bytes, at: int, name: str) -> tuple[int, int] | None:
    """Where the value of the member ``name`` stands in the object that begins at ``at``; of
    several the last, as parsers read it."""
    found = None
    for key, start, end in _members(body, at):
        if name.encode() in key or b"\\" in key:
            found = (start, end) if msgspec.json.decode(key) == name else found
    return found


def _members(body: bytes, at: int) -> Iterator[tuple[bytes, int, int]]:
    """Each member of the object that begins at ``at``: its key, and from where to where its value
    stands."""
    depth, key, start, end = 0, b"", 0, 0
    for token in _TOKEN.finditer(body, at):
        text = token[0]
        if text in b"}]":
            depth -= 1
        if depth <= 1 and text in (b",", b"}"):
            if key and start:
                yield key, start, end
            key, start = b"", 0
            if depth == 0:
                return
        elif depth == 1 and not key:
            key = text
        elif depth and not (depth == 1 and text == b":"):
            start, end = start or token.start(), token.end()
        if text in b"{[":
            depth += 1
