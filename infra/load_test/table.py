"""The load test at this moment, as a few lines that are drawn over one another once a second."""

from collections import Counter
from typing import TextIO

from infra.load_test.rehearsal import Rehearsal


class Table:
    """Draws on a terminal; says nothing anywhere else."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._drawn = out, 0

    def show(self, rehearsal: Rehearsal) -> None:
        """Draw it, over what was drawn before."""
        if not self._out.isatty():
            return
        rows = lines(rehearsal)
        back = f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""
        self._out.write(back + "".join(f"{row}\n" for row in rows))
        self._out.flush()
        self._drawn = len(rows)


def lines(rehearsal: Rehearsal) -> list[str]:
    """What there is to see."""
    watch, visits = rehearsal.watch, rehearsal.visits
    states = Counter(visit.state for visit in visits)
    answers = [answer for visit in visits for answer in visit.answers]
    whole = sum(not answer.code for answer in answers)
    other = Counter(answer.code for answer in answers if answer.code)
    said = ", ".join(f"{code} {number}" for code, number in other.most_common(3))
    rows = [
        f"{rehearsal.seconds:6.0f} s of at most {rehearsal.limit_s:.0f}",
        f"  people    came {len(visits)} of {len(rehearsal.plans)} · waiting {states['waiting']}"
        f" · in session {states['in session']} · gone {states['gone']}",
        f"  answers   {whole} whole" + (f" · {said}" if said else ""),
    ]
    if watch.samples:
        now = watch.samples[-1]
        rows.append(
            f"  slots     {now.held} of {now.capacity} held · draft {now.draft}"
            f" · finishing {now.finishing} · waiting {now.waiting}"
        )
    rows.append(f"  broken    {len(watch.broken) or 'nothing'}")
    return rows
