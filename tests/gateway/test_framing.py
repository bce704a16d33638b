"""Where answers end, however their bytes are cut; what is no answer is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission.gateway.framing import Chunked, Sized, Unreadable, UntilClose, body_of, read_head


def head(*lines: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join((status, *lines)).encode()


def test_a_head_is_read() -> None:
    found = read_head(head("Content-Type: a/b; c", "X-A:1", "x-a: \t2 ", "Empty:"))
    assert found.status == 200
    assert found.headers["content-type"] == "a/b; c"
    assert found.headers.getall("X-A") == ["1", "2"]
    assert found.headers["Empty"] == ""


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 999 no",
        b"HTTP/1.1 2000 OK",
        b"ICY 200 OK",
        head("no colon"),
        head(": nameless"),
        head("Space : 1"),
        head("A: 1", " folded"),
        head("A: 1\n2"),
        head("A: 1\0"),
        head("A: 1\rB: 2"),
    ],
)
def test_what_is_no_head_is_refused(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        read_head(raw)


@pytest.mark.parametrize(
    ("lines", "status", "keeps"),
    [
        ((), "HTTP/1.1 200 OK", True),
        (("Connection: close",), "HTTP/1.1 200 OK", False),
        (("Connection: Keep-Alive, Close",), "HTTP/1.1 200 OK", False),
        ((), "HTTP/1.0 200 OK", False),
        (("Connection: keep-alive",), "HTTP/1.0 200", True),
    ],
)
def test_a_connection_is_kept_as_its_head_says(
    lines: tuple[str, ...], status: str, keeps: bool
) -> None:
    assert read_head(head(*lines, status=status)).keeps is keeps


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 1", "Content-Length: 2"),
        ("Content-Length: -1",),
        ("Content-Length: +1",),
        ("Content-Length: 1, 1",),
        ("Content-Length: 1_0",),
        ("Content-Length: 1", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: gzip",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    ],
)
def test_a_length_that_is_said_in_two_ways_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(Unreadable):
        body_of(read_head(head(*lines)))


def test_each_kind_of_body() -> None:
    assert isinstance(body_of(read_head(head("Content-Length: 3", "Content-Length: 3"))), Sized)
    assert isinstance(body_of(read_head(head("Transfer-Encoding: Chunked"))), Chunked)
    assert isinstance(body_of(read_head(head())), UntilClose)
    for status in ("204 No Content", "304 Not Modified"):
        assert body_of(read_head(head("Content-Length: 3", status=f"HTTP/1.1 {status}"))).whole


def test_a_sized_body_ends_with_its_last_byte() -> None:
    body = Sized(5)
    assert (body.feed(b"abc"), body.whole) == (b"abc", False)
    assert (body.feed(b"de"), body.whole) == (b"de", True)
    with pytest.raises(Unreadable):
        Sized(2).feed(b"abc")


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=50), max_size=6),
    extension=st.sampled_from([b"", b";a=b", b" "]),
    trailers=st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC: d\r\n"]),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=40),
)
def test_chunks_are_put_together_wherever_they_are_cut(
    pieces: list[bytes], extension: bytes, trailers: bytes, cuts: list[int]
) -> None:
    sent = b"".join(b"%X%b\r\n%b\r\n" % (len(one), extension, one) for one in pieces)
    sent += b"0\r\n" + trailers + b"\r\n"
    body, got, number = Chunked(), b"", 0
    while sent:
        assert not body.whole
        cut = cuts[number % len(cuts)]
        got += body.feed(sent[:cut])
        sent, number = sent[cut:], number + 1
    assert body.whole
    assert got == b"".join(pieces)


@pytest.mark.parametrize(
    "sent",
    [
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"\r\n",
        b"1\r\nab\r\n",
        b"1" * 16 + b"\r\n",
        b"a" * 5_000,
        b"0\r\n\r\nmore",
    ],
)
def test_what_are_no_chunks_is_refused(sent: bytes) -> None:
    with pytest.raises(Unreadable):
        Chunked().feed(sent)
