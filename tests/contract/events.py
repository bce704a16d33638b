"""What API Gateway and function URLs give a Lambda function, and how they read its answer.

By AWS' developer guides: "Create AWS Lambda proxy integrations for HTTP APIs in API Gateway",
"Lambda proxy integrations in API Gateway" (REST), "Invoking Lambda function URLs". Where those are
silent the shapes follow recorded events: HTTP APIs decode the path, and end it at a decoded "?";
REST APIs and function URLs leave it as it was sent.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

Event = dict[str, Any]
STAGE = "prod"  # of the APIs that have one
_TEXT = ("text/", "application/json", "application/javascript", "application/xml")


@dataclass(frozen=True)
class Asked:
    """A request as it came: ``path`` and ``query`` are percent-encoded."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    host: str
    address: str
    request_id: str

    def joined(self) -> dict[str, str]:
        """Headers in lower case, doubles with commas between them."""
        found: dict[str, str] = {}
        for name, value in self.headers:
            known = found.get(name.lower())
            found[name.lower()] = f"{known},{value}" if known else value
        return found

    def listed(self) -> dict[str, list[str]]:
        """Headers as they were sent, each with all of its values."""
        found: dict[str, list[str]] = {}
        for name, value in self.headers:
            found.setdefault(name, []).append(value)
        return found

    def arguments(self) -> dict[str, list[str]]:
        """The query, decoded, each name with all of its values."""
        found: dict[str, list[str]] = {}
        for name, value in parse_qsl(self.query, keep_blank_values=True, errors="replace"):
            found.setdefault(name, []).append(value)
        return found


def http_api(asked: Asked) -> Event:
    """HTTP API, payload format 2.0, the stage ``$default``, which stands in no path."""
    return _format_2(asked, unquote(asked.path).partition("?")[0], "$default")


def http_api_with_stage(asked: Asked) -> Event:
    """The same with a named stage, which stands before the path."""
    path = unquote(asked.path).partition("?")[0]
    return _format_2(asked, f"/{STAGE}{path}", STAGE)


def function_url(asked: Asked) -> Event:
    """A function URL: format 2.0, the path as it was sent."""
    return _format_2(asked, asked.path, "$default")


def http_api_1(asked: Asked) -> Event:
    """HTTP API, payload format 1.0."""
    path = unquote(asked.path).partition("?")[0]
    return {"version": "1.0", **_format_1(asked, path, "$default"), **_body(asked)}


def rest_api(asked: Asked) -> Event:
    """REST API whose binary media types are ``*/*``: every body comes as base64."""
    whole = base64.b64encode(asked.body).decode() if asked.body else None
    return {
        **_format_1(asked, asked.path, STAGE),
        "body": whole,
        "isBase64Encoded": whole is not None,
    }


def _format_2(asked: Asked, path: str, stage: str) -> Event:
    headers, now = asked.joined(), datetime.now(UTC)
    cookies = headers.pop("cookie", "")
    event: Event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": asked.query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "a1b2c3d4e5",
            "domainName": asked.host,
            "domainPrefix": "a1b2c3d4e5",
            "http": {
                "method": asked.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": asked.address,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": asked.request_id,
            "routeKey": "$default",
            "stage": stage,
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(now.timestamp() * 1000),
        },
    }
    if cookies:
        event["cookies"] = [cookie.strip() for cookie in cookies.split(";")]
    if arguments := asked.arguments():
        event["queryStringParameters"] = {n: ",".join(all_) for n, all_ in arguments.items()}
    body = _body(asked)
    return {
        **event,
        **({} if body["body"] is None else body),
        "isBase64Encoded": body["isBase64Encoded"],
    }


def _format_1(asked: Asked, path: str, stage: str) -> Event:
    headers, arguments, now = asked.listed(), asked.arguments(), datetime.now(UTC)
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": asked.method,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {n: all_[-1] for n, all_ in arguments.items()} or None,
        "multiValueQueryStringParameters": arguments or None,
        "pathParameters": {"proxy": path.lstrip("/")},
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "a1b2c3d4e5",
            "domainName": asked.host,
            "domainPrefix": "a1b2c3d4e5",
            "extendedRequestId": asked.request_id,
            "httpMethod": asked.method,
            "identity": {"sourceIp": asked.address, "userAgent": asked.joined().get("user-agent")},
            "path": path if stage == "$default" else f"/{stage}{path}",
            "protocol": "HTTP/1.1",
            "requestId": asked.request_id,
            "requestTime": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "requestTimeEpoch": int(now.timestamp() * 1000),
            "resourceId": "123456",
            "resourcePath": "/{proxy+}",
            "stage": stage,
        },
    }


def _body(asked: Asked) -> dict[str, Any]:
    """Text as it is, all other bodies as base64."""
    kind = asked.joined().get("content-type", "")
    if not asked.body:
        return {"body": None, "isBase64Encoded": False}
    if kind.lower().startswith(_TEXT):
        return {"body": asked.body.decode(errors="replace"), "isBase64Encoded": False}
    return {"body": base64.b64encode(asked.body).decode(), "isBase64Encoded": True}


Answer = tuple[int, list[tuple[str, str]], bytes]


def read_2(result: Mapping[str, Any]) -> Answer:
    """How format 2.0 reads a function's answer."""
    assert set(result) <= {"statusCode", "headers", "body", "cookies", "isBase64Encoded"}, result
    headers = [(name, value) for name, value in result.get("headers", {}).items()]
    headers += [("Set-Cookie", cookie) for cookie in result.get("cookies", [])]
    return result["statusCode"], headers, _bytes(result)


def read_1(result: Mapping[str, Any]) -> Answer:
    """How format 1.0 reads it: a header that is in both is taken from ``multiValueHeaders``."""
    known = {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}
    assert set(result) <= known, result
    many = result.get("multiValueHeaders") or {}
    one = {n: v for n, v in (result.get("headers") or {}).items() if n not in many}
    headers = [*one.items(), *((name, value) for name, values in many.items() for value in values)]
    return result["statusCode"], headers, _bytes(result)


def read_rest(result: Mapping[str, Any]) -> Answer:
    """REST APIs and function URLs also give some headers another name ("Important notes")."""
    return _remapped(read_1(result))


def read_url(result: Mapping[str, Any]) -> Answer:
    return _remapped(read_2(result))


def _remapped(answer: Answer) -> Answer:
    status, headers, body = answer
    renamed = {"www-authenticate": "x-amzn-Remapped-www-authenticate"}
    return status, [(renamed.get(name.lower(), name), value) for name, value in headers], body


def _bytes(result: Mapping[str, Any]) -> bytes:
    body = result.get("body") or ""
    return base64.b64decode(body) if result.get("isBase64Encoded") else body.encode()


@dataclass(frozen=True)
class Form:
    """One way into a function; ``stage``: in the URL before every path."""

    event: Callable[[Asked], Event]
    read: Callable[[Mapping[str, Any]], Answer]
    stage: str = ""


FORMS: Mapping[str, Form] = {
    "http-api-2.0": Form(http_api, read_2),
    "http-api-2.0-stage": Form(http_api_with_stage, read_2, f"/{STAGE}"),
    "http-api-1.0": Form(http_api_1, read_1),
    "function-url": Form(function_url, read_url),
    "rest-api": Form(rest_api, read_rest, f"/{STAGE}"),
}
