"""The forms a setting's text may have, each read and checked: switches, addresses, networks, rates.

A form raises ValueError for a text it cannot read. Knows texts; not the settings that have them.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from admission.domain import PRIORITY_NAME, Priority


@dataclass(frozen=True)
class Upstream:
    """A model server somebody else manages, ``URL[;slots=N]``; the URL without ``/v1``."""

    url: str
    slots: int


def _switch(text: object) -> object:
    words = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
    if isinstance(text, str) and text.lower() not in words:
        raise ValueError("is not on or off")
    return words[text.lower()] if isinstance(text, str) else text


def _listed(text: object) -> object:
    if not isinstance(text, str):
        return text
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _upstream(text: str) -> Upstream:
    url, *options = text.split(";")
    if "@" in url:
        raise ValueError("an address with a password in it would be shown in logs and replies")
    if not re.fullmatch(r"https?://[^/\s?#]+(/[^\s?#]*)?", url):
        raise ValueError(f"{url!r} is not an http:// or https:// address")
    _ = urlsplit(url).port  # a wrong port or IPv6 address is a ValueError
    slots = 1
    for option in options:
        name, _, value = option.partition("=")
        if name != "slots" or not value.isdigit() or int(value) < 1:
            raise ValueError(f"{option!r} is not slots=N with N of at least 1")
        slots = int(value)
    return Upstream(url.rstrip("/").removesuffix("/v1"), slots)


def _upstreams(text: object) -> object:
    parts = _listed(text)
    if not isinstance(parts, tuple):
        return text
    return tuple(_upstream(part) if isinstance(part, str) else part for part in parts)


def _priorities(text: object) -> object:
    parts = _listed(text)
    if not isinstance(parts, tuple):
        return text
    classes = [_priority(part) for part in parts]
    if len({name for name, _ in classes}) < len(classes):
        raise ValueError("names a class twice")
    return dict(classes)


def _priority(text: str) -> tuple[str, Priority]:
    name, _, rest = text.partition("=")
    seconds, _, weight = rest.partition(";weight=")
    if not PRIORITY_NAME.fullmatch(name) or not re.fullmatch(r"-?\d{1,5}", seconds):
        raise ValueError(f"{text!r} is not NAME=SECONDS[;weight=N]")
    if not re.fullmatch(r"(\d{1,3}(\.\d+)?)?", weight) or not 0.01 <= float(weight or 1) <= 100:
        raise ValueError(f"{text!r}: weight is a number from 0.01 to 100")
    if abs(int(seconds)) > 86_400:
        raise ValueError(f"{text!r}: a head start is at most 86400 seconds")
    return name, Priority(int(seconds) * 1000, float(weight or 1))


def _redis_url(text: object) -> object:
    if isinstance(text, str) and text:
        if not re.match(r"(redis|rediss|unix)://.", text):
            raise ValueError("is not a redis://, rediss:// or unix:// address")
        for host in redis_hosts(text):
            _ = urlsplit(f"redis://{host}").port  # a wrong port is a ValueError
    return text


def redis_hosts(url: str) -> list[str]:
    """The hosts a Redis URL names, with their ports; several with commas between them."""
    return urlsplit(url).netloc.rpartition("@")[2].split(",")


def _database_url(text: object) -> object:
    if isinstance(text, str) and not re.match(r"(sqlite:///.|postgres(ql)?://.)", text):
        raise ValueError("is not sqlite:///PATH or postgresql://…")
    return text


def _networks(text: object) -> object:
    parts = _listed(text)
    if not isinstance(parts, tuple):
        return text
    return tuple(ip_network(part) if isinstance(part, str) else part for part in parts)


def _origins(text: object) -> object:
    parts = _listed(text)
    for part in parts if isinstance(parts, tuple) else ():
        if not re.fullmatch(r"https?://[^/\s?#@]+", part):
            raise ValueError(f"{part!r} is not an origin like https://chat.example.org")
    return parts


def _rate(text: object) -> object:
    if not isinstance(text, str) or re.fullmatch("[1-9][0-9]{0,4}/(second|minute|hour)", text):
        return text
    raise ValueError("is not a number of calls per second, minute or hour, like 60/minute")


def _pem(secret: SecretStr) -> SecretStr:
    from admission.signing import keys_of_pem  # commands that sign nothing lack cryptography

    keys_of_pem(secret.get_secret_value())
    return secret


Upstreams = Annotated[tuple[Upstream, ...], BeforeValidator(_upstreams)]
Priorities = Annotated[dict[str, Priority], BeforeValidator(_priorities)]
RedisUrl = Annotated[str | None, BeforeValidator(_redis_url)]
DatabaseUrl = Annotated[str | None, BeforeValidator(_database_url)]
Pem = Annotated[SecretStr, AfterValidator(_pem)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_origins)]
Rate = Annotated[str | None, BeforeValidator(_rate)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks)]
Seconds = Annotated[int, Field(ge=1, le=31_536_000)]
