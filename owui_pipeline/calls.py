"""Asks the admission service about one user, over HTTP.

Knows admission's replies; nothing of Open WebUI, and no words: what went wrong is a class or a key.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated, Any, Literal
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, Field

log = logging.getLogger("vestibule")  # Open WebUI gives this module a random name

CALL_TIMEOUT_S = 5.0
SNAPSHOT_WITHIN_S = 5.0  # a stream silent for longer at its start is held back by a proxy
SILENCE_S = 40.0  # admission pings its streams every 15 s
LOOK_S = 2.0  # a silent stream lets go this often, so that its reader can look around
AGAIN_S = (1.0, 3.0)  # chosen between, so that all who wait do not ask in the same instant
COMING_BACK = "coming-back"  # the chat, as far as admission knows, of who need not watch
ENDLESS = aiohttp.ClientTimeout(total=None)


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Ticket(BaseModel):
    """The part of admission's ticket view that matters here; times in seconds."""

    ticket_id: str = ""  # the reply to leave has none
    pool: str
    status: Literal["waiting", "draft", "active", "disconnected"]
    position: Annotated[int, Field(ge=1)] | None = None
    estimated_wait: Seconds | None = None
    estimated_wait_high: Seconds | None = None
    expires_in: Seconds | None = None
    session_duration: Seconds | None = None
    may_be_passed: bool = False  # by somebody who joins now with priority
    finishing: bool = False  # of a heartbeat: the answer it names may outlive its session
    reason: str | None = None
    because: str | None = None  # in a stream: why the place is worse than before


class NoTicket(Exception):
    """A call brought no ticket; one subclass for each way to go on."""


class Away(NoTicket):
    """Admission did not answer, or not with anything it should say."""


class NotServed(NoTicket):
    """This model's turns are not the plugin's business."""


class Unknown(NoTicket):
    """The user has no ticket, or it is over, or not in the state the call needs."""

    def __init__(self, code: str, ended: Ticket | None = None, finishing: bool = False) -> None:
        """``ended``: how it ended; ``finishing``: its last answer may still run on."""
        super().__init__(code)
        self.ended, self.finishing = ended, finishing


class NoSuchClass(NoTicket):
    """The pool does not know the priority that was asked for."""


class Refused(NoTicket):
    """The chat ends here; ``key`` and ``retry_after_s`` say why (``Words.say``)."""

    def __init__(self, key: str, retry_after_s: float | None = None) -> None:
        super().__init__(key)
        self.key, self.retry_after_s = key, retry_after_s


class Admission:
    """What may be asked about one user."""

    def __init__(self, url: str, key: str, user_id: str) -> None:
        """``url``: where Vestibule listens; ``key``: its service key."""
        self.pool = ""  # "": the default one, until a join found the pool of its model
        self._path = f"{url.rstrip('/')}/queue/{{}}/{quote(user_id, safe='')}"
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S),
            trust_env=True,  # proxy variables count, as for Open WebUI's own connections
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def ask(self, verb: str, **body: str | bool) -> Ticket:
        """One call ("join", "confirm", "leave", "heartbeat", "status"); raises a `NoTicket`."""
        method, url = "GET" if verb == "status" else "POST", self._path.format(verb)
        try:
            async with self._http.request(method, url, json=body, params=self._where()) as reply:
                answer = json.loads(await reply.read())
            if reply.status == 200:
                ticket = Ticket.model_validate(answer)
                self.pool = ticket.pool
                return ticket
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Away(f"{verb}: {type(error).__name__}") from error
        problem = answer if isinstance(answer, dict) else {}
        raise _meaning(reply.status, problem, reply.headers.get("Retry-After", ""))

    async def events(self) -> AsyncGenerator[Ticket | None, None]:
        """The ticket at once and at each change, until the stream ends for whatever reason; None
        when there was nothing for LOOK_S. Whoever reads it is present."""
        with suppress(aiohttp.ClientError, TimeoutError, ValueError):
            async with asyncio.timeout(SNAPSHOT_WITHIN_S):
                url = self._path.format("events")
                reply = await self._http.get(url, params=self._where(), timeout=ENDLESS)
            async with reply:
                reply.raise_for_status()
                async for ticket in _tickets(reply.content):
                    yield ticket

    def _where(self) -> dict[str, str]:
        return {"pool": self.pool} if self.pool else {}


async def _tickets(stream: aiohttp.StreamReader) -> AsyncGenerator[Ticket | None, None]:
    loop = asyncio.get_running_loop()
    patience_s, heard_s, event = SNAPSHOT_WITHIN_S, loop.time(), b""
    reading: asyncio.Task[bytes] | None = None
    try:
        while loop.time() - heard_s < patience_s:
            reading = reading or asyncio.ensure_future(stream.readline())
            if not (await asyncio.wait({reading}, timeout=min(LOOK_S, patience_s)))[0]:
                yield None
                continue
            line, reading, heard_s = reading.result(), None, loop.time()
            if not line:
                return
            field, _, value = line.partition(b":")
            if field == b"event":
                event = value.strip()
            elif field == b"data" and event == b"ticket":
                patience_s = SILENCE_S
                yield Ticket.model_validate_json(value)
    finally:
        if reading is not None:
            reading.cancel()
            with suppress(asyncio.CancelledError, aiohttp.ClientError):
                await reading


def _meaning(status: int, problem: dict[str, Any], retry_after: str) -> NoTicket:
    """What an answer other than 200 means; ``code`` is the problem's own word for it."""
    code = str(problem.get("code", ""))
    if code in ("model_not_served", "request_pool"):
        return NotServed(code)
    if code in ("queue_full", "pool_paused"):
        wait_s = float(retry_after) if retry_after.isdigit() else None
        return Refused(code, wait_s)
    if status == 422 and problem.get("field") == "priority":
        return NoSuchClass(code)
    if status in (404, 409):
        return Unknown(code, _ended(problem), bool(problem.get("finishing")))
    if status in (408, 429) or status >= 500:
        return Away(f"status {status} {code}")
    log.error("admission_refuses status=%d code=%s hint='is service_key right?'", status, code)
    return Refused("key")


def _ended(problem: dict[str, Any]) -> Ticket | None:
    try:
        return Ticket.model_validate(problem["ticket"])
    except (KeyError, ValueError):
        return None
