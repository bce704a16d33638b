"""Rows read from SQL as an admin asks for them: from when to when, as JSON or CSV.

Read in a thread, nothing is changed. Knows no table; those who serve one do.
"""

import csv
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from aiohttp import hdrs, web

from admission.accounting import reports
from admission.accounting.ledger import Ledger, LedgerUnavailable, UnfitLedger
from admission.accounting.threads import to_read
from admission.asked import Asked
from admission.errors import BadInput, Unavailable
from admission.keys import LEDGER

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""https://owasp.org/www-community/attacks/CSV_Injection"""

T = TypeVar("T")


async def asked(request: Asked, ask: Callable[[Ledger], T]) -> T:
    """What ``ask`` reads.

    Raises:
        Unavailable: the database cannot be read.
        BadInput: there is more than one answer may hold.
    """
    try:
        return await to_read(ask, request.app[LEDGER])
    except (LedgerUnavailable, UnfitLedger) as error:
        raise Unavailable(
            f"The accounting's database cannot be read: {error}. See VESTIBULE_DATABASE_URL.",
            code="ledger_unavailable",
            retry_after_s=30,
        ) from error
    except reports.TooManyRows:
        raise BadInput(
            f"from: more than {reports.ROWS_MAX} rows; ask for less time, for longer spans or for"
            " fewer parts",
            field="from",
        ) from None


def form(request: Asked) -> str:
    """json or csv."""
    return choice(request, "format", ("json", "csv"))


def as_csv(name: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> web.Response:
    """A file for a table program."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    disposition = f'attachment; filename="{name}.csv"'
    return web.Response(
        text=text.getvalue(),
        content_type="text/csv",
        headers={hdrs.CONTENT_DISPOSITION: disposition},
    )


def _cell(value: object) -> object:
    """A table program takes a text that begins like this for a formula, and runs it: whoever names
    a model would run it on the admin's machine. With an apostrophe it stays a text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def choice(request: Asked, name: str, choices: tuple[str, ...]) -> str:
    """One of ``choices``; the first without any."""
    given = request.query.get(name, choices[0])
    if given not in choices:
        named = ", ".join(dict.fromkeys(choice for choice in choices if choice))
        raise BadInput(f"{name}: one of {named}", field=name)
    return given


def now_ms() -> int:
    """Ms since 1970."""
    return int(datetime.now(UTC).timestamp() * 1000)


def span(request: Asked, back_ms: int) -> tuple[int, int]:
    """``from`` and ``to``, ms since 1970; without them now, and so long before ``to``."""
    to_ms = _instant(request, "to")
    to_ms = now_ms() if to_ms is None else to_ms
    from_ms = _instant(request, "from")
    return to_ms - back_ms if from_ms is None else from_ms, to_ms


def _instant(request: Asked, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            if len(text) > len("2026-11-21"):  # a time of day without a zone
                raise ValueError
            instant = instant.replace(tzinfo=UTC)
        return int(instant.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise BadInput(
            f"{name}: an instant like 2026-11-21T08:00:00Z, or a day like 2026-11-21", field=name
        ) from None
