"""A body asks for usage, and nothing else in it changes: not a byte."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission.accounting.usage_option import with_usage


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"model":"m"}', b'{"stream_options":{"include_usage":true},"model":"m"}'),
        (b'\n { "a" : 1 }', b'\n {"stream_options":{"include_usage":true}, "a" : 1 }'),
        (
            b'{"a":1, "stream_options" : null , "b":[{"stream_options":{}}]}',
            b'{"a":1, "stream_options" : {"include_usage":true} , "b":[{"stream_options":{}}]}',
        ),
        (b'{"stream_options":{}}', b'{"stream_options":{"include_usage":true}}'),
        (
            b'{"stream_options": { "include_usage" : false, "x":[1] },"z":1}',
            b'{"stream_options": { "include_usage" : true, "x":[1] },"z":1}',
        ),
        (
            b'{"stream_options":{"include_usage":null}}',
            b'{"stream_options":{"include_usage":true}}',
        ),
        (
            b'{"stream_options":{"x":{"include_usage":false}}}',
            b'{"stream_options":{"include_usage":true,"x":{"include_usage":false}}}',
        ),
        # Named in a text, and in a tool's schema: not the caller's own.
        (
            b'{"t":{"stream_options":{"include_usage":true}},"s":"\\"stream_options\\": {}"}',
            b'{"stream_options":{"include_usage":true},'
            b'"t":{"stream_options":{"include_usage":true}},"s":"\\"stream_options\\": {}"}',
        ),
        # Named twice: parsers take the last one.
        (
            b'{"stream_options":{"include_usage":true},"stream_options":{"k":1}}',
            b'{"stream_options":{"include_usage":true},'
            b'"stream_options":{"include_usage":true,"k":1}}',
        ),
        (
            b'{"stream\\u005foptions":{"include_usage":false},"q":"stream_options"}',
            b'{"stream\\u005foptions":{"include_usage":true},"q":"stream_options"}',
        ),
    ],
)
def test_the_option_is_set_and_nothing_else(body: bytes, sent: bytes) -> None:
    assert with_usage(body) == (sent, False)


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream_options":{"include_usage":true}}',
        b'{"stream_options": {"include_usage": "yes", "continuous_usage_stats": true}}',
    ],
)
def test_who_asks_is_left_as_it_is(body: bytes) -> None:
    assert with_usage(body) == (body, True)


@pytest.mark.parametrize("options", [b"[]", b'"text"', b"7", b"true", b'{"x":1e999}'])
def test_what_cannot_be_read_is_the_model_servers_to_refuse(options: bytes) -> None:
    body = b'{"stream_options":' + options + b',"model":"m"}'
    assert with_usage(body) == (body, True)


TEXT = st.text(max_size=8) | st.sampled_from(["stream_options", "include_usage", '\\"}{', "\n"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
OPTIONS = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "include_usage": st.sampled_from([None, False, True]),
        "x": VALUES,
        "continuous_usage_stats": st.booleans(),
    },
)


@given(
    others=st.dictionaries(TEXT.filter("stream_options".__ne__), VALUES, min_size=1, max_size=4),
    options=OPTIONS,
    has=st.booleans(),
    at=st.integers(0, 4),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_whatever_the_body_only_the_option_differs(
    others: dict[str, Any],
    options: dict[str, Any] | None,
    has: bool,
    at: int,
    ascii_only: bool,
    indent: int | None,
) -> None:
    pairs = list(others.items())
    if has:
        pairs.insert(at, ("stream_options", options))
    text = json.dumps(dict(pairs), ensure_ascii=ascii_only, indent=indent)
    body = text.encode(errors="surrogatepass").decode(errors="replace").encode()
    sent, asked = with_usage(body)
    before, after = json.loads(body), json.loads(sent)
    assert asked == bool(has and options and options.get("include_usage"))
    options_before = before.pop("stream_options", None) or {}
    assert after.pop("stream_options") == {**options_before, "include_usage": True}
    assert after == before
    assert len(sent) - len(body) <= len(b'"stream_options":{"include_usage":true},')
