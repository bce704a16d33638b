"""What a call asks of the gateway, read and checked: for whom, which model, how long it would wait.

Of the body only what is named here is read; the bytes stay as they came.
"""

import asyncio
import re
from hashlib import blake2b
from typing import Any

import msgspec
from aiohttp import web

from admission.auth import Caller, Kind
from admission.directory import Directory
from admission.errors import AdmissionError, BadInput, NotFound
from admission.gateway import multipart
from admission.keys import DIRECTORY, GATEKEEPER, SETTINGS
from admission.settings import Settings

MESSAGE_HEADER = "X-Vestibule-Message"
TICKET_HEADER = "X-Vestibule-Ticket"
TASK_HEADER = "X-Vestibule-Task"
WAIT_HEADER = "X-Vestibule-Wait"
CHAT_HEADER = "X-OpenWebUI-Chat-Id"  # Open WebUI 0.12.4, env.py; only with the user's headers
# What belongs together, as callers name it; the last one is what other gateways' users may send.
CONVERSATION_HEADERS = (CHAT_HEADER, "X-Vestibule-Conversation", "X-Session-Id")
MODEL_CHARACTERS_MAX = 256
EVENT_STREAMS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"})
"""Whose answer is Server-Sent Events when ``"stream": true`` asks for it."""
CONVERSATIONS = EVENT_STREAMS | {"/api/chat", "/api/generate", "/v1/messages"}
"""What is said there begins like what was said before, which its worker may still know."""
STEPS = frozenset(
    {"context_compaction", "function_calling", "image_prompt_generation", "query_generation"}
)
"""What Open WebUI 0.12.4 (utils/middleware.py) asks for while it prepares an answer, which waits
for it: a call of that chat. It waits for no turn, as nobody would see that it does; refused, the
answer is made without it."""
MERGED = "moa_response_generation"
"""Several answers made into one at the press of a button (routers/tasks.py): an answer itself."""
_OPENING_BYTES = 1024  # of a prompt that is no list of messages


class _Head(msgspec.Struct):
    """The fields the gateway reads; all others are skipped, not built."""

    model: str = ""
    name: Any = None  # Ollama's older word for the model
    stream: Any = False
    prompt_cache_key: Any = None
    background: Any = None
    messages: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    role: Any = None


_HEAD = msgspec.json.Decoder(_Head)
_MESSAGES = msgspec.json.Decoder(list[msgspec.Raw])
_MESSAGE = msgspec.json.Decoder(_Message)
_SYSTEMS = ("system", "developer")  # a prompt that all chats of a frontend may share


class _TooLarge(AdmissionError):
    status, code = 413, "body_too_large"


class _TooSlow(AdmissionError):
    status, code = 408, "body_too_slow"


class _BadRequest(BadInput):
    status, code = 400, "invalid_request"


class Call(msgspec.Struct, frozen=True):
    """One request for a model.

    ``streams``: its answer is Server-Sent Events; ``message``: of the frontend's chat, "" for who
    has none; ``ticket``: a lease taken before; ``task``: what it does beside chats, "" for what is
    of a chat; ``wait_s``: 0 for not at all; ``conversation``: what should go to one worker, "" for
    nothing.
    """

    who: Caller
    user: str
    pool: str
    model: str
    body: bytes
    streams: bool
    message: str
    ticket: str
    task: str
    wait_s: int
    on_page: bool
    conversation: str


async def read_call(request: web.Request) -> Call:
    """The call, body and all.

    Raises:
        Unauthorized, Forbidden, AdmissionError: who calls, and for whom; a body that is too large,
            or comes too slowly.
        BadInput: names the field or the header.
        NotFound: no worker serves the model.
    """
    app, headers, path = request.app, request.headers, request.path
    gatekeeper, settings = app[GATEKEEPER], app[SETTINGS]
    who = gatekeeper.caller(headers)
    user = gatekeeper.user_of(who, headers)
    body = await read_whole(request, settings)
    head = _head(body, headers.get("Content-Type", ""), path)
    model, pool = known_model(app[DIRECTORY], head.model)
    if head.background and path == "/v1/responses":
        raise _BadRequest(
            "background: not here, where nothing is computed outside a turn", field="background"
        )
    # A caller who acts only for themselves does not jump the queue by naming a task.
    trusted = who.kind in (Kind.SERVICE, Kind.ADMIN) or not settings.auth
    task = name_in(request, TASK_HEADER) if trusted else ""
    return Call(
        who=who,
        user=user,
        pool=pool,
        model=model,
        body=body,
        streams=head.stream is True and path in EVENT_STREAMS,
        message=name_in(request, MESSAGE_HEADER),
        ticket=name_in(request, TICKET_HEADER),
        task="" if task in STEPS or task == MERGED else task,
        wait_s=0 if task in STEPS else _wait(request, settings),
        on_page=_on_page(request),
        conversation=_conversation(request, user, head) if path in CONVERSATIONS else "",
    )


async def read_model(request: web.Request) -> tuple[str, bytes]:
    """The model that the body names, and the body; for what takes no turn.

    Raises:
        AdmissionError, BadInput, NotFound: as of ``read_call``.
    """
    body = await read_whole(request, request.app[SETTINGS])
    head = _head(body, request.headers.get("Content-Type", ""), request.path)
    return known_model(request.app[DIRECTORY], head.model)[0], body


def known_model(directory: Directory, named: str) -> tuple[str, str]:
    """The model as a worker calls it, and its pool. Ollama's names mean their ``:latest``.

    Raises:
        NotFound: no worker serves it.
    """
    for model in (named, f"{named}:latest"):
        pool = directory.pool_of(model)
        if pool is not None:
            return model, pool
    raise NotFound(f"The model {named!r} is not served.", code="model_not_found", field="model")


def name_in(request: web.Request, header: str) -> str:
    """What a header names, "" for nothing. Raises BadInput when it is no name."""
    name = request.headers.get(header, "")
    if name and not re.fullmatch(r"[\x21-\x7e]{0,128}", name):
        raise _BadRequest(f"{header}: at most 128 characters without spaces", field=header)
    return name


def _wait(request: web.Request, settings: Settings) -> int:
    asked, limit_s = request.headers.get(WAIT_HEADER, ""), settings.wait_limit
    if not asked:
        return limit_s if settings.when_full == "wait" else 0
    if not re.fullmatch(r"[0-9]{1,8}", asked) or int(asked) > limit_s:
        raise _BadRequest(
            f"{WAIT_HEADER}: whole seconds from 0 to {limit_s}, as VESTIBULE_WAIT_LIMIT says",
            field=WAIT_HEADER,
        )
    return int(asked)


def _on_page(request: web.Request) -> bool:
    """Does the call come from a chat of Open WebUI's page? Of its API calls the message's name is
    empty, where the connection sends it; the chat's id they may have."""
    headers = request.headers
    return bool(headers.get(MESSAGE_HEADER, headers.get(CHAT_HEADER)))


def _conversation(request: web.Request, user: str, head: _Head) -> str:
    """A name for what belongs together: as the caller says, else by how it begins."""
    for header in CONVERSATION_HEADERS:
        named = request.headers.get(header)
        if named:
            return f"{user} {named}"
    if isinstance(head.prompt_cache_key, str) and head.prompt_cache_key:
        return f"{user} {head.prompt_cache_key}"
    opening = _opening(head)
    return f"{user} {blake2b(opening, digest_size=8).hexdigest()}" if opening else ""


def _opening(head: _Head) -> bytes:
    """How it begins, up to the first words that are the user's own."""
    said = bytes(head.messages) or bytes(head.input) or bytes(head.prompt)
    if not said.startswith(b"["):
        return said[:_OPENING_BYTES]
    try:
        first, *others = _MESSAGES.decode(said)[:2]
        if others and _MESSAGE.decode(first).role in _SYSTEMS:
            return bytes(first) + bytes(others[0])
        return bytes(first)
    except (msgspec.DecodeError, ValueError):  # no messages, or none in it; the model will say
        return said[:_OPENING_BYTES]


async def read_whole(request: web.Request, settings: Settings) -> bytes:
    """The body as it came; its own limits, as prompts are larger than any other body.

    Raises:
        AdmissionError: it is too large (413), or does not come in time (408).
    """
    content = request.content
    if content.is_eof() and content.exception() is None:  # it came with its head
        body = content.read_nowait(-1)
        if len(body) <= settings.body_bytes_max:
            return body
        raise _too_large(settings.body_bytes_max)
    parts, size = [], 0
    try:
        async with asyncio.timeout(settings.body_timeout):
            async for part in content.iter_any():
                size += len(part)
                if size > settings.body_bytes_max:
                    raise _too_large(settings.body_bytes_max)
                parts.append(part)
    except TimeoutError:
        raise _TooSlow(
            f"The body has not come within {settings.body_timeout} s.", field="body"
        ) from None
    return b"".join(parts)


def _too_large(most: int) -> _TooLarge:
    return _TooLarge(f"The body is larger than {most} bytes.", field="body")


def _head(body: bytes, content_type: str, path: str) -> _Head:
    if content_type.startswith("multipart/"):
        head = _Head(model=multipart.field(body, content_type, "model") or "")
    else:
        head = _json_head(body)
        if not head.model and path.startswith("/api/") and isinstance(head.name, str):
            head.model = head.name
    if not head.model:
        raise _BadRequest(
            "model: a model's name is needed, by which the worker is chosen", field="model"
        )
    if len(head.model) > MODEL_CHARACTERS_MAX:
        raise _BadRequest(f"model: 1 to {MODEL_CHARACTERS_MAX} characters", field="model")
    return head


def _json_head(body: bytes) -> _Head:
    try:
        return _HEAD.decode(body)
    except msgspec.ValidationError as error:
        raise _BadRequest("model: a model's name is needed", field="model") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _BadRequest("body: not JSON", field="body") from error
