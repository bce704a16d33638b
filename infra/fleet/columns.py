"""A list on a terminal: columns as wide as what stands in them, within the terminal's own width."""

import os
from collections.abc import Sequence
from typing import TextIO

COLUMNS = 80  # of a terminal that does not say
LINES = 24
GAP, BETWEEN = "  ", " · "


def width_of(out: TextIO) -> int | None:
    """Characters of a line there; None where there is no such bound."""
    if not out.isatty():
        return None
    try:
        return os.get_terminal_size(out.fileno()).columns or COLUMNS
    except OSError:
        return COLUMNS


def draws(out: TextIO) -> bool:
    """Whether lines can be drawn over one another there."""
    return out.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def is_plain(out: TextIO) -> bool:
    """Whether only ASCII can be shown there."""
    return "utf" not in (out.encoding or "").lower()


def height_of(out: TextIO) -> int:
    """Lines that stand there at once."""
    try:
        return os.get_terminal_size(out.fileno()).lines or LINES
    except OSError:
        return LINES


def lines(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, least: int
) -> list[str]:
    """The list. Where a line would be longer than ``width``, the columns from ``least`` on, or from
    an earlier one, move to lines of their own below, with a ``·`` between."""
    whole = _aligned([head, *rows])
    if width is None or all(len(line) <= width for line in whole):
        return whole
    first = [""]
    while least > 0:
        first = _aligned([row[:least] for row in (head, *rows)])
        if all(len(line) <= width for line in first):
            break
        least -= 1
    found = [first[0][:width]]
    for line, row in zip(first[1:], rows, strict=True):
        found.append(line[:width])
        found += _below([each for each in row[max(1, least) :] if each not in ("", "-")], width)
    return found


def _below(cells: Sequence[str], width: int) -> list[str]:
    """As many in a line as fit."""
    found: list[str] = []
    for cell in cells:
        if found and len(found[-1]) + len(BETWEEN) + len(cell) <= width:
            found[-1] += BETWEEN + cell
        else:
            found.append(f"{GAP}{cell}"[:width])
    return found


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        GAP.join(f"{cell:<{wide}}" for cell, wide in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
