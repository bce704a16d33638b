"""Asks the admission service about one user, over HTTP.

Knows admission's replies; nothing of Open WebUI, and no words: what went wrong is a class or a key.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated, Any, Literal
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, Field, TypeAdapter

log = logging.getLogger("vestibule")  # Open WebUI gives this module a random name

CALL_TIMEOUT_S = 5.0
ANSWER_BYTES = 65_536  # many times what admission says at once: more is not admission
SNAPSHOT_WITHIN_S = 5.0  # a stream without a ticket for longer is held back by a proxy
SILENCE_S = 40.0  # admission pings its streams every 15 s
LOOK_S = 2.0  # a silent stream lets go this often, so that its reader can look around
AGAIN_S = (1.0, 3.0)  # chosen between, so that all who wait do not ask in the same instant
COMING_BACK = "coming-back"  # the chat, as far as admission knows, of who need not watch
ENDLESS = aiohttp.ClientTimeout(total=None)
PROBLEM = TypeAdapter(dict[str, Any])

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
        self._queue, self._user = f"{url.rstrip('/')}/queue", quote(user_id, safe="")
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
        method, url = "GET" if verb == "status" else "POST", self._url(verb)
        try:
            async with self._http.request(method, url, json=body, params=self._where()) as reply:
                answer = await _whole(reply.content)
            if reply.status == 200:
                ticket = Ticket.model_validate_json(answer)
                self.pool = ticket.pool
                return ticket
            problem = PROBLEM.validate_json(answer)
        # RuntimeError: its connections were closed meanwhile.
        except (aiohttp.ClientError, RuntimeError, TimeoutError, ValueError) as error:
            raise Away(f"{verb}: {type(error).__name__}") from error
        raise _meaning(reply.status, problem, reply.headers.get("Retry-After", ""))

    async def events(self) -> AsyncGenerator[Ticket | None, None]:
        """The ticket at once and at each change, until the stream ends for whatever reason; None
        between them, at least every LOOK_S. Whoever reads it is present."""
        with suppress(aiohttp.ClientError, TimeoutError, ValueError):
            async with asyncio.timeout(SNAPSHOT_WITHIN_S):
                url, where = self._url("events"), self._where()
                reply = await self._http.get(url, params=where, timeout=ENDLESS)
            reply.raise_for_status()
            async with reply, aclosing(_tickets(reply.content)) as told:
                async for ticket in told:
                    yield ticket

    def _url(self, verb: str) -> str:
        return f"{self._queue}/{verb}/{self._user}"

    def _where(self) -> dict[str, str]:
        return {"pool": self.pool} if self.pool else {}


async def _whole(stream: aiohttp.StreamReader) -> bytes:
    whole = b""
    async for chunk in stream.iter_any():
        whole += chunk
        if len(whole) > ANSWER_BYTES:
            raise ValueError("too long")
    return whole


async def _tickets(stream: aiohttp.StreamReader) -> AsyncGenerator[Ticket | None, None]:
    """Raises ValueError: it says something that is no ticket."""
    clock = asyncio.get_running_loop().time
    event, rest, told, heard_s = b"", b"", False, clock()
    while clock() - heard_s < (SILENCE_S if told else SNAPSHOT_WITHIN_S):
        yield None
        chunk = await _heard(stream)
        if chunk is None:
            continue
        *lines, rest = (rest + chunk).split(b"\n")
        if not chunk or len(rest) > ANSWER_BYTES:
            return
        for line in lines:
            field, _, value = line.partition(b":")
            if field == b"event":
                event = value.strip()
            elif field == b"data" and event == b"ticket":
                yield Ticket.model_validate_json(value)
                told = True
        if told:  # else whatever it says is nothing
            heard_s = clock()


async def _heard(stream: aiohttp.StreamReader) -> bytes | None:
    """What came within LOOK_S, b"" at the end; None: nothing yet."""
    try:
        async with asyncio.timeout(LOOK_S):
            return await stream.readany()
    except TimeoutError:
        return None


def _meaning(status: int, problem: dict[str, Any], retry_after: str) -> NoTicket:
    """What an answer other than 200 means; ``code`` is the problem's own word for it."""
    code = str(problem.get("code", ""))
    if code in ("model_not_served", "request_pool"):
        return NotServed(code)
    if code in ("queue_full", "pool_paused"):
        wait_s = float(retry_after) if retry_after.isdecimal() else None
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
