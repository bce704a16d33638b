"""The load test at this moment: a few lines that are drawn over one another once a second, or where
that cannot be, one line now and then."""

import os
from collections import Counter
from typing import TextIO

from infra.load_test.rehearsal import Rehearsal

LINE_EVERY_S = 30.0  # into a file, a pipe, or on a terminal that only knows lines
COLUMNS = 80  # of a terminal that does not say


class Table:
    """Draws on ``out``."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._drawn, self._next_s = out, 0, LINE_EVERY_S
        self._draws = out.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def show(self, rehearsal: Rehearsal) -> None:
        """Draw it, over what was drawn before."""
        if not self._draws:
            self._tell(rehearsal)
            return
        wide = _columns(self._out)
        rows = [row[:wide] for row in lines(rehearsal)]  # one that wraps would be two
        back = f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""
        self._out.write(back + "".join(f"{row}\n" for row in rows))
        self._out.flush()
        self._drawn = len(rows)

    def _tell(self, rehearsal: Rehearsal) -> None:
        """What took less than one such pause says nothing: its report comes at once."""
        if rehearsal.over or rehearsal.seconds < self._next_s:
            return
        self._next_s += LINE_EVERY_S
        print(" · ".join(" ".join(row.split()) for row in lines(rehearsal)), file=self._out)
        self._out.flush()


def lines(rehearsal: Rehearsal) -> list[str]:
    """What there is to see."""
    watch, visits = rehearsal.watch, rehearsal.visits
    states = Counter(visit.state for visit in visits)
    answers = [answer for visit in visits for answer in visit.answers]
    whole = sum(not answer.code for answer in answers)
    other = Counter(answer.code for answer in answers if answer.code)
    said = "".join(f" · {number} {code}" for code, number in other.most_common(3))
    stopping = rehearsal.told_to_stop.is_set() and not rehearsal.over
    rows = [
        f"{rehearsal.seconds:6.0f} s of at most {rehearsal.limit_s:.0f}"
        + (" · people leave; once more ends it at once" if stopping else ""),
        f"  people    came {len(visits)} of {len(rehearsal.plans)} · waiting {states['waiting']}"
        f" · in session {states['in session']} · gone {states['gone']}",
        f"  answers   {whole} whole{said}",
    ]
    if watch.samples:
        now = watch.samples[-1]
        rows.append(
            f"  slots     {now.held} of {now.capacity} held · draft {now.draft}"
            f" · finishing {now.finishing} · waiting {now.waiting}"
        )
    if watch.missed:
        rows.append(f"  not seen  {watch.missed} looks at the queue had no answer")
    rows.append(f"  broken    {len(watch.broken) or 'nothing'}")
    return rows


def _columns(out: TextIO) -> int:
    try:
        return os.get_terminal_size(out.fileno()).columns or COLUMNS
    except OSError:
        return COLUMNS
