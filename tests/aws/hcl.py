"""Terraform's files as a test reads them: blocks by their address, and the names in expressions."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import hcl2

from infra.aws.deployment import SOURCE

Blocks = dict[str, Any]
PLAIN = hcl2.SerializationOptions(
    strip_string_quotes=True, with_comments=False, explicit_blocks=False
)
NAME = re.compile(r"\b((?:data\.|ephemeral\.)?aws_\w+\.\w+|var\.\w+|local\.\w+)")


def files() -> list[Path]:
    return sorted(SOURCE.glob("*.tf"))


@cache
def blocks() -> Blocks:
    """Every resource, data source, variable, local and output: its address -> what stands in it."""
    found: Blocks = {}
    for path in files():
        for kind, ones in hcl2.loads(path.read_text(), serialization_options=PLAIN).items():
            for one in ones:
                found |= _addressed(kind, one)
    return found


def _addressed(kind: str, one: dict[str, Any]) -> Blocks:
    if kind == "locals":
        return {f"local.{name}": value for name, value in one.items()}
    if kind in ("variable", "output"):
        prefix = "var" if kind == "variable" else "output"
        return {f"{prefix}.{name}": body for name, body in one.items()}
    if kind in ("resource", "data", "ephemeral"):
        prefix = "" if kind == "resource" else f"{kind}."
        return {
            f"{prefix}{type_}.{name}": body
            for type_, named in one.items()
            for name, body in named.items()
        }
    return {}


def of(prefix: str) -> Blocks:
    """The blocks whose address begins so."""
    return {name: body for name, body in blocks().items() if name.startswith(prefix)}


@cache
def code(path: Path) -> str:
    """A file without its comments and descriptions."""
    text = re.sub(r"(^|\s)#.*", "", path.read_text())
    return re.sub(r'^ *(description|error_message) += ".*"$', "", text, flags=re.MULTILINE)


def named() -> set[str]:
    """Every address that an expression names."""
    used = set()
    for path in files():
        # In its own block's line an address stands as two strings, so all that is found is use.
        used |= set(NAME.findall(code(path)))
    return used


def statements() -> list[dict[str, Any]]:
    """Every statement of every policy, those made for each of several things too."""
    found = []
    for document in of("data.aws_iam_policy_document.").values():
        found += document.get("statement", [])
        for each in document.get("dynamic", []):
            found += each["statement"]["content"]
    return found
