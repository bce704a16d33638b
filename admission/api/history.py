"""How busy, how ready and how fast pools and workers were, as JSON or CSV: for admins."""

from typing import Any

from aiohttp import web

from admission import views, wire
from admission.accounting import history as kept
from admission.accounting.ledger import DAY_MS
from admission.api import access, table
from admission.asked import Asked
from admission.auth import Kind
from admission.domain import WORKER_ID
from admission.errors import BadInput

LOOK_BACK_MS = DAY_MS  # without ``from``
STEP_S = 300  # without ``step``
STEP_MAX_S = 86_400
COLUMNS = (
    "begin",
    "pool",
    "worker",
    "ready",
    "slots",
    "busy",
    "use",
    "waiting",
    "waiting_max",
    "estimated_wait",
    "gpu_load",
    "gpu_memory",
    "requests",
    "completion_tokens",
    "queued",
    "first_token",
    "duration",
)

routes = web.RouteTableDef()


@routes.get("/admin/history")
async def history(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    form, period = table.form(request), _period(request)
    found = await table.asked(request, lambda ledger: kept.history(ledger, period))
    rows = [_view(row) for row in found]
    if form == "json":
        return views.answer({"step": period.step_ms // 1000, "history": rows})
    return table.as_csv("history", COLUMNS, rows)


def _period(request: Asked) -> kept.Period:
    from_ms, to_ms = table.span(request, LOOK_BACK_MS)
    step_s = wire.read_number(request, "step", STEP_S, STEP_MAX_S)
    if step_s == 0:
        raise BadInput(f"step: a whole number from 1 to {STEP_MAX_S}", field="step")
    worker = request.query.get("worker", "")
    if worker not in ("", kept.EACH_WORKER) and not WORKER_ID.fullmatch(worker):
        raise BadInput("worker: a worker's id, or * for each", field="worker")
    step_ms = step_s * 1000
    return kept.Period(
        from_ms // step_ms * step_ms, to_ms, step_ms, wire.read_pool(request), worker
    )


def _view(row: dict[str, Any]) -> dict[str, Any]:
    """Means in seconds; null where there is nothing to take one of."""
    requests, first = row["requests"], row["first_tokens"]
    wait_ms = row["wait_ms"]
    return {
        "begin": views.iso(row["since_ms"]),
        "pool": row["pool"],
        "worker": row["worker"] or None,
        **{name: _rounded(row[name]) for name in ("ready", "slots", "busy")},
        "use": _rounded(row["busy"] / row["slots"]) if row["slots"] else None,
        "waiting": _rounded(row["waiting"]),
        "waiting_max": row["waiting_max"],
        "estimated_wait": None if wait_ms is None else _rounded(wait_ms / 1000),
        "gpu_load": _rounded(row["gpu_load"]),
        "gpu_memory": _rounded(row["gpu_memory"]),
        "requests": requests,
        "completion_tokens": row["completion_tokens"],
        "queued": _rounded(row["queued_ms"] / requests / 1000) if requests else None,
        "first_token": _rounded(row["first_token_ms"] / first / 1000) if first else None,
        "duration": _rounded(row["total_ms"] / requests / 1000) if requests else None,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
