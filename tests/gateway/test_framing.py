"""Where answers end, however their bytes are cut; what is no answer is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admission.gateway.framing import Head, Reader, Unreadable

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HEAD_BYTES = 8_192


def head(*lines: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join((status, *lines, "\r\n")).encode()


def reader(*pieces: bytes) -> Reader:
    """One that was fed these."""
    made = Reader(HEAD_BYTES)
    for piece in pieces:
        made.feed(piece)
    return made


def read_head(raw: bytes) -> Head:
    found = reader(raw).head
    assert found
    return found


def test_a_head_is_read() -> None:
    found = read_head(head("Content-Type: a/b; c", "X-A:1", "x-a: \t2 ", "Empty:"))
    assert found.status == 200
    assert found.headers["content-type"] == "a/b; c"
    assert found.headers.getall("X-A") == ["1", "2"]
    assert found.headers["Empty"] == ""


def test_bytes_of_a_header_that_are_not_utf8_go_through() -> None:
    found = read_head(b"HTTP/1.1 200 OK\r\nA: caf\xe9\r\n\r\n").headers["A"]
    assert found.encode("utf-8", "surrogateescape") == b"caf\xe9"


@pytest.mark.parametrize(
    "raw",
    [
        head(status=""),
        head(status="HTTP/1.1"),
        head(status="HTTP/2 200 OK"),
        head(status="HTTP/2.0 200 OK"),
        head(status="HTTP/1.1 099 no"),
        head(status="HTTP/1.1 999 no"),
        head(status="HTTP/1.1 2000 OK"),
        head(status="HTTP/1.1 200 O\rK"),
        head(status="ICY 200 OK"),
        head(status="RTSP/1.0 200 OK"),
        b"\r\n" + head(),
        head("Transfer-Encoding: gzip", status="HTTP/1.1 150 ?") + head(),
        head("Content-Length: 1", status="HTTP/1.1 199 ?") + head(),
        head("no colon"),
        head(": nameless"),
        head("Space : 1"),
        head("A: 1", " folded"),
        head("A: 1\n2"),
        head("A: 1\0"),
        head("A: 1\rB: 2"),
        head("A: 1").replace(b"\r\n", b"\n"),
        head("A: " + "b" * HEAD_BYTES),
        head(*["A: b"] * HEAD_BYTES),
        head(status="HTTP/1.1 101 Switching Protocols"),
        head("Connection: upgrade", "Upgrade: a", status="HTTP/1.1 101 Switching Protocols"),
        head(status="HTTP/1.1 100 Continue") * 9,
        head("Content-Length: 1\n"),
        head("Content-Length:", " 1"),
    ],
)
def test_what_is_no_head_is_refused(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        reader(raw)
    with pytest.raises(Unreadable):
        reader(*(raw[at : at + 1] for at in range(len(raw))))


@pytest.mark.parametrize(
    ("lines", "status", "keeps"),
    [
        ((), "HTTP/1.1 200 OK", True),
        (("Connection: close",), "HTTP/1.1 200 OK", False),
        (("Connection: Keep-Alive, Close",), "HTTP/1.1 200 OK", False),
        (("Connection: close", "Connection: keep-alive"), "HTTP/1.1 200 OK", False),
        ((), "HTTP/1.0 200 OK", False),
        (("Connection: keep-alive",), "HTTP/1.0 200", True),
    ],
)
def test_a_connection_is_kept_as_its_head_says(
    lines: tuple[str, ...], status: str, keeps: bool
) -> None:
    assert read_head(head("Content-Length: 1", *lines, status=status)).keeps is keeps


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 1", "Content-Length: 2"),
        ("Content-Length: 1", "Content-Length: 1"),
        ("Content-Length: -1",),
        ("Content-Length: +1",),
        ("Content-Length: 1, 1",),
        ("Content-Length: 1_0",),
        ("Content-Length: 1", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 1"),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: gzip",),
        ("Transfer-Encoding: chunked\t",),
        ("Transfer-Encoding: chunked, gzip",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    ],
)
def test_a_length_that_is_said_in_two_ways_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(Unreadable):
        reader(head(*lines))


def test_each_kind_of_body() -> None:
    for lines in (["Content-Length: 3"], ["Transfer-Encoding: Chunked"], []):
        found = reader(head(*lines))
        assert (found.whole, found.ends_by_close) == (False, not lines)
    for status in ("204 No Content", "304 Not Modified"):
        for lines in (["Content-Length: 3"], ["Transfer-Encoding: chunked"], []):
            found = reader(head(*lines, status=f"HTTP/1.1 {status}"))
            assert (found.whole, found.ends_by_close) == (True, False)
    assert reader(head("Content-Length: 0")).whole


def test_interim_heads_are_passed_over() -> None:
    interim = head("Link: a", status="HTTP/1.1 103 Early Hints")
    found = read_head(interim * 8 + head("A: b"))
    assert (found.status, list(found.headers.items())) == (200, [("A", "b")])
    alone = reader(interim)
    assert (alone.head, alone.whole) == (None, False)


def test_a_head_and_a_chunks_line_may_each_be_long() -> None:
    lines = ["A: " + "b" * (HEAD_BYTES // 2), "Transfer-Encoding: chunked"]
    assert reader(head(*lines), b"1;" + b"a" * (HEAD_BYTES // 2), b"\r\nx").head


def test_a_sized_body_ends_with_its_last_byte() -> None:
    body = reader(head("Content-Length: 5"))
    assert (body.feed(b"abc"), body.whole) == (b"abc", False)
    assert (body.feed(b"de"), body.whole) == (b"de", True)


@pytest.mark.parametrize("more", [b"c", b"H", head("Content-Length: 2") + b"cd"])
def test_nothing_may_follow_an_answer(more: bytes) -> None:
    answer = head("Content-Length: 2") + b"ab"
    with pytest.raises(Unreadable):
        reader(answer + more)
    with pytest.raises(Unreadable):
        reader(answer, more)


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
    sent = CHUNKED + sent
    body, got, number = Reader(HEAD_BYTES), b"", 0
    while sent:
        assert not body.whole
        cut = cuts[number % len(cuts)]
        got += body.feed(sent[:cut])
        sent, number = sent[cut:], number + 1
    assert body.whole
    assert got == b"".join(pieces)
    assert body.head
    assert list(body.head.headers) == ["Transfer-Encoding"]  # and no trailer


@pytest.mark.parametrize(
    "sent",
    [
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"\r\n",
        b"1\r\nab\r\n",
        b"1\na\r\n",
        b"1" * 17 + b"\r\n",
        b"a" * 5_000,
        b"1;" + b"a" * HEAD_BYTES,
        b"0\r\nA: " + b"a" * HEAD_BYTES,
        b"0\r\n\r\nmore",
    ],
)
def test_what_are_no_chunks_is_refused(sent: bytes) -> None:
    with pytest.raises(Unreadable):
        reader(CHUNKED, sent)
