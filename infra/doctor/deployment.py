"""A deployment as a stranger sees it: a URL, and callers with a key. Plain HTTP, nothing else."""

import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    TCPConnector,
    WSServerHandshakeError,
)
from yarl import URL

from admission.client import Client
from infra.doctor.finishing import finished
from infra.doctor.rule import Broken, Skipped

ANSWER_S = 30.0  # API Gateway itself gives up after 29 or 30 s
SHOWN_MAX = 400  # characters of an answer in a report
_SECRET = re.compile(r'("(?:token|key|upstream_key)": ?")[^"]+')


class Unreachable(Exception):
    """Nobody answers there; says why."""


class Reply:
    """An answer, read to its end; ``call`` is the method and path it answers."""

    def __init__(self, call: str, status: int, headers: Mapping[str, str], text: str) -> None:
        self.call, self.status, self.headers, self.text = call, status, headers, text

    @property
    def kind(self) -> str:
        """The media type, without its parameters."""
        return self.headers.get("Content-Type", "").split(";")[0].strip()

    @property
    def json(self) -> Any:
        """The body as JSON; Broken when it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            raise Broken(self.call, "a body of JSON", self.shown) from None

    @property
    def shown(self) -> str:
        """Status and body as a report may show them: short, and without keys and tokens."""
        text = _SECRET.sub(r"\1…", " ".join(self.text.split()))
        return f"{self.status} {text[:SHOWN_MAX]}{'…' if len(text) > SHOWN_MAX else ''}"

    @property
    def fields(self) -> set[str]:
        """The fields a problem names."""
        problem = self.json
        errors = problem.get("errors", []) if isinstance(problem, dict) else []
        return {str(error.get("field")) for error in errors}

    def good(self, status: int = 200) -> dict[str, Any]:
        """The JSON object of a good answer; Broken when it is another answer."""
        if self.status != status or not isinstance(self.json, dict):
            raise Broken(self.call, f"{status} and a JSON object", self.shown)
        found: dict[str, Any] = self.json
        return found

    def refused(self, status: int, code: str | None = None, field: str | None = None) -> Any:
        """The problem of a refusal (RFC 9457) with this status, code and field; else Broken."""
        wanted = f"{status} problem+json"
        wanted += f", code {code}" if code else ""
        wanted += f", naming the field {field}" if field else ""
        if self.status != status or self.kind != "application/problem+json":
            raise Broken(self.call, wanted, f"{self.kind}: {self.shown}")
        body = self.json
        whole = {"type", "title", "status", "detail", "code"} <= set(body)
        named = field is None or (field in self.fields and field in body["detail"])
        if not whole or body["status"] != status or not named or code not in (None, body["code"]):
            raise Broken(self.call, wanted, self.shown)
        return body


class Caller:
    """Calls with one key, or without any; paths are percent-encoded already."""

    def __init__(self, http: ClientSession, url: str, key: str | None) -> None:
        self._http, self._url, self._key = http, url, key

    def with_key(self, key: str | None) -> "Caller":
        return Caller(self._http, self._url, key)

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One call; ``body`` is sent as JSON, ``data`` as it is. It is never broken off: what it
        makes is there when whoever was told to stop takes it away.

        Raises:
            Broken: no answer.
            Skipped: the deployment's rate limit stands before what is asked.
        """
        reply = await finished(self._ask(method, path, body, data, headers))
        if reply.status == 429 and "too_many_calls" in reply.text:
            raise Skipped("a rate limit of this deployment (VESTIBULE_RATE_…) was reached")
        return reply

    async def _ask(
        self,
        method: str,
        path: str,
        body: Any,
        data: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> Reply:
        async with self.open(method, path, body, data=data, headers=headers) as answer:
            text = await answer.text(errors="replace")
            return Reply(f"{method} {path}", answer.status, answer.headers, text)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[ClientResponse]:
        """The same, the answer not read yet."""
        sent = self._headers()
        if body is not None:
            sent["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        try:
            async with self._http.request(
                method,
                URL(self._url + path, encoded=True),
                data=data,
                headers={**sent, **(headers or {})},
                allow_redirects=False,
            ) as answer:
                yield answer
        except TimeoutError:
            within = f"an answer within {ANSWER_S:.0f} s"
            raise Broken(f"{method} {path}", within, "no answer") from None
        except ClientError as error:
            raise Broken(f"{method} {path}", "an answer", f"no answer: {_why(error)}") from error

    @asynccontextmanager
    async def socket(self, path: str) -> AsyncIterator[ClientWebSocketResponse]:
        """A WebSocket.

        Raises:
            Broken: none was opened. Skipped: nothing is streamed there (501).
        """
        url = URL(self._url + path, encoded=True)
        try:
            async with self._http.ws_connect(url, headers=self._headers()) as socket:
                yield socket
        except WSServerHandshakeError as error:
            if error.status == 501:
                raise Skipped("nothing is streamed here (501): callers poll") from None
            raise Broken(f"GET {path}", "101, a WebSocket", error.status) from None

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}


def _why(error: ClientError) -> str:
    """What is wrong, for people."""
    if not isinstance(error, ClientConnectorError):
        return str(error) or type(error).__name__
    reason, where = error.os_error, f"{error.host}:{error.port}"
    known = isinstance(reason, OSError) and reason.errno is not None and reason.errno > 0
    said = os.strerror(reason.errno or 0) if known else reason.strerror or str(reason)
    return f"cannot connect to {where} ({said})"


class Deployment:
    """What is examined: who may call there, and what it can."""

    def __init__(self, http: ClientSession, url: str, *, admin_key: str, service_key: str) -> None:
        self.url = url
        self._http, self._service_key = http, service_key
        self.nobody = Caller(http, url, None)
        self.admin = self.nobody.with_key(admin_key)
        self.service = self.nobody.with_key(service_key)
        self.origin: str | None = None  # one of its allowed origins, when that is known
        self.checks_users = True  # VESTIBULE_AUTH

    def client(self, http: ClientSession | None = None) -> Client:
        """The client for other frontends, with the service key; it need not be closed.

        ``http``: to call through, else as all of these callers do.
        """
        return Client(self.url, self._service_key, patience_s=ANSWER_S, http=http or self._http)

    async def look(self) -> dict[str, Any]:
        """All pools by name, as the admin key sees them; both keys are good.

        Raises:
            Unreachable: nobody is there, it is no Vestibule, or a key is not good there.
        """
        try:
            alive = await self.nobody("GET", "/healthz")
            if alive.status != 200 or not isinstance(alive.json, dict):
                raise self._is_another(alive)
            ready = await self.nobody("GET", "/readyz")
            pools = await self.admin("GET", "/admin/pools")
            metrics = await self.service("GET", "/queue/metrics")
            admins = await self.service("GET", "/admin/pools")
            self.checks_users = (await self.nobody("GET", "/queue/metrics")).status == 401
        except Broken as broken:
            raise Unreachable(f"{broken.call} at {self.url}: {broken.seen}") from broken
        if ready.status != 200:
            raise Unreachable(f"{self.url} is not ready: {ready.shown}")
        for name, reply in (("admin", pools), ("service", metrics)):
            if reply.status != 200:
                raise Unreachable(f"{self.url} does not accept the {name} key: {reply.shown}")
        try:
            found = {pool["pool"]: pool for pool in pools.json["pools"] if pool["waiting"] >= 0}
        except (LookupError, TypeError, Broken) as error:
            raise self._is_another(pools) from error
        if admins.status != 403:
            raise Unreachable(f"{self.url}: the service key is an admin's; a service key is needed")
        return found

    def _is_another(self, reply: Reply) -> Unreachable:
        where = reply.headers.get("Location")
        gave = f"{reply.status}, to {where}" if where else reply.shown
        return Unreachable(f"{self.url} is no Vestibule: {reply.call} gave {gave}")


@asynccontextmanager
async def deployment(url: str, *, admin_key: str, service_key: str) -> AsyncIterator[Deployment]:
    """The deployment at ``url``. Each call has a connection of its own: behind one address there
    may be many processes, and all must say the same."""
    connector = TCPConnector(force_close=True, limit=64)
    timeout = ClientTimeout(total=ANSWER_S)
    async with ClientSession(connector=connector, timeout=timeout) as http:
        yield Deployment(http, url.rstrip("/"), admin_key=admin_key, service_key=service_key)
