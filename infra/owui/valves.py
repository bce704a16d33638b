"""The Function's valves: what is kept, what is set, and what fits the version to be installed.

Knows a pydantic class and dicts; not how Open WebUI is called.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from infra.errors import CommandError
from infra.owui.change import Facts, Secret
from infra.owui.target import Target

SECRET_WORDS = ("key", "secret", "token", "password")

Json = dict[str, Any]


def merged(current: Json, target: Target) -> Json:
    """The valves to write: what an administrator set stays, but for what was named now.

    The key of a gateway that was named is the Function's only where its admission is there too:
    the gateway may be another Vestibule's.
    """
    keys = {gateway.url: gateway.key for gateway in target.gateways}
    url = target.admission or current.get("admission_url") or next(iter(keys), target.here)
    elsewhere = bool(keys) and target.admission is None and url not in keys
    kept = current.get("service_key") if elsewhere else None
    return current | {"admission_url": url, "service_key": kept or keys.get(url, target.key)}


def unfit(kind: type[BaseModel], stored: Json) -> dict[str, str]:
    """What this version cannot take over, each with the reason: names that it does not know, and
    values that it does not allow.

    Raises:
        CommandError: each is allowed by itself, but not all of them together.
    """
    gone = {name: "unknown to this version" for name in stored if name not in kind.model_fields}
    while True:
        try:
            kind(**{k: v for k, v in stored.items() if k not in gone and v is not None})
        except ValidationError as error:
            found = {str(e["loc"][0]): e["msg"] for e in error.errors() if e["loc"]}
            new = {k: v for k, v in found.items() if k in stored and k not in gone}
            if not new:
                raise CommandError(
                    "the valves that stand there do not go together in this version"
                    f" ({error.errors()[0]['msg']}): change them in Open WebUI first"
                ) from error
            gone |= new
        else:
            return gone


def facts(kind: type[BaseModel], valves: Mapping[str, object]) -> Facts:
    """As a person reads them; what Open WebUI shows as a password is a secret."""
    return {k: Secret(v or "") if _secret(kind, k) else v for k, v in valves.items()}


def changed(kind: type[BaseModel], stored: Json) -> Json:
    """Those that are not at their default."""
    fields = kind.model_fields.items()
    defaults = {name: one.get_default(call_default_factory=True) for name, one in fields}
    return {k: v for k, v in stored.items() if v is not None and v != defaults.get(k)}


def _secret(kind: type[BaseModel], name: str) -> bool:
    field = kind.model_fields.get(name)
    if field is None:  # of another version
        return any(word in name.lower() for word in SECRET_WORDS)
    extra = field.json_schema_extra
    shown: Any = extra.get("input") if isinstance(extra, dict) else None
    return isinstance(shown, dict) and shown.get("type") == "password"
