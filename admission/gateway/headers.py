"""Which headers pass the gateway, in either direction: all but those that are its own business."""

from collections.abc import Mapping

from aiohttp import hdrs, web
from multidict import CIMultiDict

from admission.domain import Worker
from admission.keys import REQUEST_ID

# RFC 9110, section 7.6.1.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Keys and cookies are for us; the body was unpacked while it was read, so its encoding and length
# are no longer the caller's; the request's id is set anew.
_NOT_TO_WORKER = _HOP_BY_HOP | {
    "host",
    "authorization",
    "cookie",
    "content-encoding",
    "content-length",
    "expect",
    "x-request-id",
}
_IDENTITY = ("x-vestibule-", "x-openwebui-")  # who calls, and what only the gateway reads
# vLLM lets every web page read its answers; here the allowed origins are a setting.
_ORIGINS = "access-control-"


def to_worker(request: web.Request, worker: Worker) -> CIMultiDict[str]:
    """The caller's headers, with the request's id and the worker's key."""
    drop = _named(request.headers, _NOT_TO_WORKER)
    headers = CIMultiDict(
        (name, value)
        for name, value in request.headers.items()
        if (low := name.lower()) not in drop and not low.startswith(_IDENTITY)
    )
    headers["X-Request-Id"] = request[REQUEST_ID]
    if worker.upstream_key:
        headers[hdrs.AUTHORIZATION] = f"Bearer {worker.upstream_key}"
    return headers


def to_caller(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The worker's headers."""
    drop = _named(headers, _HOP_BY_HOP)
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if (low := name.lower()) not in drop and not low.startswith(_ORIGINS)
    )


def _named(headers: Mapping[str, str], drop: frozenset[str]) -> frozenset[str]:
    """With what the sender says is for the next hop only."""
    connection = headers.get(hdrs.CONNECTION)
    if connection is None:
        return drop
    return drop.union(part.strip().lower() for part in connection.split(","))
