"""docs/fleet.md tells the life cycle, the time-outs and the codes as the code has them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from admission.instance import State
from scheduler.fleet import limits
from scheduler.fleet.codes import CODES
from scheduler.fleet.limits import Limits
from scheduler.fleet.table import TABLE

DOCUMENT = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text()
FIELD = re.compile(r"^    (\w+): float = [\d_]+  # (.+)$", re.MULTILINE)


def arrows() -> list[str]:
    """The table of the life cycle."""
    rows = ["| arrow | from | to | progress | only if | meaning |", "|---|---|---|---|---|---|"]
    for row in TABLE.values():
        sources = " ".join(f"`{state}`" for state in State if state in row.sources) or "(none)"
        target = f"`{row.target}`" if row.target else "stays"
        progress = f"{row.progress} %" if row.progress is not None else ""
        cells = (f"`{row.name}`", sources, target, progress, row.guard, row.doc)
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def times() -> list[str]:
    """The table of the limits, with the comments that stand beside them."""
    said = dict(FIELD.findall(Path(limits.__file__).read_text()))
    rows = ["| limit | seconds | what it bounds [source] |", "|---|---|---|"]
    for name in Limits.__struct_fields__:
        rows.append(f"| `{name}` | {getattr(Limits(), name):,.0f} | {said[name]} |")
    return rows


def codes() -> list[str]:
    """The table of the error codes."""
    rows = ["| code | what it means | what to do |", "|---|---|---|"]
    return rows + [f"| `{c.name}` | {c.words} | {c.remedy} |" for c in CODES.values()]


@pytest.mark.parametrize("table", [arrows, times, codes])
def test_the_document_is_as_the_code(table: Callable[[], list[str]]) -> None:
    wanted = "\n".join(table())
    assert wanted in DOCUMENT, f"docs/fleet.md: this is missing\n\n{wanted}"
