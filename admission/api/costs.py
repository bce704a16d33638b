"""What machines cost and for whom, how fast, and how the budgets stand: for admins."""

from typing import Any

from aiohttp import web

from admission import cost_views, views
from admission.accounting import budgets, burn
from admission.accounting import costs as kept
from admission.accounting.cost import BY, HOUR_MS
from admission.accounting.ledger import DAY_MS, Ledger
from admission.api import access, table
from admission.asked import Asked
from admission.auth import Kind
from admission.errors import BadInput

LOOK_BACK_MS = 30 * DAY_MS  # without ``from``
COLUMNS = (
    "begin",
    "pool",
    "model",
    "user",
    "project",
    "key",
    "instance",
    "currency",
    "cost",
    "used",
    "unused",
    "prompt_tokens",
    "completion_tokens",
)

routes = web.RouteTableDef()


@routes.get("/admin/costs")
async def costs(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    form, asked = table.form(request), _asked(request)
    found = await table.asked(request, lambda ledger: kept.costs(ledger, asked))
    rows = [cost_views.row_view(row, asked.by) for row in found.rows]
    if form == "csv":
        return table.as_csv(f"costs-by-{asked.by}", COLUMNS, rows)
    span = {"from": views.iso(asked.from_ms), "to": views.iso(min(asked.to_ms, asked.now_ms))}
    return views.answer({"by": asked.by, **span, **cost_views.costs_view(found, rows)})


@routes.get("/admin/costs/now")
async def now(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    now_ms = table.now_ms()

    def read(ledger: Ledger) -> dict[str, Any]:
        return {
            "at": views.iso(now_ms),
            "burn": [cost_views.burn_view(row) for row in burn.burn(ledger, now_ms)],
            "budgets": [cost_views.standing_view(one) for one in budgets.standings(ledger, now_ms)],
        }

    return views.answer(await table.asked(request, read))


def _asked(request: Asked) -> kept.Asked:
    by, now_ms = table.choice(request, "by", BY), table.now_ms()
    from_ms, to_ms = table.span(request, LOOK_BACK_MS)
    to_ms = max(0, min(to_ms, now_ms))
    from_ms = max(0, from_ms if "from" in request.query else to_ms - LOOK_BACK_MS)
    if from_ms > to_ms:
        raise BadInput("from: must be before to, and before now", field="from")
    return kept.Asked(by, from_ms // HOUR_MS * HOUR_MS, -(-to_ms // HOUR_MS) * HOUR_MS, now_ms)
