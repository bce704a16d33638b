"""How often somebody may call: per key, per user and per address, each off unless set.

Trusted callers (service and admin keys) are never counted, and nobody is refused because Redis is
away. A refused call costs nothing: it is not counted and touches no queue.
"""

import math
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network

from limits import RateLimitItem, parse

from admission.auth import Caller, Kind
from admission.errors import Busy, StoreUnavailable
from admission.settings import Settings
from admission.store.rate_store import RateStore

Address = IPv4Address | IPv6Address

_TRUSTED = (Kind.SERVICE, Kind.ADMIN)
_IPV6_HOME = 64  # bits that one household or machine has in common (RFC 6177)


class Rates:
    """The limits of the settings over one shared count."""

    def __init__(self, settings: Settings, store: RateStore) -> None:
        self._store = store
        self._key = _limit(settings.rate_key)
        self._user = _limit(settings.rate_user)
        self._address = _limit(settings.rate_address)

    @property
    def on(self) -> bool:
        """Whether there is any limit."""
        return any((self._key, self._user, self._address))

    async def count(self, caller: Caller, address: Address | None) -> None:
        """Count one call.

        Raises:
            Busy: 429, one of the limits is reached; says which and when to try again.
        """
        if caller.kind in _TRUSTED:
            return
        limits = list(self._limits(caller, address))
        try:
            for what, limit, name in limits:  # first ask all, so that a refusal counts nowhere
                until_s = await self._store.full_until(limit, name)
                if until_s is not None:
                    raise _too_many(what, limit, until_s)
            for what, limit, name in limits:
                if not await self._store.count(limit, name):  # another process was faster
                    raise _too_many(what, limit, time.time() + 1)
        except StoreUnavailable:
            pass

    def _limits(
        self, caller: Caller, address: Address | None
    ) -> Iterator[tuple[str, RateLimitItem, str]]:
        if self._key and caller.key:
            yield "key", self._key, f"key:{caller.key}"
        if self._user and caller.user:
            yield "user", self._user, f"user:{caller.user}"
        if self._address and address:
            yield "address", self._address, f"address:{_home(address)}"


def _limit(text: str | None) -> RateLimitItem | None:
    return parse(text) if text else None


def _home(address: Address) -> str:
    if isinstance(address, IPv6Address):
        return str(ip_network((int(address), _IPV6_HOME), strict=False))
    return str(address)


def _too_many(what: str, limit: RateLimitItem, until_s: float) -> Busy:
    return Busy(
        f"More calls of one {what} than allowed ({limit}).",
        code="too_many_calls",
        retry_after_s=max(1, math.ceil(until_s - time.time())),
    )
