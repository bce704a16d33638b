"""Which headers pass the gateway, in either direction: all but those that are its own business."""

from collections.abc import Callable
from functools import lru_cache

from aiohttp import hdrs, web
from multidict import CIMultiDict, MultiMapping

from admission.domain import Worker
from admission.keys import REQUEST_ID

NAMES_MAX, NAME_CHARACTERS = 1024, 64  # so many are remembered, by their beginnings
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
    headers = _only(request.headers, _goes_to_worker)
    headers["X-Request-Id"] = request[REQUEST_ID]
    if worker.upstream_key:
        headers[hdrs.AUTHORIZATION] = f"Bearer {worker.upstream_key}"
    return headers


def to_caller(headers: MultiMapping[str]) -> CIMultiDict[str]:
    """The worker's headers."""
    return _only(headers, _goes_to_caller)


def _only(headers: MultiMapping[str], goes: Callable[[str], bool]) -> CIMultiDict[str]:
    """Those that go on; not those that the sender says are for the next hop only."""
    passed = CIMultiDict([pair for pair in headers.items() if goes(pair[0][:NAME_CHARACTERS])])
    for connection in headers.getall(hdrs.CONNECTION, ()):
        for name in connection.split(","):
            passed.popall(name.strip(), None)
    return passed


@lru_cache(maxsize=NAMES_MAX)
def _goes_to_worker(name: str) -> bool:
    low = name.lower()
    return low not in _NOT_TO_WORKER and not low.startswith(_IDENTITY)


@lru_cache(maxsize=NAMES_MAX)
def _goes_to_caller(name: str) -> bool:
    low = name.lower()
    return low not in _HOP_BY_HOP and not low.startswith(_ORIGINS)
