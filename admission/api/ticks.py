"""The scheduler's periodic duties: who does each, how the last run went, when the next is due."""

from typing import Any

from aiohttp import web

from admission import attendance, views
from admission.api import access
from admission.asked import Asked
from admission.auth import Kind
from admission.keys import STORE
from admission.store.tick_store import TickFacts

routes = web.RouteTableDef()


@routes.get("/admin/ticks")
async def ticks(request: Asked) -> web.Response:
    access.must_be(request, Kind.ADMIN)
    found = await request.app[STORE].ticks.all()
    found = [each for each in found if each.holder or not attendance.is_file(each.name)]
    words = attendance.files_words(attendance.files_of(found))
    warnings = [words] if words else []
    return web.json_response({"ticks": [_view(each) for each in found], "warnings": warnings})


def _view(tick: TickFacts) -> dict[str, Any]:
    return {
        "name": tick.name,
        "holder": tick.holder,
        "epoch": tick.epoch,
        "period": tick.period_ms / 1000,
        "next_due": views.iso(tick.due_ms),
        "running_since": views.iso(tick.running_ms),
        "last_run": views.iso(tick.ended_ms),
        "last_duration": None if tick.took_ms is None else tick.took_ms / 1000,
        "last_success": views.iso(tick.done_ms),
        "last_error": tick.error,
        "last_error_at": views.iso(tick.error_ms),
        "runs": tick.runs,
        "failures": tick.failures,
    }
