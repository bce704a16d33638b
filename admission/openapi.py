"""The OpenAPI 3.1 document, made from the table of operations and the bodies that are checked.

What goes in is pydantic's schema of the very class that reads it; what comes out is described here
and compared with real answers by a test.
"""

from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from admission.accounting.cost import BY
from admission.accounting.limits import OF
from admission.accounting.record import DIMENSIONS, SPANS
from admission.api.instances import DRAIN_MAX_S
from admission.api.threads import THREAD_ID
from admission.cost_views import COST_VIEWS
from admission.decision_views import DECISION_VIEWS
from admission.domain import POOL_NAME, USER_ID, WORKER_ID, Status
from admission.instance import INSTANCE_ID, State
from admission.operations import OPERATIONS, Operation
from admission.pages import ASSETS
from admission.pages.words import LANGUAGES

# A view in short: name -> type; "?" may be null, "[]" a list, a capital letter another view.
VIEWS: dict[str, dict[str, str]] = {
    "Ticket": {
        "ticket_id": "string", "user_id": "string", "pool": "string", "status": "status",
        "position": "integer?", "queue_length": "integer", "estimated_wait": "integer?",
        "estimated_wait_high": "integer?", "expires_in": "integer?", "expires_at": "instant?",
        "session_duration": "integer", "joined_at": "instant", "reason": "string?",
        "priority": "string", "may_be_passed": "boolean",
    },
    "Left": {
        "user_id": "string", "pool": "string", "previous_status": "status", "status": "status",
    },
    "Metrics": {
        "pool": "string", "capacity": "integer", "active": "integer", "draft": "integer",
        "finishing": "integer", "waiting": "integer", "free": "integer", "paused": "boolean",
        "admitted_total": "integer", "expired_total": "integer", "abandoned_total": "integer",
        "estimated_wait": "integer?", "wait_p50": "integer?", "wait_p95": "integer?",
    },
    "Queued": {
        "request_id": "string", "user_id": "string", "position": "integer",
        "enqueued_at": "instant", "status": "status",
    },
    "Queue": {
        "queue_length": "integer", "active_requests": "integer", "max_concurrent": "integer",
        "total_processed": "integer", "queue_items": "[]Queued",
    },
    "Thread": {
        "thread": "string", "created_at": "instant", "used_at": "instant", "expires_at": "instant",
        "size_bytes": "integer", "system": "string?", "metadata": "object",
    },
    "Message": {"role": "string", "content": "string", "at": "instant"},
    "Threads": {"threads": "[]Thread", "total": "integer"},
    "ThreadDeleted": {"thread": "string", "deleted": "boolean"},
    "Model": {"id": "string", "object": "string", "created": "integer", "owned_by": "string"},
    "Models": {"object": "string", "data": "[]Model"},
    "Registered": {
        "worker_id": "string", "token": "string", "upstream_key": "string",
        "heartbeat_interval": "integer",
    },
    "Reported": {
        "ready": "boolean", "reason": "string?", "draining": "boolean", "rotate": "boolean",
    },
    "Draining": {"worker_id": "string", "draining": "boolean"},
    "Released": {"worker_id": "string", "released": "boolean"},
    "Rotating": {"worker_id": "string", "rotating": "boolean"},
    "Revoked": {"worker_id": "string", "revoked": "boolean"},
    "Closed": {"pool": "string", "closed": "boolean"},
    "Pools": {"pools": "[]Pool"},
    "Worker": {
        "worker_id": "string", "url": "string", "kind": "string", "pool": "string",
        "models": "[]string", "slots": "integer", "in_flight": "integer", "ready": "boolean",
        "draining": "boolean", "reason": "string?", "first_seen": "instant",
        "last_seen": "instant", "load": "object?", "hardware": "object?", "agent_info": "object?",
        "instance_id": "string?", "engine": "object?",
    },
    "Workers": {"workers": "[]Worker"},
    "Tick": {
        "name": "string", "holder": "string?", "epoch": "integer", "period": "number",
        "next_due": "instant", "running_since": "instant?", "last_run": "instant?",
        "last_duration": "number?", "last_success": "instant?", "last_error": "string?",
        "last_error_at": "instant?", "runs": "integer", "failures": "integer",
    },
    "Ticks": {"ticks": "[]Tick", "warnings": "[]string"},
    "HistoryRow": {
        "begin": "instant", "pool": "string", "worker": "string?", "ready": "number",
        "slots": "number", "busy": "number", "use": "number?", "waiting": "number",
        "waiting_max": "integer", "estimated_wait": "number?", "gpu_load": "number?",
        "gpu_memory": "number?", "requests": "integer", "completion_tokens": "integer",
        "queued": "number?", "first_token": "number?", "duration": "number?",
    },
    "History": {"step": "integer", "history": "[]HistoryRow"},
    "Volume": {
        "provider_volume_id": "string", "volume_type": "string", "size_gb": "integer",
        "is_boot": "boolean", "delete_on_terminate": "boolean", "state": "string",
        "deleted_at": "instant?",
    },
    "Instance": {
        "instance_id": "string", "state": "string", "pending": "boolean", "progress": "integer",
        "version": "integer", "provider": "string", "pool": "string", "type": "string",
        "zone": "string", "market": "string", "model": "string", "options": "object",
        "price_per_hour": "number?", "currency": "string", "asked_by": "string",
        "provider_id": "string", "worker_id": "string", "address": "string",
        "error_code": "string?", "error": "string?", "unattended": "string?",
        "requested_at": "instant", "since": "instant", "moved_at": "instant",
        "launched_at": "instant?", "ready_at": "instant?", "drain_by": "instant?",
        "ended_at": "instant?", "volumes": "[]Volume",
    },
    "Instances": {"instances": "[]Instance"},
    "FleetLine": {
        "instance_id": "string", "at": "instant", "version": "integer", "name": "string",
        "source": "string?", "target": "string?", "reason": "string", "progress": "integer",
        "ok": "boolean", "detail": "object",
    },
    "Accepted": {"command_id": "string", "kind": "string", "instances": "[]string"},
    "Offer": {
        "type": "string", "zone": "string", "market": "string", "price_per_hour": "number?",
        "currency": "string", "slots": "integer", "source": "string",
        "billed_least_s": "integer", "ending": "string",
    },
    "Offered": {"provider": "string", "asked_at": "instant", "offers": "[]Offer"},
    "Offers": {"providers": "[]Offered"},
    "Key": {
        "id": "string", "kind": "string", "label": "string", "user": "string?",
        "project": "string?", "priority": "string?", "created_at": "instant",
        "expires_at": "instant?",
    },
    "Keys": {"keys": "[]Key"},
    "Deleted": {"id": "string", "deleted": "boolean"},
    "Project": {"id": "string", "label": "string", "created_at": "instant", "limits": "object?"},
    "LimitsTable": {"limits": "object"},
    "LimitsRow": {"row": "string", "limits": "object?"},
    "UsageRow": {
        "begin": "instant", "project": "string?", "user": "string?", "key": "string?",
        "model": "string?", "requests": "integer", "served": "integer",
        "prompt_tokens": "integer", "completion_tokens": "integer", "tokens": "integer",
        "queued": "number?", "first_token": "number?", "duration": "number?",
    },
    "Usage": {"span": "string", "usage": "[]UsageRow"},
    "UsedModel": {
        "model": "string", "first_seen": "instant", "last_used": "instant", "uses": "integer",
    },
    "UsedModels": {"models": "[]UsedModel"},
    **COST_VIEWS,
    **DECISION_VIEWS,
    "Projects": {"projects": "[]Project"},
    "Priorities": {"priorities": "object"},
    "Priority": {"user_id": "string", "priority": "string?"},
    "SigningKey": {
        "kid": "string", "signs": "boolean", "signs_from": "instant?", "made_at": "instant?",
    },
    "SigningKeys": {"signing_keys": "[]SigningKey"},
    "KeySet": {"keys": "[]object"},
    "Health": {"status": "string"},
    "OpenApi": {"openapi": "string", "info": "object", "paths": "object"},
    "Problem": {
        "type": "string", "title": "string", "status": "integer", "detail": "string",
        "code": "string",
    },
    "OpenAiError": {"error": "object"},
    "OllamaError": {"error": "string"},
}  # fmt: skip
# Views that hold another's fields and more.
LARGER: dict[str, tuple[str, dict[str, str]]] = {
    "TicketWithToken": ("Ticket", {"token": "string"}),
    "ThreadWithMessages": ("Thread", {"messages": "[]Message"}),
    "InstanceWithHistory": ("Instance", {"history": "[]FleetLine"}),
    "NewKey": ("Key", {"key": "string"}),
    "Pool": (
        "Metrics",
        {"kind": "string", "needs_worker": "boolean", "ready_workers": "integer"},
    ),
}
WORDS = {
    400: "Not HTTP, or a field the gateway needs is missing",
    401: "No key, or one nobody knows",
    403: "A key of the wrong kind, or for somebody else",
    404: "There is no such thing",
    408: "The body did not come in time",
    409: "The right call at the wrong moment",
    413: "The body is larger than allowed",
    422: "A field is wrong; the answer names it",
    429: "No turn yet, or too many calls",
    502: "The model server gave no answer",
    503: "Nothing to change: try again later",
    504: "The model server did not answer in time",
}
GOOD = {101: "Switched", 200: "Done", 201: "Made", 202: "It is asked for", 303: "Look there"}
MEDIA = {
    "json": ("application/json",),
    "table": ("application/json", "text/csv"),
    "events": ("text/event-stream",),
    "html": ("text/html",),
    "any": ("*/*",),
    "asset": ("text/css", "text/javascript"),
    "websocket": (),
}
_ID: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 64,
    "pattern": f"^{THREAD_ID}$",
}
PATH: dict[str, dict[str, Any]] = {
    "user_id": {"type": "string", "pattern": f"^{USER_ID.pattern}$"},
    "instance_id": {"type": "string", "pattern": f"^{INSTANCE_ID.pattern}$"},
    "pool": {"type": "string", "pattern": f"^{POOL_NAME.pattern}$"},
    "worker_id": {"type": "string", "pattern": f"^{WORKER_ID.pattern}$"},
    "name": {"type": "string", "enum": [*ASSETS]},
    "thread": _ID,
    "id": _ID,
    "kid": _ID,
    "of": {"type": "string", "enum": [*OF]},
    "whose": {"type": "string", "pattern": f"^{USER_ID.pattern}$"},
    "model": {"type": "string", "minLength": 1},
    "path": {"type": "string", "pattern": "^[A-Za-z0-9_/-]+$"},
    "response": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
}
_NAME = {"type": "string", "maxLength": 256}
_INSTANT = {"type": "string", "format": "date-time"}
QUERY: dict[str, tuple[dict[str, Any], str]] = {
    "pool": ({**PATH["pool"], "default": "default"}, "Which pool"),
    "offset": ({"type": "integer", "minimum": 0, "maximum": 1_000_000_000}, "So many left out"),
    "limit": ({"type": "integer", "minimum": 0, "maximum": 1000}, "So many at most"),
    "token": ({"type": "string"}, "A user token, where no header can be sent"),
    "lang": ({"type": "string", "enum": [*LANGUAGES]}, "The language"),
    "ticket": ({"type": "string", "maxLength": 128}, "The ticket the page showed"),
    "ticket_id": ({"type": "string", "maxLength": 128}, "One of the user's, in a request pool"),
    "user_id": (PATH["user_id"], "Whose, with a service key"),
    "span": (
        {"type": "string", "enum": [*SPANS], "default": "day"},
        "Of each row, in UTC",
    ),
    "by": ({"type": "string", "enum": [*DIMENSIONS]}, "What is told apart"),
    "costs.by": ({"type": "string", "enum": [*BY], "default": BY[0]}, "What is told apart"),
    "from": (_INSTANT, "The first, or a day; without it a day, 30 days or a year back"),
    "to": (_INSTANT, "Up to here, or a day; without it now"),
    "worker": (
        {"type": "string", "pattern": rf"^({WORKER_ID.pattern}|\*)$"},
        "Of this worker, or * for each; without it of the pool as a whole",
    ),
    "step": (
        {"type": "integer", "minimum": 1, "maximum": 86_400, "default": 300},
        "Seconds a row sums up",
    ),
    "provider": (_NAME, "Of this provider only"),
    "state": ({"type": "string", "enum": [*State]}, "In this state only"),
    "drain": (
        {"type": "integer", "minimum": 0, "maximum": DRAIN_MAX_S},
        "Seconds that its requests are given; without it what the scheduler's settings say",
    ),
    "force": ({"type": "boolean", "default": False}, "Give them none"),
    "reason": ({"type": "string", "maxLength": 1024}, "As people will read it"),
    "format": ({"type": "string", "enum": ["json", "csv"], "default": "json"}, "Of the answer"),
    "project": (_NAME, "Of this project only"),
    "user": (_NAME, "Of this user only"),
    "key": (_NAME, "With the key of this id only"),
    "model": (_NAME, "Of this model only"),
}
HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "Idempotency-Key": (
        {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
        "Said again within 24 hours with the same words, the call is the same one",
    ),
}
_WHO = {"user": 1, "service": 1, "admin": 1, "worker": 1, "visitor": 2}


@cache
def document(version: str, served: frozenset[tuple[str, str]] | None = None) -> dict[str, Any]:
    """The whole document; ``version`` of the service.

    Args:
        served: method and path of the operations there are, when they are not all.
    """
    operations = [
        (tag, each)
        for tag, group in OPERATIONS.items()
        for each in group
        if served is None or (each.method, each.path) in served
    ]
    bodies = {each.body: each.body for _, each in operations if each.body is not None}
    names, schemas = _body_schemas(list(bodies))
    paths: dict[str, dict[str, Any]] = {}
    for tag, each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(tag, each, names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Vestibule",
            "version": version,
            "summary": "A fair, visible turn for every user on a limited pool of GPUs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(tag for tag, _ in operations)],
        "paths": paths,
        "components": {
            "schemas": {**_views(), **schemas},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "vestibule_token"},
            },
        },
    }


def _operation(tag: str, each: Operation, names: dict[type[BaseModel], str]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "tags": [tag],
        "summary": each.summary,
        "operationId": f"{each.method.lower()}_{each.path.strip('/').replace('/', '_')}",
        "parameters": [
            *_path_parameters(each.path),
            *map(_query_parameter, each.query),
            *map(_header_parameter, each.headers),
        ],
        "responses": _responses(each),
        "security": [{"bearer": []}, {"cookie": []}][: _WHO.get(each.who, 0)],
    }
    if each.body is not None:
        reference = {"$ref": f"#/components/schemas/{names[each.body]}"}
        made["requestBody"] = {
            "required": any(field.is_required() for field in each.body.model_fields.values()),
            "content": {"application/json": {"schema": reference}},
        }
    elif each.path.startswith("/v1/") and each.method == "POST" and "{response}" not in each.path:
        made["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _CHAT}},
        }
    return made


_CHAT = {
    "type": "object",
    "description": "What the model server takes; only `model` and `stream` are read here",
    "properties": {"model": {"type": "string", "minLength": 1, "maxLength": 256}},
    "required": ["model"],
}


def _responses(each: Operation) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for status, view in each.answers.items():
        found[str(status)] = {"description": each.says or GOOD[status]}
        if view or status == 200:
            schema = {"$ref": f"#/components/schemas/{view}"} if view else {}
            content = {media: {"schema": schema} for media in MEDIA[each.media]}
            found[str(status)]["content"] = content
    view, media = "Problem", "application/problem+json"
    if each.path.startswith("/v1/"):
        view, media = "OpenAiError", "application/json"
    if each.path.startswith("/api/"):
        view, media = "OllamaError", "application/json"
    content = {media: {"schema": {"$ref": f"#/components/schemas/{view}"}}}
    if each.media == "html":
        content["text/html"] = {"schema": {}}
    for status in _errors(each):
        found[str(status)] = {"description": WORDS[status], "content": content}
    return found


def _errors(each: Operation) -> list[int]:
    errors = {400, *each.errors}
    if each.who != "anybody":
        errors |= {401, 403, 429, 503}
    if each.body is not None or each.query or "{" in each.path:
        errors.add(422)
    if each.method in ("POST", "PUT"):
        errors |= {413, 422}
    return sorted(errors)


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": PATH[name]} for name in names]


def _query_parameter(name: str) -> dict[str, Any]:
    schema, description = QUERY[name]
    said = name.rpartition(".")[2]  # the same word may have another meaning in some operation
    return {"name": said, "in": "query", "schema": schema, "description": description}


def _header_parameter(name: str) -> dict[str, Any]:
    schema, description = HEADERS[name]
    return {"name": name, "in": "header", "schema": schema, "description": description}


def _body_schemas(
    bodies: list[type[BaseModel]],
) -> tuple[dict[type[BaseModel], str], dict[str, Any]]:
    """The name of each body's schema, and the schemas with what they refer to."""
    references, all_schemas = models_json_schema(
        [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
    )
    names = {
        body: reference["$ref"].rsplit("/", 1)[1] for (body, _), reference in references.items()
    }
    return names, all_schemas.get("$defs", {})  # type: ignore[return-value]


def _views() -> dict[str, Any]:
    views = {name: _object(fields) for name, fields in VIEWS.items()}
    for name, (base, more) in LARGER.items():
        views[name] = _object({**VIEWS[base], **more})
    return views


def _object(fields: dict[str, str]) -> dict[str, Any]:
    properties = {name: _type(text) for name, text in fields.items()}
    return {"type": "object", "properties": properties, "required": list(fields)}


def _type(text: str) -> dict[str, Any]:
    if text.startswith("[]"):
        return {"type": "array", "items": _type(text[2:])}
    name, null = text.removesuffix("?"), text.endswith("?")
    if name[0].isupper():
        view = {"$ref": f"#/components/schemas/{name}"}
        return {"anyOf": [view, {"type": "null"}]} if null else view
    if name == "status":
        return {"type": "string", "enum": [*Status]}
    made: dict[str, Any] = {"type": "string" if name == "instant" else name}
    if name == "instant":
        made["format"] = "date-time"
    return {**made, "type": [made["type"], "null"]} if null else made
