"""What was used, as JSON or CSV: for admins. Read from SQL in a thread, nothing is changed."""

import asyncio
import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from aiohttp import hdrs, web

from admission import views
from admission.accounting import reports
from admission.accounting.ledger import (
    DAY_MS,
    Ledger,
    LedgerUnavailable,
    UnfitLedger,
    begin_of,
)
from admission.accounting.record import DIMENSIONS, SPANS
from admission.api import access
from admission.api.projects import existing
from admission.asked import Asked
from admission.auth import Kind
from admission.errors import BadInput, Unavailable
from admission.keys import LEDGER

LOOK_BACK_DAYS = {"hour": 1, "day": 30, "week": 365}  # without ``from``
TEXT_MAX = 256
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""https://owasp.org/www-community/attacks/CSV_Injection"""
COLUMNS = (
    "begin",
    *DIMENSIONS,
    "requests",
    "served",
    "prompt_tokens",
    "completion_tokens",
    "tokens",
    "queued",
    "first_token",
    "duration",
)

routes = web.RouteTableDef()
T = TypeVar("T")


@routes.get("/admin/usage")
async def usage(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    return await _answer(request)


@routes.get("/admin/usage/models")
async def models(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    rows = await _asked(request, reports.used_models)
    found = [
        {
            "model": row["model"],
            "first_seen": views.iso(row["first_ms"]),
            "last_used": views.iso(row["last_ms"]),
            "uses": row["uses"],
        }
        for row in rows
    ]
    return web.json_response({"models": found})


@routes.get("/admin/projects/{id}/usage")
async def usage_of_project(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    return await _answer(request, project=(await existing(request)).id)


async def _answer(request: Asked, project: str | None = None) -> web.Response:
    form = _choice(request, "format", ("json", "csv"))
    question = _question(request, project)
    try:
        found = await _asked(request, lambda ledger: reports.usage(ledger, question))
    except reports.TooManyRows:
        raise BadInput(
            f"from: more than {reports.ROWS_MAX} rows; ask for less time, a longer span or no `by`",
            field="from",
        ) from None
    rows = [_view(row) for row in found]
    if form == "json":
        return views.answer({"span": question.span, "usage": rows})
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    disposition = f'attachment; filename="usage-by-{question.span}.csv"'
    return web.Response(
        text=text.getvalue(),
        content_type="text/csv",
        headers={hdrs.CONTENT_DISPOSITION: disposition},
    )


def _cell(value: object) -> object:
    """A table program takes a text that begins like this for a formula, and runs it: whoever names
    a model would run it on the admin's machine. With an apostrophe it stays a text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


async def _asked(request: Asked, ask: Callable[[Ledger], T]) -> T:
    try:
        return await asyncio.to_thread(ask, request.app[LEDGER])
    except (LedgerUnavailable, UnfitLedger) as error:
        raise Unavailable(
            f"The accounting's database cannot be read: {error}. See VESTIBULE_DATABASE_URL.",
            code="ledger_unavailable",
            retry_after_s=30,
        ) from error


def _question(request: Asked, project: str | None) -> reports.Question:
    span = _choice(request, "span", ("day", *SPANS))
    by = _choice(request, "by", ("", *DIMENSIONS))
    to_ms = _instant(request, "to", datetime.now(UTC))
    days = LOOK_BACK_DAYS[span]
    from_ms = _instant(request, "from", None) if "from" in request.query else to_ms - days * DAY_MS
    only = {name: _text(request, name) for name in DIMENSIONS if name in request.query}
    if project is not None:
        only["project"] = project
    return reports.Question(
        span, begin_of(span, from_ms), to_ms, (by,) if by else (), tuple(only.items())
    )


def _choice(request: Asked, name: str, choices: tuple[str, ...]) -> str:
    """One of ``choices``; the first without any."""
    given = request.query.get(name, choices[0])
    if given not in choices:
        named = ", ".join(dict.fromkeys(choice for choice in choices if choice))
        raise BadInput(f"{name}: one of {named}", field=name)
    return given


def _text(request: Asked, name: str) -> str:
    text = request.query[name]
    if len(text) > TEXT_MAX or not text.isprintable():
        raise BadInput(f"{name}: at most {TEXT_MAX} printable characters", field=name)
    return text


def _instant(request: Asked, name: str, default: datetime | None) -> int:
    text = request.query.get(name)
    try:
        instant = default if text is None else datetime.fromisoformat(text)
        assert instant is not None, "who gives no default has looked"
        if instant.tzinfo is None:
            if len(text or "") > len("2026-11-21"):  # a time of day without a zone
                raise ValueError
            instant = instant.replace(tzinfo=UTC)
        return int(instant.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise BadInput(
            f"{name}: an instant like 2026-11-21T08:00:00Z, or a day like 2026-11-21", field=name
        ) from None


def _view(row: dict[str, Any]) -> dict[str, Any]:
    """Means in seconds; null where there is nothing to take one of, or it was not asked for."""
    requests, first = row["requests"], row["first_tokens"]
    return {
        "begin": views.iso(row["begin_ms"]),
        **{name: row.get(name) for name in DIMENSIONS},
        "requests": requests,
        "served": row["served"],
        "prompt_tokens": row["prompt_tokens"],
        "completion_tokens": row["completion_tokens"],
        "tokens": row["prompt_tokens"] + row["completion_tokens"],
        "queued": round(row["queued_ms"] / requests / 1000, 3) if requests else None,
        "first_token": round(row["first_token_ms"] / first / 1000, 3) if first else None,
        "duration": round(row["total_ms"] / requests / 1000, 3) if requests else None,
    }
