"""The table of every HTTP operation: who may call it, what goes in, what comes out.

Data only; ``openapi`` makes the document of it. A test compares it with the application's routes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from admission import wire
from admission.api import instances, keys, projects, threads

Who = Literal["anybody", "user", "service", "admin", "worker", "visitor"]
Answer = Literal["json", "table", "events", "html", "any", "asset", "websocket"]


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    ``errors``: beside those that its kind of caller, body and parameters bring along. ``answers``:
    the name of a view in ``openapi.VIEWS`` by status, "" for anything that is not JSON of ours.
    """

    method: str
    path: str
    summary: str
    who: Who
    answers: Mapping[int, str]
    body: type[BaseModel] | None = None
    query: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    media: Answer = "json"
    says: str = ""  # what a good answer is, where a schema cannot tell
    headers: tuple[str, ...] = ()


POOL = ("pool",)
PAGED = ("offset", "limit")
TICKET = {200: "Ticket"}
WAIT = ("pool", "lang", "ticket")
USAGE_OF_PROJECT = ("span", "by", "from", "to", "user", "key", "model", "format")
USAGE = (*USAGE_OF_PROJECT, "project")
INSTANCES = ("pool", "provider", "state", *PAGED)
ONCE = ("Idempotency-Key",)
FLEET_EVENTS = (
    "Server-Sent Events: `event: fleet`, data = the view FleetLine (a transition or an action)"
    " with the Instance after it as instance, or null; from now on, or after Last-Event-ID;"
    " `event: gap` when some in between are gone; `event: budget` when one is used up to some"
    " share of it, data = budget, share, spent, amount, currency, used_up_at; `event: pool` when"
    " the autoscaler asks for something, or a hold or a shortage begins or ends, data = pool"
    " (null: of the whole fleet), at, name, reason, ok, detail; a comment every 15 s. Other kinds"
    " of events may come to stand beside these."
)
COSTS = ("costs.by", "from", "to", "format")
HISTORY = ("pool", "worker", "from", "to", "step", "format")
TICKET_EVENTS = (
    "Server-Sent Events: `event: ticket`, data = the view Ticket, increasing ids. A snapshot first,"
    " then each change, disconnected last; a comment every 15 s. Being attached is presence."
)
CHAT_EVENTS = (
    "Server-Sent Events, data = JSON with a type: queue (position, message: the place in words, at"
    " each change while waiting), sources (sources, as the upstream sends them), token (content),"
    " done (thread, to send back with the next message; saved; finish_reason), error (code,"
    " message). An error before the first event is an HTTP error."
)

OPERATIONS: Mapping[str, tuple[Operation, ...]] = {
    "Turns": (
        Operation("POST", "/queue/join/{user_id}", "Take a place, or the slot at once; idempotent",
                  "user", {200: "TicketWithToken"}, wire.JoinBody, POOL, (404, 409)),
        Operation("POST", "/queue/confirm/{user_id}", "Turn an offered slot into a session",
                  "user", TICKET, wire.ConfirmBody, POOL, (404, 409)),
        Operation("POST", "/queue/leave/{user_id}", "End the turn; with client, detach one chat",
                  "user", {200: "Left"}, wire.LeaveBody, POOL, (404,)),
        Operation("POST", "/queue/heartbeat/{user_id}", "Stay present; with client, in use",
                  "user", TICKET, wire.HeartbeatBody, POOL, (404,)),
        Operation("GET", "/queue/status/{user_id}", "The ticket, without any side effect",
                  "user", TICKET, None, ("pool", "ticket_id"), (404,)),
        Operation("GET", "/queue/events/{user_id}", "The ticket at each change, as an event stream",
                  "visitor", {200: ""}, None, ("pool", "ticket_id", "token"), (404,), "events",
                  TICKET_EVENTS),
        Operation("GET", "/queue/ws/{user_id}", "The same over WebSocket",
                  "visitor", {101: ""}, None, ("pool", "ticket_id", "token"), (404,),
                  "websocket"),
        Operation("GET", "/queue/metrics", "The numbers of one pool",
                  "service", {200: "Metrics"}, None, POOL, (404,)),
        Operation("GET", "/queue/status", "Who waits, in order; the first is 1",
                  "service", {200: "Queue"}, None, (*POOL, *PAGED), (404,)),
    ),
    "Chats": (
        Operation("POST", "/chat/stream", "Wait the turn, ask the model, stream the answer",
                  "user", {200: ""}, threads.ChatBody, ("lang",), (404, 429, 502), "events",
                  CHAT_EVENTS),
        Operation("GET", "/chat/threads", "The caller's conversations, the last used first",
                  "user", {200: "Threads"}, None, ("user_id", *PAGED)),
        Operation("POST", "/chat/threads", "Begin a conversation, with a system prompt",
                  "user", {201: "Thread"}, threads.ThreadBody, ("user_id",)),
        Operation("GET", "/chat/threads/{thread}", "One conversation with its messages",
                  "user", {200: "ThreadWithMessages"}, None, ("user_id",), (404,)),
        Operation("DELETE", "/chat/threads/{thread}", "Forget a conversation",
                  "user", {200: "ThreadDeleted"}, None, ("user_id",), (404,)),
        Operation("POST", "/chat/threads/{thread}/clear", "Forget the messages of a conversation",
                  "user", {200: "Thread"}, None, ("user_id",), (404,)),
    ),
    "Gateway": (
        Operation("GET", "/v1/models", "The models that are served (OpenAI)",
                  "user", {200: "Models"}),
        Operation("GET", "/v1/models/{model}", "One of them (OpenAI)",
                  "user", {200: "Model"}, None, (), (404,)),
        *(
            Operation("POST", path, f"{what}, in the user's turn, which the call may wait for; the"
                      " answer is the model server's, byte by byte",
                      "user", {200: ""}, None, (), (404, 408, 413, 429, 502, 504), "any")
            for path, what in (
                ("/v1/chat/completions", "A chat (OpenAI)"),
                ("/v1/completions", "A text continued (OpenAI)"),
                ("/v1/responses", "A response (OpenAI)"),
                ("/v1/embeddings", "Embeddings (OpenAI)"),
                ("/v1/{path}", "Whatever else a model server offers, by the model in the body"),
                ("/api/chat", "A chat (Ollama)"),
                ("/api/generate", "A text continued (Ollama)"),
                ("/api/embed", "Embeddings (Ollama)"),
                ("/api/embeddings", "One embedding (Ollama)"),
            )
        ),
        *(
            Operation(method, f"/v1/responses/{{response}}{part}", f"{what}, by the worker that has"
                      " it and without a turn",
                      "user", {200: ""}, None, (), (404, 408, 413, 502, 504), "any")
            for method, part, what in (
                ("GET", "", "A stored response, or the stream of its events (OpenAI)"),
                ("DELETE", "", "A stored response is forgotten (OpenAI)"),
                ("GET", "/input_items", "What a stored response was asked (OpenAI)"),
                ("POST", "/cancel", "A response that runs in the background is ended (OpenAI)"),
            )
        ),
        Operation("GET", "/api/tags", "The models that are served (Ollama)",
                  "user", {200: ""}, media="any"),
        Operation("POST", "/api/show", "What a worker says of a model (Ollama)",
                  "user", {200: ""}, None, (), (404, 502, 504), "any"),
        Operation("GET", "/api/ps", "The models that are loaded now (Ollama)",
                  "user", {200: ""}, media="any"),
        Operation("GET", "/api/version", "The oldest version of the Ollama workers",
                  "user", {200: ""}, media="any", errors=(404,)),
    ),
    "Pages": (
        Operation("GET", "/wait/{user_id}", "The waiting page, for people",
                  "visitor", {200: "", 303: ""}, None, ("pool", "lang", "token"), (404,), "html"),
        Operation("POST", "/wait/{user_id}/join", "Its button: take a place",
                  "visitor", {303: ""}, None, WAIT, (404, 409), "html"),
        Operation("POST", "/wait/{user_id}/confirm", "Its button: take the offered slot",
                  "visitor", {303: ""}, None, WAIT, (404, 409), "html"),
        Operation("POST", "/wait/{user_id}/leave", "Its button: make room",
                  "visitor", {303: ""}, None, WAIT, (404,), "html"),
        Operation("GET", "/assets/{name}", "The style sheet and the script of the pages",
                  "anybody", {200: ""}, None, (), (404,), "asset"),
        Operation("GET", "/docs", "This document, to read", "anybody", {200: ""}, media="html"),
        Operation("GET", "/openapi.json", "This document, for machines", "anybody",
                  {200: "OpenApi"}),
    ),
    "Workers": (
        Operation("POST", "/workers/register", "An agent makes its worker known",
                  "worker", {200: "Registered"}, wire.RegisterBody, (), (404, 409)),
        Operation("POST", "/workers/heartbeat", "A worker's report, good for 30 s",
                  "worker", {200: "Reported"}, wire.WorkerHeartbeatBody, (), (404,)),
        Operation("POST", "/workers/{worker_id}/drain", "No new requests, asked by its agent",
                  "worker", {200: "Draining"}, None, POOL, (404,)),
    ),
    "Admin": (
        Operation("GET", "/admin/pools", "All pools", "admin", {200: "Pools"}),
        Operation("PUT", "/admin/pools/{pool}", "Settings of a pool, in force at once; makes a new"
                  " one", "admin", {200: "Pool"}, wire.PoolBody, (), (409,)),
        Operation("DELETE", "/admin/pools/{pool}", "End everybody's turn there and forget the pool",
                  "admin", {200: "Closed"}, None, (), (404, 409)),
        Operation("POST", "/admin/queue/cancel/{user_id}", "Take a user out, and cut what runs",
                  "admin", {200: "Left"}, wire.CancelBody, POOL, (404,)),
        Operation("GET", "/admin/workers", "The workers", "admin", {200: "Workers"}),
        Operation("GET", "/admin/ticks", "The scheduler's duties: who does each, how the last run"
                  " went", "admin", {200: "Ticks"}),
        Operation("GET", "/admin/history", "How busy, ready and fast a pool, or its workers, were",
                  "admin", {200: "History"}, None, HISTORY, (), "table"),
        Operation("POST", "/admin/workers/{worker_id}/drain", "No new requests for a worker",
                  "admin", {200: "Draining"}, None, POOL, (404,)),
        Operation("POST", "/admin/workers/{worker_id}/rotate", "New secrets for a worker, at its"
                  " next heartbeat", "admin", {200: "Rotating"}, None, POOL, (404, 409)),
        Operation("POST", "/admin/workers/{worker_id}/release", "Forget a worker",
                  "admin", {200: "Released"}, None, POOL, (404,)),
        Operation("DELETE", "/admin/workers/{worker_id}", "Revoke a worker, which may not come"
                  " back until it is released", "admin", {200: "Revoked"}, None, POOL, (404,)),
    ),
    "Fleet": (
        Operation("GET", "/admin/instances", "The machines there are, and those asked for; with"
                  " state=archived those that were", "admin", {200: "Instances"}, None, INSTANCES),
        Operation("POST", "/admin/instances", "Order machines; what is left out is that of the"
                  " cheapest offer", "admin", {202: "Accepted"}, instances.ProvisionBody, (),
                  (404, 409), headers=ONCE),
        Operation("GET", "/admin/instances/offers", "What each provider offers, at what price",
                  "admin", {200: "Offers"}),
        Operation("GET", "/admin/instances/{instance_id}", "One of them, with its disks and its"
                  " history", "admin", {200: "InstanceWithHistory"}, None, (), (404,)),
        Operation("DELETE", "/admin/instances/{instance_id}", "End it, its disks too, once its"
                  " requests have finished", "admin", {202: "Accepted"}, None,
                  ("drain", "force", "reason"), (404, 409), headers=ONCE),
        Operation("POST", "/admin/instances/{instance_id}/drain", "Nothing new for it; it finishes"
                  " what runs", "admin", {202: "Accepted"}, instances.DrainBody, (), (404, 409),
                  headers=ONCE),
        Operation("POST", "/admin/instances/{instance_id}/resume", "It gets requests again",
                  "admin", {202: "Accepted"}, instances.ReasonBody, (), (404, 409), headers=ONCE),
        Operation("POST", "/admin/instances/{instance_id}/archive", "Out of sight, when it is"
                  " gone", "admin", {202: "Accepted"}, instances.ReasonBody, (), (404, 409),
                  headers=ONCE),
        Operation("GET", "/admin/fleet", "What the autoscaler decided last of each pool, and why",
                  "admin", {200: "Fleet"}),
        Operation("GET", "/admin/events", "What happens to the fleet, live",
                  "admin", {200: ""}, media="events", says=FLEET_EVENTS),
    ),
    "Keys": (
        Operation("POST", "/admin/keys", "A new key; its text is told this once",
                  "admin", {201: "NewKey"}, keys.KeyBody),
        Operation("GET", "/admin/keys", "All keys, without their texts", "admin", {200: "Keys"}),
        Operation("DELETE", "/admin/keys/{id}", "Withdraw a key",
                  "admin", {200: "Deleted"}, None, (), (404,)),
        Operation("GET", "/admin/priorities", "The classes of users", "admin", {200: "Priorities"}),
        Operation("GET", "/admin/priorities/{user_id}", "The class of one user",
                  "admin", {200: "Priority"}),
        Operation("PUT", "/admin/priorities/{user_id}", "Give a user a class",
                  "admin", {200: "Priority"}, keys.UserPriorityBody),
        Operation("DELETE", "/admin/priorities/{user_id}", "Take a user's class away",
                  "admin", {200: "Priority"}, None, (), (404,)),
        Operation("GET", "/admin/signing-keys", "The keys that sign user tokens",
                  "admin", {200: "SigningKeys"}),
        Operation("POST", "/admin/signing-keys", "A new signing key",
                  "admin", {201: "SigningKeys"}, keys.RotationBody, (), (409,)),
        Operation("DELETE", "/admin/signing-keys/{kid}", "Withdraw a signing key",
                  "admin", {200: "SigningKeys"}, None, (), (404, 409)),
        Operation("GET", "/.well-known/jwks.json", "The public keys that check user tokens"
                  " (RFC 7517)", "anybody", {200: "KeySet"}),
    ),
    "Usage": (
        Operation("GET", "/admin/projects", "All projects", "admin", {200: "Projects"}),
        Operation("GET", "/admin/projects/{id}", "One project",
                  "admin", {200: "Project"}, None, (), (404,)),
        Operation("PUT", "/admin/projects/{id}", "Make or change a project, and its limits",
                  "admin", {200: "Project"}, projects.ProjectBody),
        Operation("DELETE", "/admin/projects/{id}", "Forget a project without keys",
                  "admin", {200: "Deleted"}, None, (), (404, 409)),
        Operation("GET", "/admin/projects/{id}/usage", "What a project used",
                  "admin", {200: "Usage"}, None, USAGE_OF_PROJECT, (404,), "table"),
        Operation("GET", "/admin/limits", "All limits, by whose they are: user:ada, or user for all"
                  " others", "admin", {200: "LimitsTable"}),
        Operation("PUT", "/admin/limits/{of}", "What every user, project or user key may use that"
                  " has no limits of its own", "admin", {200: "LimitsRow"}, projects.LimitsBody),
        Operation("DELETE", "/admin/limits/{of}", "Take these away",
                  "admin", {200: "LimitsRow"}, None, (), (404,)),
        Operation("PUT", "/admin/limits/{of}/{whose}", "What one user, project or key may use",
                  "admin", {200: "LimitsRow"}, projects.LimitsBody, (), (404,)),
        Operation("DELETE", "/admin/limits/{of}/{whose}", "Take these away",
                  "admin", {200: "LimitsRow"}, None, (), (404,)),
        Operation("GET", "/admin/usage", "What was used, by hour, day or week",
                  "admin", {200: "Usage"}, None, USAGE, (), "table"),
        Operation("GET", "/admin/usage/models", "The models that were ever used",
                  "admin", {200: "UsedModels"}),
        Operation("GET", "/admin/costs", "What machines cost, and for whom",
                  "admin", {200: "Costs"}, None, COSTS, (), "table"),
        Operation("GET", "/admin/costs/now", "How fast money is spent, and how the budgets stand",
                  "admin", {200: "CostsNow"}),
    ),
    "Proxies": tuple(
        Operation(method, path, summary, "user", {200: ""}, None, ("pool", "model"),
                  (404, 409, 429, 503), "any",
                  "It may pass: X-Vestibule-Upstream, X-Vestibule-Worker and"
                  " X-Vestibule-Upstream-Authorization say where to and with which key.")
        for method, path, summary in (
            ("GET", "/auth", "May this call pass, and where to (nginx)"),
            ("GET", "/auth/{path}", "The same for a GET (Envoy)"),
            ("POST", "/auth/{path}", "The same for a POST (Envoy)"),
        )
    ),
    "Health": (
        Operation("GET", "/healthz", "Is this process alive", "anybody", {200: "Health"}),
        Operation("GET", "/readyz", "Can it do its work", "anybody", {200: "Health"},
                  errors=(503,)),
    ),
}  # fmt: skip
