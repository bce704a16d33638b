"""What is seen while it runs, on terminals of all kinds."""

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from types import SimpleNamespace
from typing import TextIO, cast

import pytest

from infra.load_test.person import Person
from infra.load_test.rehearsal import Rehearsal, Target
from infra.load_test.table import LINE_EVERY_S, Table, lines
from infra.load_test.visit import Visit


def _running(people: int = 3) -> Rehearsal:
    one = Rehearsal(Target("http://127.0.0.1:1", "k", "default"), [], 900.0)
    one.people = [
        cast(Person, SimpleNamespace(visit=Visit(f"u{number}", 0.0))) for number in range(people)
    ]
    names = ("capacity", "active", "draft", "finishing", "waiting")
    one.watch.sampled(dict.fromkeys(names, 9_999), 1.0)
    return one


@contextmanager
def _terminal(columns: int) -> Iterator[tuple[TextIO, int]]:
    """What is drawn on, and the end from which it is seen."""
    seen, end = os.openpty()
    termios.tcsetwinsize(end, (40, columns))
    with os.fdopen(end, "w") as out:
        yield out, seen
    os.close(seen)


def _rows(drawn: bytes) -> list[str]:
    return drawn.decode().splitlines()


def test_no_row_is_wider_than_an_ordinary_terminal() -> None:
    running = _running(people=9_999)
    running.watch.missed = 9_999
    running.told_to_stop.set()
    assert max(map(len, lines(running))) <= 80


def test_it_draws_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with _terminal(20) as (out, seen):
        table, running = Table(out), _running()
        table.show(running)
        first = _rows(os.read(seen, 4096))
        table.show(running)
        again = os.read(seen, 4096).decode()
    assert len(first) == len(lines(running))
    assert max(map(len, first)) == 20  # one that wraps would be two, and all that follow astray
    assert again.startswith(f"\x1b[{len(first)}A\x1b[J")


def test_a_terminal_that_only_knows_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with _terminal(80) as (out, seen):
        table, running = Table(out), _running()
        running.seconds = LINE_EVERY_S
        table.show(running)
        (line,) = _rows(os.read(seen, 4096))
    assert "\x1b" not in line


def test_into_a_file_it_says_a_line_now_and_then() -> None:
    out, running = StringIO(), _running()
    table = Table(out)
    for second in range(100):
        running.seconds = second
        table.show(running)
    running.over = True
    running.seconds = 200
    table.show(running)
    told = out.getvalue().splitlines()
    assert [line.split()[0] for line in told] == ["30", "60", "90"]
    assert "waiting 3" in told[0]


def test_told_to_stop_it_says_how_to_stop_at_once() -> None:
    running = _running()
    running.told_to_stop.set()
    assert "once more" in lines(running)[0]
    running.over = True
    assert "once more" not in lines(running)[0]
