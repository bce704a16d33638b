"""The tokens of a call are read as its answer passes, and its caller sees what it asked for."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from admission.accounting.meter import Meter, Tokens
from admission.accounting.readers import EVENT_BYTES_MAX
from tests.accounting.shapes import CHAT, DONE, SHAPES, SSE, Shape

BODY = b'{"model":"tiny","messages":[{"role":"user","content":"12345678"}],"stream":true}'


def metered(shape: Shape, chunks: Iterable[bytes], body: bytes = BODY) -> tuple[Meter, bytes]:
    """The meter after the answer, and what the caller got."""
    meter = Meter(shape.path, body, streams=True)
    meter.begin(200, shape.media)
    got = b"".join(map(meter.feed, chunks))
    return meter, got + meter.end()


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in zip(borders, borders[1:], strict=False)]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_tokens_are_read_and_the_extra_event_is_hidden(shape: Shape) -> None:
    meter, got = metered(shape, [shape.sent])
    assert got == shape.sent.replace(shape.hidden, b"") if shape.hidden else shape.sent
    assert meter.tokens == Tokens(*shape.tokens, estimated=False)


def test_counted_tokens_are_no_used_ones() -> None:
    meter = Meter("/v1/messages/count_tokens", BODY, streams=False)
    meter.begin(200, "application/json")
    assert meter.feed(b'{"input_tokens": 1000}') + meter.end() == b'{"input_tokens": 1000}'
    assert meter.tokens == Tokens(0, 0, estimated=False)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_who_asked_sees_every_byte_at_once(shape: Shape) -> None:
    asked = b'{"stream_options":{"include_usage":true},"model":"tiny"}'
    meter = Meter(shape.path, asked, streams=True)
    assert (meter.body, meter.hides) == (asked, False)
    meter.begin(200, shape.media)
    for chunk in cut(shape.sent, range(0, len(shape.sent), 97)):
        assert meter.feed(chunk) == chunk
    assert meter.end() == b""
    assert meter.tokens == Tokens(*shape.tokens, estimated=False)


SMALL = [shape for shape in SHAPES.values() if len(shape.sent) < 10_000]


@given(shape=st.sampled_from(SMALL), places=st.lists(st.integers(0, 2000), max_size=12))
@example(shape=SHAPES["CRLF and comments"], places=list(range(2000)))
@example(shape=SHAPES["vLLM chat"], places=list(range(2000)))
def test_wherever_the_chunks_are_cut(shape: Shape, places: list[int]) -> None:
    meter, got = metered(shape, cut(shape.sent, places))
    assert got == (shape.sent.replace(shape.hidden, b"") if shape.hidden else shape.sent)
    assert meter.tokens == Tokens(*shape.tokens, estimated=False)


@given(shape=st.sampled_from(SMALL), places=st.lists(st.integers(0, 2000), max_size=5))
def test_whole_events_are_not_held_back(shape: Shape, places: list[int]) -> None:
    """What has come of whole events has gone out, but for the hidden one."""
    meter = Meter(shape.path, BODY, streams=True)
    meter.begin(200, shape.media)
    came, got = b"", b""
    for chunk in cut(shape.sent, places):
        came, got = came + chunk, got + meter.feed(chunk)
        if came.endswith(b"\n\n"):
            hidden = shape.hidden and shape.hidden in came
            assert got == (came.replace(shape.hidden, b"") if hidden else came)


def test_only_a_stream_of_a_path_with_the_option_is_asked() -> None:
    assert Meter(CHAT, BODY, streams=True).hides
    for path, streams in [(CHAT, False), ("/v1/responses", True), ("/api/chat", True)]:
        meter = Meter(path, BODY, streams=streams)
        assert (meter.body, meter.hides) == (BODY, False)


def test_a_cut_stream_is_estimated_by_its_events() -> None:
    shape = SHAPES["vLLM chat"]
    end_of_second = shape.sent.index(b"\n\n", shape.sent.index(b"The")) + 2
    meter, _ = metered(shape, [shape.sent[: end_of_second + 20]])
    assert meter.tokens == Tokens(2, 1, estimated=True)  # 8 characters; an empty event, one more


def test_a_cut_stream_that_says_its_usage_as_it_goes_is_believed() -> None:
    usage = b'"usage":{"prompt_tokens":5,"completion_tokens":%d}'
    event = b'data: {"choices":[{"delta":{}}],' + usage + b"}\n\n"
    meter, got = metered(SHAPES["vLLM chat"], [event % 1, event % 2, b"data: {"])
    assert meter.tokens == Tokens(5, 2, estimated=False)
    assert got.startswith(event % 1 + event % 2)


def test_pictures_are_no_text() -> None:
    parts = [
        {"type": "text", "text": "1234"},
        {"type": "image_url", "image_url": {"url": "data:" + "x" * 9999}},
    ]
    body = json.dumps({"messages": [{"role": "user", "content": parts}]}).encode()
    meter, _ = metered(SHAPES["vLLM chat"], [b"data: {}\n\n"], body)
    assert meter.tokens == Tokens(1, 0, estimated=True)


@pytest.mark.parametrize("status", [400, 429, 503])
def test_an_error_costs_nothing_and_passes_as_it_is(status: int) -> None:
    meter = Meter(CHAT, BODY, streams=True)
    meter.begin(status, "application/json")
    assert meter.feed(b'{"usage":{"prompt_tokens":1}}') == b'{"usage":{"prompt_tokens":1}}'
    assert (meter.end(), meter.tokens.total) == (b"", 0)


def test_before_an_answer_nothing_was_used() -> None:
    assert Meter(CHAT, BODY, streams=True).tokens == Tokens(0, 0, estimated=False)


def test_an_event_too_long_to_wait_for_passes() -> None:
    meter = Meter(CHAT, BODY, streams=True)
    meter.begin(200, SSE)
    long = b"data: " + b"x" * EVENT_BYTES_MAX
    assert meter.feed(long) == long
    assert meter.feed(b"\n\n" + DONE) == b"\n\n" + DONE


def test_of_an_event_that_grew_too_long_nothing_is_missing() -> None:
    meter = Meter(CHAT, BODY, streams=True)
    meter.begin(200, SSE)
    halves = [b"data: " + b"x" * (EVENT_BYTES_MAX // 2), b"y" * (EVENT_BYTES_MAX // 2)]
    assert b"".join(map(meter.feed, halves)) + meter.end() == b"".join(halves)


@pytest.mark.parametrize(
    "usage", [b'"text"', b"[]", b'{"prompt_tokens":"5"}', b'{"prompt_tokens":1.5}', b"{}", b"\xff"]
)
def test_a_usage_nobody_can_read_is_no_usage(usage: bytes) -> None:
    event = b'data: {"choices":[],"usage":' + usage + b"}\n\n"
    meter, got = metered(SHAPES["vLLM chat"], [event])
    assert meter.tokens.estimated
    assert got in (event, b"")


def test_an_event_that_tells_more_than_usage_is_seen() -> None:
    event = b'data: {"choices":[],"metrics":{"usage":{"gpu":1}}}\n\n'
    _, got = metered(SHAPES["vLLM chat"], [event])
    assert got == event


def test_an_absurd_count_is_bounded() -> None:
    usage = b'"usage":{"prompt_tokens":9223372036854775807,"completion_tokens":-4}'
    meter, _ = metered(SHAPES["vLLM chat"], [b'data: {"choices":[],' + usage + b"}\n\n"])
    assert meter.tokens == Tokens(1_000_000_000, 0, estimated=False)
