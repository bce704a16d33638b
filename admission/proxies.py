"""Where a call comes from: the caller's address, and the origin the browser asked for.

Only the trusted proxies are believed, and of what they say only the ``X-Forwarded-*`` headers:
a proxy that writes those passes a caller's own ``Forwarded`` (RFC 7239) on untouched, so believing
both would believe the caller.
"""

from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network, ip_address
from urllib.parse import urlsplit

from aiohttp import hdrs

from admission.asked import Asked
from admission.keys import SETTINGS
from admission.rates import Address

Network = IPv4Network | IPv6Network

_PORTS = {"http": 80, "https": 443}


def caller_address(request: Asked) -> Address | None:
    """The address of who calls: the rightmost that no trusted proxy has.

    None when there is none: over a unix socket.
    """
    trusted = request.app[SETTINGS].trusted_proxies
    address = _address(request.remote or "")
    if not _lies_in(address, trusted):
        return address
    said = ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ()))
    for text in reversed(said.split(",")):
        before = _address(text.strip())
        if before is None:  # nobody knows what stood before: the last proxy is as far as we see
            break
        address = before
        if not _lies_in(address, trusted):
            break
    return address


def scheme(request: Asked) -> str:
    """``http`` or ``https``, as the caller sees it."""
    said = _said(request, hdrs.X_FORWARDED_PROTO)
    return said if said in _PORTS else request.scheme


def same_origin(request: Asked) -> bool:
    """Whether the browser says that a page of ours makes this call (header ``Origin``)."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None:
        return False
    own = f"{scheme(request)}://{_said(request, hdrs.X_FORWARDED_HOST) or request.host}"
    ours = _parts(own)
    return ours is not None and _parts(origin) == ours


def _said(request: Asked, header: str) -> str | None:
    """What the nearest proxy says, if it is trusted."""
    said = request.headers.getall(header, ())
    if not said or not _lies_in(
        _address(request.remote or ""), request.app[SETTINGS].trusted_proxies
    ):
        return None
    return said[-1].rsplit(",", 1)[-1].strip().lower()


def _parts(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for what is no origin, like ``null``."""
    try:
        url = urlsplit(origin)
        port = url.port or _PORTS[url.scheme]
    except (ValueError, KeyError):
        return None
    return (url.scheme, url.hostname, port) if url.hostname else None


def _address(text: str) -> Address | None:
    """An address, also with a port, in brackets, or IPv4 mapped into IPv6."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _lies_in(address: Address | None, networks: Collection[Network]) -> bool:
    return address is not None and any(address in network for network in networks)
