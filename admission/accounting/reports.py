"""What was used, read from SQL: sums of hours, days and weeks, and the models there were.

Everything here blocks; call it in a thread.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from admission.accounting.ledger import Ledger
from admission.accounting.record import DIMENSIONS
from admission.accounting.tables import SUMMED, models, sums

ROWS_MAX = 50_000


class TooManyRows(Exception):
    """More than ROWS_MAX: ask for less time, longer spans or fewer parts."""


@dataclass(frozen=True)
class Question:
    """``span``: hour, day or week. ``by``: dimensions to tell apart, beside the time. ``only``:
    what a dimension must be. Spans that begin in [``from_ms``, ``to_ms``)."""

    span: str
    from_ms: int
    to_ms: int
    by: tuple[str, ...] = ()
    only: tuple[tuple[str, str], ...] = ()


def usage(ledger: Ledger, question: Question) -> list[dict[str, Any]]:
    """The sums, by time and then by what was asked for.

    Raises:
        TooManyRows, LedgerUnavailable, UnfitLedger.
    """
    assert set(question.by) <= set(DIMENSIONS)
    columns = [sums.c.begin_ms, *(sums.c[name] for name in question.by)]
    statement = (
        select(*columns, *(func.sum(sums.c[name]).label(name) for name in SUMMED))
        .where(sums.c.span == question.span)
        .where(sums.c.begin_ms >= question.from_ms, sums.c.begin_ms < question.to_ms)
        .where(*(sums.c[name] == value for name, value in question.only))
        .group_by(*columns)
        .order_by(*columns)
        .limit(ROWS_MAX + 1)
    )
    with ledger.transaction() as connection:
        rows = connection.execute(statement).mappings().all()
    if len(rows) > ROWS_MAX:
        raise TooManyRows
    # A sum of bigints is a Decimal in PostgreSQL.
    return [
        {name: value if isinstance(value, str) else int(value) for name, value in row.items()}
        for row in rows
    ]


def used_models(ledger: Ledger) -> list[dict[str, Any]]:
    """Every model that was ever used: when first and last (ms), and how often.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    with ledger.transaction() as connection:
        rows = connection.execute(select(models).order_by(models.c.model)).mappings().all()
    return [dict(row) for row in rows]
