"""What to point Open WebUI at: Vestibule's addresses and keys, and how its users are named.

Knows the command line and the settings of ``up``; not what stands in Open WebUI.
"""

import argparse
from dataclasses import dataclass, field
from typing import TypeVar

from admission.settings import Settings
from infra.addresses import asked_url, callable_url
from infra.errors import CommandError
from infra.state import kept_key

Value = TypeVar("Value")


@dataclass(frozen=True)
class Gateway:
    """One connection that was named; ``url`` without ``/v1``."""

    url: str
    key: str = field(repr=False)
    prefix_id: str | None = None


@dataclass(frozen=True)
class Target:
    """What was named on the command line; where nothing was, what stands in Open WebUI is kept,
    and ``here`` is used where nothing does. ``key`` and ``prefix_id`` are for the gateway that is
    meant when none was named."""

    function_id: str
    admission: str | None
    gateways: tuple[Gateway, ...]
    here: str
    key: str = field(repr=False)
    prefix_id: str | None = None
    jwt: bool = False
    wait_limit: int = 3600  # seconds that the gateway lets a call wait at most

    @classmethod
    def of(cls, args: argparse.Namespace, settings: Settings) -> "Target":
        """From the command line and, where that is silent, from the settings of ``up``.

        Raises:
            CommandError: not an address, no key, or not one key or prefix for each gateway.
        """
        admission = args.admission_url and address(args.admission_url, "--admission-url")
        named = [address(url, "--gateway-url") for url in args.gateway_url or ()]
        urls = tuple(dict.fromkeys(named or ([admission] if admission else [])))
        keys = args.service_key or [service_key(settings)]
        prefixes = args.prefix_id or [None]
        return cls(
            function_id=args.function_id,
            admission=admission,
            gateways=tuple(
                Gateway(url, key, prefix)
                for url, key, prefix in zip(
                    urls,
                    paired(keys, len(urls), "--service-key"),
                    paired(prefixes, len(urls), "--prefix-id"),
                    strict=True,
                )
            ),
            here=callable_url(settings.host, settings.port),
            key=keys[0],
            prefix_id=prefixes[0],
            jwt=settings.owui_jwt_secret is not None if args.jwt is None else args.jwt,
            wait_limit=settings.wait_limit,
        )


def paired(values: list[Value], count: int, option: str) -> list[Value]:
    """One value for each gateway; a single one is for all of them."""
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise CommandError(
            f"{option}: {len(values)} were given for {count} of --gateway-url; give one, or one"
            " for each in the same order"
        )
    return values


def address(url: str, option: str) -> str:
    """The URL without what Open WebUI or people add at its end.

    Raises:
        CommandError: as ``asked_url``.
    """
    return asked_url(option, url).removesuffix("/v1")


def service_key(settings: Settings) -> str:
    """The key of the settings, or the one ``vestibule up`` keeps in its state folder."""
    key = kept_key(settings, "service_key")
    if key is None:
        raise CommandError(
            f"there is no service_key in {settings.state_dir / 'keys.json'}: start `vestibule up`"
            " once, name its folder in VESTIBULE_STATE_DIR, or give --service-key"
        )
    return key
