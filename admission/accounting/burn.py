"""How fast money is spent now, and what the day and the month will come to at that rate.

Everything here blocks; call it in a thread.
"""

from dataclasses import dataclass

from admission.accounting.cost import HOUR_MS, Uptime
from admission.accounting.costs import billed
from admission.accounting.ledger import Ledger
from admission.accounting.windows import Span, window


@dataclass
class Burn:
    """One pool's machines of one currency; money in micro, days and months of UTC. ``today`` and
    ``month`` so far, ``…_expected`` at their end. ``instances``: that run now, ``unpriced`` of them
    at a price that nobody told."""

    pool: str
    currency: str
    instances: int = 0
    unpriced: int = 0
    per_hour: int = 0
    today: int = 0
    today_expected: int = 0
    month: int = 0
    month_expected: int = 0


def burn(ledger: Ledger, now_ms: int) -> list[Burn]:
    """What there is this month, by pool and currency.

    Raises:
        LedgerUnavailable, UnfitLedger.
    """
    day, month = (window(span, now_ms) for span in (Span.DAY, Span.MONTH))
    found: dict[tuple[str, str], Burn] = {}
    with ledger.transaction() as connection:
        machines = billed(connection, month.begin_ms, now_ms)
    for one in machines:
        row = found.setdefault((one.pool, one.currency), Burn(one.pool, one.currency))
        _add(row, one)
        row.today += one.cost(day.begin_ms, now_ms, now_ms)
        row.month += one.cost(month.begin_ms, now_ms, now_ms)
    for row in found.values():
        row.today_expected = row.today + row.per_hour * (day.end_ms - now_ms) // HOUR_MS
        row.month_expected = row.month + row.per_hour * (month.end_ms - now_ms) // HOUR_MS
    return [found[key] for key in sorted(found)]


def _add(row: Burn, one: Uptime) -> None:
    if one.ended_ms is None:
        row.instances += 1
        row.unpriced += not one.is_priced
        row.per_hour += one.per_hour
