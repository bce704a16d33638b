"""JSON out: tickets, pools, workers and errors as they stand on the wire.

Milliseconds become seconds, and instants ISO 8601 (DESIGN section 5).
"""

import math
from datetime import UTC, datetime
from statistics import quantiles
from typing import Any

import msgspec
from aiohttp import web

from admission.domain import DEFAULT_PRIORITY, PoolMetrics, Queued, Ticket, Worker
from admission.errors import AdmissionError

_JSON = {"Content-Type": "application/json; charset=utf-8"}  # as web.json_response says it


def answer(view: dict[str, Any]) -> web.Response:
    """200 with a view as JSON: what web.json_response does, in a fifth of its time."""
    return web.Response(body=msgspec.json.encode(view), headers=_JSON)


def iso(ms: int | None) -> str | None:
    """Milliseconds since 1970 as ISO 8601 in UTC, ending in Z."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _seconds(ms: float | None) -> int | None:
    return None if ms is None else math.ceil(ms / 1000)


def ticket_view(ticket: Ticket) -> dict[str, Any]:
    """The ticket view of DESIGN section 5; seconds, instants in ISO 8601."""
    expires_ms = ticket.expires_ms
    return {
        "ticket_id": ticket.ticket_id,
        "user_id": ticket.user_id,
        "pool": ticket.pool,
        "status": ticket.status.value,
        "position": ticket.position,
        "queue_length": ticket.queue_length,
        "estimated_wait": _seconds(ticket.wait_ms),
        "estimated_wait_high": _seconds(ticket.wait_high_ms),
        "expires_in": _seconds(expires_ms - ticket.now_ms) if expires_ms else None,
        "expires_at": iso(expires_ms),
        "session_duration": _seconds(ticket.session_ms),
        "joined_at": iso(ticket.joined_ms),
        "reason": ticket.reason,
        "priority": ticket.priority,
        "may_be_passed": ticket.may_be_passed,
    }


def metrics_view(pool: str, metrics: PoolMetrics) -> dict[str, Any]:
    """``GET /queue/metrics``; waits in seconds, over the newest 200 admissions."""
    waits = sorted(metrics.waits_ms)
    cuts = quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else waits * 99

    def percentile(p: int) -> int | None:
        return _seconds(cuts[p - 1]) if cuts else None

    return {
        "pool": pool,
        "capacity": metrics.capacity,
        "active": metrics.active,
        "draft": metrics.draft,
        "finishing": metrics.finishing,
        "waiting": metrics.waiting,
        "free": metrics.free,
        "paused": metrics.paused,
        "admitted_total": metrics.admitted_total,
        "expired_total": metrics.expired_total,
        "abandoned_total": metrics.abandoned_total,
        "estimated_wait": _seconds(metrics.wait_ms),
        "wait_p50": percentile(50),
        "wait_p95": percentile(95),
    }


def queue_view(metrics: PoolMetrics, items: list[Queued]) -> dict[str, Any]:
    """``GET /queue/status``, one page; the first who waits is 1."""
    return {
        "queue_length": metrics.waiting,
        "active_requests": metrics.active,
        "max_concurrent": metrics.capacity,
        "total_processed": metrics.admitted_total,
        "queue_items": [
            {
                "request_id": item.ticket_id,
                "user_id": item.user_id,
                "position": item.position,
                "enqueued_at": iso(item.joined_ms),
                "status": "waiting",
            }
            for item in items
        ],
    }


_DEFAULT_CLASS = {DEFAULT_PRIORITY: {"head_start_ms": 0, "weight": 1}}


def pool_view(pool: str, metrics: PoolMetrics) -> dict[str, Any]:
    """One pool of ``/admin/pools``: its settings as they are in force, and its counts."""
    settings = metrics.settings
    return {
        **metrics_view(pool, metrics),
        "kind": settings["kind"],
        "capacity_setting": settings["capacity"],
        "needs_worker": settings.get("needs_worker", False),
        "sessions_per_slot": settings["sessions_per_slot"],
        "session_duration": _seconds(settings["session_ms"]),
        "draft_duration": _seconds(settings["draft_ms"]),
        "lease_duration": _seconds(settings["lease_ms"]),
        "queue_timeout": _seconds(settings.get("queue_timeout_ms")),
        "queue_limit": settings.get("queue_limit"),
        "user_concurrency": settings.get("user_concurrency"),
        "priorities": {
            name: {"head_start": each["head_start_ms"] // 1000, "weight": each["weight"]}
            for name, each in {**_DEFAULT_CLASS, **settings.get("priorities", {})}.items()
        },
        "ready_workers": metrics.ready_workers,
    }


def worker_view(worker: Worker) -> dict[str, Any]:
    """One worker of ``/admin/workers``; never its upstream key."""
    return {
        "worker_id": worker.worker_id,
        "url": worker.url,
        "kind": worker.kind,
        "pool": worker.pool,
        "models": list(worker.models),
        "slots": worker.slots,
        "in_flight": worker.in_flight,
        "ready": worker.ready,
        "draining": worker.draining,
        "reason": worker.reason,
        "first_seen": iso(worker.first_seen_ms),
        "last_seen": iso(worker.last_seen_ms),
        "load": worker.load,
        "hardware": worker.hardware,
        "agent_info": worker.agent_info,
        "instance_id": worker.instance_id,
        "engine": worker.engine,
    }


def problem(error: AdmissionError) -> dict[str, Any]:
    """RFC 9457 problem details."""
    body: dict[str, Any] = {
        "type": f"urn:vestibule:{error.code}",
        "title": error.code.replace("_", " "),
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        **error.extra,
    }
    if error.field:
        body["field"] = error.field
        body.setdefault("errors", [{"field": error.field, "message": error.detail}])
    return body


def openai_error(error: AdmissionError) -> dict[str, Any]:
    """The error envelope of the OpenAI API."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status, "server_error" if error.status >= 500 else None)
    return {
        "error": {
            "message": error.detail,
            "type": kind or "invalid_request_error",
            "param": error.field,
            "code": error.code,
            **error.extra,
        }
    }
