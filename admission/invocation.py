"""What a function is invoked with, as a call (``asked``); and an answer as what it gives back.

Reads the events of API Gateway's HTTP APIs (payload 2.0 and 1.0) and REST APIs (1.0), and of
function URLs (2.0). Knows their shapes; not what the operations do.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import zlib
from collections.abc import Iterator, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeVar
from urllib.parse import quote

from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy, MultiMapping
from yarl import URL

from admission import wire

T = TypeVar("T")
Event = dict[str, Any]

_NO_STAGE = "$default"  # whose name is not in the path
# What may stand in a path as it is (RFC 3986, pchar), and the % of what is encoded already.
_PATH = "/%:@!$&'()*+,;=~-._"
_ENCODINGS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class Invocation:
    """One call. Handlers see it as they see aiohttp's request."""

    def __init__(self, event: Event, app: web.Application) -> None:
        """
        Raises:
            NotAnHttpEvent: none of the shapes above.
        """
        self.app = app
        self.match_info: Mapping[str, str] = {}  # once the router has found the operation
        try:
            read = _read_old if _is_old(event) else _read_new
            self.method, self.remote, pairs, self.rel_url = read(event)
            self._body, self._is_base64 = event.get("body"), bool(event.get("isBase64Encoded"))
            _must_be_text(method=self.method, body=self._body or "")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise NotAnHttpEvent(f"not an event of an HTTP call: {error!r}") from error
        self.headers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict(pairs))
        self.scheme = "https"  # there is no other way in
        self._facts: dict[Any, Any] = {}

    @property
    def path(self) -> str:
        return self.rel_url.path

    @property
    def query(self) -> MultiMapping[str]:
        return self.rel_url.query

    @property
    def host(self) -> str:
        return self.headers.get(hdrs.HOST, "")

    @property
    def cookies(self) -> Mapping[str, str]:
        read: SimpleCookie = SimpleCookie()
        for line in self.headers.getall(hdrs.COOKIE, ()):
            try:
                read.load(line)
            except CookieError:  # no cookie of ours
                continue
        return {name: morsel.value for name, morsel in read.items()}

    @property
    def can_read_body(self) -> bool:
        return bool(self._body)

    async def read(self) -> bytes:
        """The body, unpacked.

        Raises:
            aiohttp.web.HTTPRequestEntityTooLarge: above 64 KiB.
            aiohttp.web.RequestPayloadError: not encoded as the event or its headers say.
        """
        try:
            text = self._body or ""
            raw = base64.b64decode(text, validate=True) if self._is_base64 else text.encode()
        except ValueError as error:  # letters that no UTF-8 has, or base64 has not
            raise web.RequestPayloadError("body") from error
        raw = _unpacked(raw, self.headers.get(hdrs.CONTENT_ENCODING, "identity").lower())
        if len(raw) > wire.BODY_BYTES_MAX:
            raise web.HTTPRequestEntityTooLarge(max_size=wire.BODY_BYTES_MAX, actual_size=len(raw))
        return raw

    def __getitem__(self, key: web.RequestKey[T], /) -> T:
        found: T = self._facts[key]
        return found

    def __setitem__(self, key: web.RequestKey[T], value: T, /) -> None:
        self._facts[key] = value


def _must_be_text(**values: Any) -> None:
    """Raises TypeError for another: who invokes by hand may give a body that is JSON already."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise TypeError(f"{name}: {type(value).__name__}")


def _is_old(event: Event) -> bool:
    return "httpMethod" in event


class NotAnHttpEvent(Exception):
    """The function was invoked with something else than a call."""


Read = tuple[
    str, str | None, list[tuple[str, str]], URL
]  # method, address, headers, path and query


def _read_new(event: Event) -> Read:
    """Payload 2.0: several headers of one name are one, with commas; cookies stand apart."""
    context = event["requestContext"]
    pairs = [(name, str(value)) for name, value in (event.get("headers") or {}).items()]
    pairs += [(hdrs.COOKIE, cookie) for cookie in event.get("cookies") or ()]
    http, path = context["http"], _path(event["rawPath"], context.get("stage"))
    url = URL.build(path=path, query_string=event.get("rawQueryString") or "", encoded=True)
    return http["method"], http.get("sourceIp"), pairs, url


def _read_old(event: Event) -> Read:
    """Payload 1.0: every header and parameter also with all its values; parameters decoded."""
    context = event.get("requestContext") or {}
    pairs = list(_all(event, "headers", "multiValueHeaders"))
    query = list(_all(event, "queryStringParameters", "multiValueQueryStringParameters"))
    path = _path(event["path"], context.get("stage"))
    url = URL.build(path=path, encoded=True).with_query(query)
    return event["httpMethod"], (context.get("identity") or {}).get("sourceIp"), pairs, url


def _all(event: Event, single: str, several: str) -> Iterator[tuple[str, str]]:
    given = event.get(several) or {name: [v] for name, v in (event.get(single) or {}).items()}
    for name, values in given.items():
        for value in values:
            yield name, str(value)


def _path(path: str, stage: str | None) -> str:
    """The path without its stage. REST APIs and function URLs give it as it was sent, HTTP APIs
    decoded: what cannot stand in a path is encoded again, the rest is left."""
    if stage not in (None, "", _NO_STAGE) and f"{path}/".startswith(f"/{stage}/"):
        path = path[len(f"/{stage}") :]
    return quote(path, safe=_PATH) or "/"


def _unpacked(raw: bytes, encoding: str) -> bytes:
    """No more than a byte above what a body may be, however much it would unpack to."""
    if encoding in ("", "identity"):
        return raw
    if encoding not in _ENCODINGS:
        raise web.RequestPayloadError(f"Content-Encoding: {encoding}")
    try:
        unpacker = zlib.decompressobj(wbits=_ENCODINGS[encoding])
        made = unpacker.decompress(raw, wire.BODY_BYTES_MAX + 1)
    except zlib.error as error:
        raise web.RequestPayloadError("body") from error
    if len(made) <= wire.BODY_BYTES_MAX and not unpacker.eof:
        raise web.RequestPayloadError("body")
    return made


def given_back(response: web.Response, event: Event) -> dict[str, Any]:
    """The answer in the shape of the event: a text, unless its bytes are none."""
    raw = response.body if isinstance(response.body, bytes) else b""
    try:
        text, is_base64 = raw.decode(), False
    except UnicodeDecodeError:
        text, is_base64 = base64.b64encode(raw).decode(), True
    made: dict[str, Any] = {"statusCode": response.status, "isBase64Encoded": is_base64}
    made["body"] = text
    if _is_old(event):
        several: dict[str, list[str]] = {}
        for name, value in response.headers.items():
            several.setdefault(name, []).append(value)
        made["multiValueHeaders"] = several
    made["headers"] = {
        name: ", ".join(response.headers.getall(name)) for name in dict.fromkeys(response.headers)
    }
    return made
