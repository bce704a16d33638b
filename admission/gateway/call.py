"""What a chat completion asks of the gateway, read and checked: for whom, which model, how long it
would wait. Of the body only what is named here is read; the bytes stay as they came.
"""

import re
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from admission.auth import Caller, Kind
from admission.errors import AdmissionError, BadInput, NotFound
from admission.keys import DIRECTORY, GATEKEEPER, SETTINGS

MESSAGE_HEADER = "X-Vestibule-Message"
TICKET_HEADER = "X-Vestibule-Ticket"
TASK_HEADER = "X-Vestibule-Task"
WAIT_HEADER = "X-Vestibule-Wait"
CHAT_HEADER = "X-OpenWebUI-Chat-Id"  # Open WebUI 0.12.4, env.py; only with the user's headers
MODEL_CHARACTERS_MAX = 256


class _Head(msgspec.Struct):
    """The fields the gateway reads; all others are skipped, not built."""

    model: str
    stream: Any = False


_HEAD = msgspec.json.Decoder(_Head)


class _TooLarge(AdmissionError):
    status, code = 413, "body_too_large"


class _BadRequest(BadInput):
    status, code = 400, "invalid_request"


@dataclass(frozen=True)
class Call:
    """One chat completion. ``message``: of the frontend's chat, "" for who has none; ``ticket``: a
    lease taken before; ``wait_s``: 0 for not at all."""

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


async def read_call(request: web.Request) -> Call:
    """The call, body and all.

    Raises:
        Unauthorized, Forbidden, AdmissionError: who calls, and for whom.
        BadInput: names the field or the header.
        NotFound: no worker serves the model.
    """
    gatekeeper, settings = request.app[GATEKEEPER], request.app[SETTINGS]
    who = gatekeeper.caller(request.headers)
    user = gatekeeper.user_of(who, request.headers)
    body = await _read(request, settings.body_bytes_max)
    head = _head(body)
    pool = request.app[DIRECTORY].pool_of(head.model)
    if pool is None:
        raise NotFound(
            f"The model {head.model!r} is not served.", code="model_not_found", field="model"
        )
    # A caller who acts only for themselves does not jump the queue by naming a task.
    trusted = who.kind in (Kind.SERVICE, Kind.ADMIN) or not settings.auth
    return Call(
        who=who,
        user=user,
        pool=pool,
        model=head.model,
        body=body,
        streams=head.stream is True,
        message=_name(request, MESSAGE_HEADER),
        ticket=_name(request, TICKET_HEADER),
        task=_name(request, TASK_HEADER) if trusted else "",
        wait_s=_wait(request),
        on_page=_on_page(request),
    )


def _name(request: web.Request, header: str) -> str:
    name = request.headers.get(header, "")
    if not re.fullmatch(r"[\x21-\x7e]{0,128}", name):
        raise _BadRequest(f"{header}: at most 128 characters without spaces", field=header)
    return name


def _wait(request: web.Request) -> int:
    settings = request.app[SETTINGS]
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


async def _read(request: web.Request, most: int) -> bytes:
    """The body as it came; its own limit, as prompts are larger than any other body."""
    parts, size = [], 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > most:
            raise _TooLarge(f"The body is larger than {most} bytes.", field="body")
        parts.append(part)
    return b"".join(parts)


def _head(body: bytes) -> _Head:
    try:
        head = _HEAD.decode(body)
    except msgspec.ValidationError as error:
        raise _BadRequest("model: a model's name is needed", field="model") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _BadRequest("body: not JSON", field="body") from error
    if not head.model or len(head.model) > MODEL_CHARACTERS_MAX:
        raise _BadRequest(f"model: 1 to {MODEL_CHARACTERS_MAX} characters", field="model")
    return head
