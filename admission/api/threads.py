"""The caller's own conversations: begin, list, read, clear, delete.

They live for 24 hours since their last use; a user has at most 32, of 128 KiB each. What is more
makes room from the old end (``store.thread_store``).
"""

import re
import uuid
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from admission import views, wire
from admission.api import access
from admission.asked import Asked
from admission.auth import Caller, Kind
from admission.conversation import Thread
from admission.errors import BadInput, NotFound
from admission.keys import GATEKEEPER, THREADS
from admission.store.thread_store import THREADS_MAX

MESSAGE_CHARACTERS_MAX = 32_768
THREAD_ID = "[A-Za-z0-9._-]{1,64}"
SYSTEM_CHARACTERS_MAX = 8192
METADATA_PAIRS_MAX = 16

routes = web.RouteTableDef()

MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]


class ThreadBody(wire.Body):
    system: Annotated[str, Field(min_length=1, max_length=SYSTEM_CHARACTERS_MAX)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=METADATA_PAIRS_MAX)] = {}


class ChatBody(wire.Body):
    """A message, and the conversation it belongs to."""

    message: Annotated[str, Field(min_length=1, max_length=MESSAGE_CHARACTERS_MAX)]
    model: wire.Name | None = None  # none: the first one served
    thread: Annotated[str, Field(pattern=f"^{THREAD_ID}$")] | None = None  # none: a new one
    user_id: wire.UserId | None = None


@routes.post("/chat/threads")
async def create(request: Asked) -> web.Response:
    user = _user(request)
    body = await wire.read_body(request, ThreadBody)
    thread = await request.app[THREADS].create(
        user, uuid.uuid4().hex, system=body.system, metadata=body.metadata
    )
    return web.json_response(thread_view(thread), status=201)


@routes.get("/chat/threads")
async def threads(request: Asked) -> web.Response:
    user = _user(request)
    offset = wire.read_number(request, "offset", 0, 1_000_000_000)
    limit = wire.read_number(request, "limit", THREADS_MAX, 1000)
    found = await request.app[THREADS].of(user)
    page = [thread_view(thread) for thread in found[offset : offset + limit]]
    return web.json_response({"threads": page, "total": len(found)})


@routes.get("/chat/threads/{thread}")
async def read(request: Asked) -> web.Response:
    user, thread = _user(request), _thread(request)
    found = await request.app[THREADS].read(user, thread)
    if found is None:
        raise _no_thread()
    messages = [
        {"role": m.role, "content": m.content, "at": views.iso(m.at_ms)} for m in found.messages
    ]
    return web.json_response({**thread_view(found), "messages": messages})


@routes.post("/chat/threads/{thread}/clear")
async def clear(request: Asked) -> web.Response:
    user, thread = _user(request), _thread(request)
    found = await request.app[THREADS].clear(user, thread)
    if found is None:
        raise _no_thread()
    return web.json_response(thread_view(found))


@routes.delete("/chat/threads/{thread}")
async def delete(request: Asked) -> web.Response:
    user, thread = _user(request), _thread(request)
    if not await request.app[THREADS].delete(user, thread):
        raise _no_thread()
    return web.json_response({"thread": thread, "deleted": True})


def user_of(request: Asked, who: Caller, named: str | None) -> str:
    """The user a chat is for: the token's, or with a service key the one who is named.

    Raises:
        BadInput: nobody is named.
        Forbidden: somebody else than the token's user.
    """
    user = named or who.user
    if user is None:
        raise BadInput("user_id: a service key must name the user", field="user_id")
    request.app[GATEKEEPER].may_act_for(who, user)
    return user


def thread_view(thread: Thread) -> dict[str, Any]:
    """A conversation without its messages; instants in ISO 8601."""
    return {
        "thread": thread.thread_id,
        "created_at": views.iso(thread.created_ms),
        "used_at": views.iso(thread.used_ms),
        "expires_at": views.iso(thread.expires_ms),
        "size_bytes": thread.size_bytes,
        "system": thread.system,
        "metadata": thread.metadata,
    }


def _user(request: Asked) -> str:
    """Whose conversations: the token's user, or with a service key the one of ``?user_id=``."""
    who = access.must_be(request, Kind.SERVICE, Kind.USER)
    named = request.query.get("user_id")
    return user_of(request, who, named if named is None else wire.user_id(named))


def _thread(request: Asked) -> str:
    """Raises NotFound also for what cannot be an id: there is none of it."""
    thread = request.match_info["thread"]
    if not re.fullmatch(THREAD_ID, thread):
        raise _no_thread()
    return thread


def _no_thread() -> NotFound:
    return NotFound("thread: there is none of this id", code="thread_unknown", field="thread")
