"""Calls of a frontend to the service: asked until there is an answer, and what the answers are.

Every call may be repeated, so one whose answer was lost is asked again: a join finds the place it
took by its user, in a request pool by its ``request_id`` too. What cannot be had is an error of
``admission.errors``, with the code, the field and the Retry-After of the service's answer.
"""

import asyncio
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, TypedDict, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp import hdrs
from yarl import URL

from admission.domain import Status
from admission.errors import (
    AdmissionError,
    BadInput,
    Busy,
    Conflict,
    Forbidden,
    NotFound,
    Unauthorized,
    Unavailable,
)

CALL_S = 5.0  # for one try; longer than the service gives its Redis
AGAIN_S, AGAIN_MAX_S = 0.2, 8.0  # pauses between tries: from, doubling, to
JITTER = (0.5, 1.0)  # of a pause, so that all who lost one service do not come back together
LATER = (1.0, 1.3)  # of a Retry-After, for the same reason; never before it
PASSING = frozenset({408, 429, 500, 502, 503, 504})  # may be another in a moment, except for
LASTING = frozenset({"queue_full", "pool_paused", "certificate"})

_ERRORS: dict[int, type[AdmissionError]] = {
    each.status: each
    for each in (BadInput, Unauthorized, Forbidden, NotFound, Conflict, Busy, Unavailable)
}
_PROBLEM = frozenset({"type", "title", "status", "detail", "code", "field"})  # the rest is extra


class Away(Unavailable):
    """Nobody answered, or the connection was lost before the answer was whole."""

    code = "away"


class Wish(TypedDict, total=False):
    """What a join may ask for; the fields of ``POST /queue/join`` (DESIGN section 5)."""

    model: str  # chooses the pool
    priority: str  # a class, from who may name one
    client: str  # a chat or whatever else waits: 1 to 128 characters
    request_id: str  # of a request pool
    auto_confirm: bool  # the slot becomes a session at once, without a draft
    will_return: bool  # nobody watches; the place is kept all the same


@dataclass(frozen=True)
class Ticket:
    """A ticket as the service shows it; seconds, and None for what does not apply.

    Two are equal when nothing changed that a person would want to know.
    """

    ticket_id: str
    user_id: str
    pool: str
    status: Status
    session_duration: int
    joined_at: datetime
    position: int | None = None  # 1-based
    queue_length: int = field(default=0, compare=False)
    estimated_wait: int | None = None  # None when it cannot be known
    estimated_wait_high: int | None = None
    expires_in: int | None = field(default=None, compare=False)  # of the draft or the session
    expires_at: datetime | None = None
    reason: str | None = None  # why it ended
    priority: str = "default"
    may_be_passed: bool = False  # by somebody who joins now with priority
    because: str | None = field(default=None, compare=False)  # of events: why its place is worse
    finishing: bool = field(default=False, compare=False)  # of heartbeats: the answer may run on
    token: str | None = field(default=None, compare=False, repr=False)  # acts for its user, 1 hour
    again_in: int | None = field(default=None, compare=False)  # when to ask again, told to polls

    def __str__(self) -> str:
        if self.status is not Status.WAITING:
            return f"{self.status}" + (f" ({self.reason})" if self.reason else "")
        wait_s = self.estimated_wait
        estimate = "" if wait_s is None else f", about {wait_s} s"
        return f"number {self.position} in line{estimate}"


@dataclass(frozen=True)
class Left:
    """What a leave found, and what it left behind."""

    user_id: str
    pool: str
    previous_status: Status
    status: Status


class Answer(NamedTuple):
    """A whole answer of 200."""

    raw: bytes
    headers: Mapping[str, str]


class Calls:
    """Asks one service with one key."""

    def __init__(
        self, url: str, key: str, patience_s: float, http: aiohttp.ClientSession | None
    ) -> None:
        """As of ``client.Client``."""
        if not _is_address(url):
            shown = re.sub("//.*@", "//…@", url)  # a password is nobody's to read
            raise ValueError(f"url: {shown!r} is not http://HOST or https://HOST")
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise ValueError("key: not a key; keys are printable ASCII without spaces")
        self._url, self._key, self._patience_s = url.rstrip("/"), key, patience_s
        self._given, self._http = http is not None, http

    async def aclose(self) -> None:
        """Close the connections that were opened here."""
        if self._http is not None and not self._given:
            await self._http.close()

    async def ask(self, verb: str, user: str, pool: str, key: str = "", **facts: Any) -> Ticket:
        """The ticket, by "join", "confirm", "heartbeat" or "status"; empty facts are not sent.

        ``key``: another than the usual, if any.
        """
        return self._ticket(await self._patiently(verb, user, pool, facts, key))

    async def look(self, user: str, pool: str, key: str = "", **facts: Any) -> Ticket:
        """The ticket by a heartbeat, also one that is over."""
        try:
            return await self.ask("heartbeat", user, pool, key, **facts)
        except NotFound as error:
            over = ended(error)
            if over is None:
                raise
            return over

    async def ask_once(self, verb: str, user: str, pool: str, key: str, **facts: Any) -> Ticket:
        """The same without repeating it."""
        return self._ticket(await self._once(verb, user, pool, facts, key))

    async def leave(self, user: str, pool: str, **facts: Any) -> Left:
        """End a turn, or with ``client`` detach that chat from it."""
        return _read((await self._patiently("leave", user, pool, facts, "")).raw, Left)

    async def open(self, user: str, pool: str, ticket_id: str) -> aiohttp.ClientResponse:
        """The beginning of an answer of ``/queue/events``, whatever its status; to be closed."""
        where = {"pool": pool, **({"ticket_id": ticket_id} if ticket_id else {})}
        return await self._session().get(
            self._address("events", user).with_query(where),
            headers={**self._headers(), hdrs.ACCEPT: "text/event-stream"},
            timeout=aiohttp.ClientTimeout(total=None),
            allow_redirects=False,
        )

    async def _patiently(
        self, verb: str, user: str, pool: str, facts: dict[str, Any], key: str
    ) -> Answer:
        give_up_s, pause_s = _now_s() + self._patience_s, AGAIN_S
        while True:
            try:
                return await self._once(verb, user, pool, facts, key)
            except AdmissionError as error:
                again_s = _again_s(error, pause_s)
                if again_s is None or _now_s() + again_s > give_up_s:
                    raise
            await asyncio.sleep(again_s)
            pause_s = min(2 * pause_s, AGAIN_MAX_S)

    async def _once(
        self, verb: str, user: str, pool: str, facts: dict[str, Any], key: str
    ) -> Answer:
        given = {name: value for name, value in facts.items() if value not in ("", None)}
        reads = verb == "status"
        try:
            async with self._session().request(
                "GET" if reads else "POST",
                self._address(verb, user).with_query({"pool": pool, **(given if reads else {})}),
                json=None if reads else given,
                headers=self._headers(key),
                timeout=aiohttp.ClientTimeout(total=CALL_S),
                allow_redirects=False,
            ) as answer:
                raw = await answer.read()
        except aiohttp.ClientSSLError as error:
            raise Away(f"{verb}: {error}", code="certificate") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Away(f"{verb}: no answer ({type(error).__name__})") from error
        if answer.status != 200:
            raise _error(answer.status, answer.headers, raw)
        return Answer(raw, answer.headers)

    def _ticket(self, answer: Answer) -> Ticket:
        ticket = _read(answer.raw, Ticket)
        if ticket.token and _is_token(self._key):
            self._key = ticket.token  # a newer one: that before ends within the hour
        return replace(ticket, again_in=_seconds(answer.headers))

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            # Each turn has a stream open, so the usual limit of 100 connections would lock all up.
            connector = aiohttp.TCPConnector(limit=0)
            jar = aiohttp.DummyCookieJar()
            self._http = aiohttp.ClientSession(connector=connector, cookie_jar=jar)
        return self._http

    def _address(self, verb: str, user: str) -> URL:
        return URL(f"{self._url}/queue/{verb}/{quote(user, safe='')}", encoded=True)

    def _headers(self, key: str = "") -> dict[str, str]:
        key = key or self._key
        return {hdrs.AUTHORIZATION: f"Bearer {key}"} if key else {}


def ended(error: AdmissionError) -> Ticket | None:
    """The ticket that is over, when this is what the error says."""
    return msgspec.convert(error.extra["ticket"], Ticket) if error.code == "ticket_ended" else None


Reply = TypeVar("Reply")


def _read(raw: bytes, reply: type[Reply]) -> Reply:
    try:
        return msgspec.json.decode(raw, type=reply)
    except msgspec.DecodeError as error:
        raise AdmissionError(
            f"not an answer of Vestibule: {error}", code="not_vestibule"
        ) from error


def _error(status: int, headers: Mapping[str, str], raw: bytes) -> AdmissionError:
    """What an answer other than 200 says; one without a problem is of somebody on the way."""
    try:
        problem = msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.DecodeError:
        problem = {}
    is_ours = _is_ours(problem)
    kind = _ERRORS.get(status, AdmissionError) if is_ours else AdmissionError
    named = problem.get("field")
    error = kind(
        str(problem.get("detail", f"status {status}, and no word of Vestibule")),
        code=problem["code"] if is_ours else "not_vestibule",
        field=None if named is None else str(named),
        retry_after_s=_seconds(headers),
        extra={name: value for name, value in problem.items() if name not in _PROBLEM},
    )
    error.status = status
    return error


def _is_ours(problem: Mapping[str, Any]) -> bool:
    """Whether it has a code, and the ticket that its code tells of (``ended``)."""
    try:
        code = msgspec.convert(problem.get("code"), str)
        if code == "ticket_ended":
            msgspec.convert(problem.get("ticket"), Ticket)
    except msgspec.ValidationError:
        return False
    return True


def _seconds(headers: Mapping[str, str]) -> int | None:
    """Its Retry-After; None for a date, too, which Vestibule never says."""
    given = headers.get(hdrs.RETRY_AFTER, "")
    return int(given) if re.fullmatch("[0-9]{1,9}", given) else None


def _again_s(error: AdmissionError, pause_s: float) -> float | None:
    """The pause before the next try, None when there is no sense in one."""
    if error.status not in PASSING or error.code in LASTING:
        return None
    if error.retry_after_s is not None:
        return error.retry_after_s * random.uniform(*LATER)
    return pause_s * random.uniform(*JITTER)


def _is_address(url: str) -> bool:
    """Of a service, perhaps below a path. Who calls is told by the key, so it names nobody."""
    try:
        address = URL(url)
    except ValueError:
        return False
    is_http = address.scheme in ("http", "https") and bool(address.host)
    return is_http and not (address.user or address.query_string or address.fragment)


def _is_token(key: str) -> bool:
    """Whether this is a user token, which is a JWT (docs/keys.md)."""
    return key.startswith("eyJ") and key.count(".") == 2


def _now_s() -> float:
    return asyncio.get_running_loop().time()
