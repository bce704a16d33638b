"""What was used, as JSON or CSV: for admins."""

from typing import Any

from aiohttp import web

from admission import views
from admission.accounting import reports
from admission.accounting.ledger import DAY_MS, begin_of
from admission.accounting.record import DIMENSIONS, SPANS
from admission.api import access, table
from admission.api.projects import existing
from admission.asked import Asked
from admission.auth import Kind
from admission.errors import BadInput

LOOK_BACK_DAYS = {"hour": 1, "day": 30, "week": 365}  # without ``from``
TEXT_MAX = 256
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


@routes.get("/admin/usage")
async def usage(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    return await _answer(request)


@routes.get("/admin/usage/models")
async def models(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    rows = await table.asked(request, reports.used_models)
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
    form, question = table.form(request), _question(request, project)
    found = await table.asked(request, lambda ledger: reports.usage(ledger, question))
    rows = [_view(row) for row in found]
    if form == "json":
        return views.answer({"span": question.span, "usage": rows})
    return table.as_csv(f"usage-by-{question.span}", COLUMNS, rows)


def _question(request: Asked, project: str | None) -> reports.Question:
    span = table.choice(request, "span", ("day", *SPANS))
    by = table.choice(request, "by", ("", *DIMENSIONS))
    from_ms, to_ms = table.span(request, LOOK_BACK_DAYS[span] * DAY_MS)
    only = {name: _text(request, name) for name in DIMENSIONS if name in request.query}
    if project is not None:
        only["project"] = project
    return reports.Question(
        span, begin_of(span, from_ms), to_ms, (by,) if by else (), tuple(only.items())
    )


def _text(request: Asked, name: str) -> str:
    text = request.query[name]
    if len(text) > TEXT_MAX or not text.isprintable():
        raise BadInput(f"{name}: at most {TEXT_MAX} printable characters", field=name)
    return text


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
