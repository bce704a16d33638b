"""The views of DESIGN section 5: the fields an answer has, and what may stand in them."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from infra.doctor.rule import Broken

# "?" may be null; an instant is ISO 8601 ending in Z.
TICKET = {
    "ticket_id": "string",
    "user_id": "string",
    "pool": "string",
    "status": "status",
    "position": "integer?",
    "queue_length": "integer",
    "estimated_wait": "integer?",
    "estimated_wait_high": "integer?",
    "expires_in": "integer?",
    "expires_at": "instant?",
    "session_duration": "integer",
    "joined_at": "instant",
    "reason": "string?",
}
LEFT = {"user_id": "string", "pool": "string", "previous_status": "status", "status": "status"}
METRICS = {
    "pool": "string",
    "capacity": "integer",
    "active": "integer",
    "draft": "integer",
    "waiting": "integer",
    "free": "integer",
    "paused": "boolean",
    "admitted_total": "integer",
    "expired_total": "integer",
    "abandoned_total": "integer",
    "estimated_wait": "integer?",
    "wait_p50": "integer?",
    "wait_p95": "integer?",
}
QUEUE = {
    "queue_length": "integer",
    "active_requests": "integer",
    "max_concurrent": "integer",
    "total_processed": "integer",
    "queue_items": "list",
}
QUEUED = {
    "request_id": "string",
    "user_id": "string",
    "position": "integer",
    "enqueued_at": "instant",
    "status": "status",
}
TICK = {
    "name": "string",
    "holder": "string?",
    "epoch": "integer",
    "next_due": "instant",
    "last_run": "instant?",
    "last_error": "string?",
    "runs": "integer",
    "failures": "integer",
}
KEY = {
    "id": "string",
    "kind": "string",
    "label": "string",
    "user": "string?",
    "project": "string?",
    "priority": "string?",
    "created_at": "instant",
    "expires_at": "instant?",
}
STATES = ("waiting", "draft", "active", "disconnected")


def instant(text: str) -> datetime:
    """An instant of an answer."""
    return datetime.fromisoformat(text)


def _is(kind: str, value: Any) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "list":
            return isinstance(value, list)
        case "status":
            return value in STATES
        case _:
            return isinstance(value, str) and bool(re.fullmatch(r"\d{4}-\d\d-\d\dT.+Z", value))


def check_view(call: str, view: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """Raises Broken unless ``view`` has all of ``fields``; it may have more."""
    missing = [name for name in fields if name not in view]
    if missing:
        raise Broken(call, f"the fields {', '.join(fields)}", f"without {', '.join(missing)}")
    for name, kind in fields.items():
        value, bare = view[name], kind.removesuffix("?")
        if not (value is None and kind.endswith("?")) and not _is(bare, value):
            raise Broken(call, f"{name}: {kind.replace('?', ' or null')}", repr(value))
