"""Loads the Lua: one file per transition, each with the shared library in front of it.

Knows the files and their headers; not what the replies mean (``redis_store``).

The header of a script is its contract and is executed: ``ARGV`` names what a call must pass and in
which order, ``RETURNS`` the tags it may answer. A wrong call fails at once, by name.
"""

import json
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from admission.store.names import POOL_KEYS

LIBRARY = (
    "clock",
    "ticket",
    "pool",
    "publish",
    "estimate",
    "view",
    "transitions",
    "settle",
)
"""The files of ``lua/lib`` in the order in which they build on each other."""

_HEADER = re.compile(r"\A--\[\[\n(?P<name>\w+) - (?P<guarantee>.+?)\]\]\n", re.DOTALL)


@dataclass(frozen=True)
class Contract:
    """What a script's header promises."""

    name: str
    arguments: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Transition:
    """One arrow a script moved a ticket along; ``source`` is None for a new ticket."""

    ticket_id: str
    user_id: str
    source: str | None
    target: str
    reason: str | None


@dataclass(frozen=True)
class Reply:
    """A script's answer: a tag of its contract, the payload, and what it moved."""

    tag: str
    payload: Any
    transitions: tuple[Transition, ...]


def script_names() -> list[str]:
    """The names of all scripts, sorted."""
    folder = files("admission.store") / "lua"
    return sorted(p.name.removesuffix(".lua") for p in folder.iterdir() if p.name.endswith(".lua"))


def read_contract(text: str) -> Contract:
    """Parse a script's header.

    Raises:
        ValueError: the header is missing or has no ARGV or RETURNS section.
    """
    header = _HEADER.match(text)
    if not header:
        raise ValueError("a script begins with --[[, its name and what it guarantees")
    sections = re.split(r"^(ARGV|RETURNS)\n", header["guarantee"], flags=re.MULTILINE)
    if sections[1::2] != ["ARGV", "RETURNS"]:
        raise ValueError(f"{header['name']}: needs the sections ARGV and RETURNS")
    names = [tuple(re.findall(r"^  (\w+)  ", part, re.MULTILINE)) for part in sections[2::2]]
    return Contract(header["name"], names[0], names[1])


def source(name: str) -> str:
    """The Lua text sent to Redis for one script: keys by name, the library, the script."""
    folder = files("admission.store") / "lua"
    keys = ", ".join(f"{key.name} = KEYS[{i}]" for i, key in enumerate(POOL_KEYS, 1))
    library = [(folder / "lib" / f"{part}.lua").read_text() for part in LIBRARY]
    script = (folder / f"{name}.lua").read_text()
    return "\n".join([f"local K = {{ {keys} }}", *library, script])


def contract(name: str) -> Contract:
    """The contract of one script."""
    folder = files("admission.store") / "lua"
    return read_contract((folder / f"{name}.lua").read_text())


def arguments(contract: Contract, given: dict[str, str | int]) -> list[str | int]:
    """Put named arguments in the order of the header.

    Raises:
        TypeError: a name is missing or unknown.
    """
    if set(given) != set(contract.arguments):
        raise TypeError(f"{contract.name} takes {contract.arguments}, got {tuple(given)}")
    return [given[name] for name in contract.arguments]


def parse(contract: Contract, raw: list[bytes]) -> Reply:
    """Turn a script's raw answer into a Reply."""
    tag, payload, moved = raw[0].decode(), json.loads(raw[1]), json.loads(raw[2])
    assert tag in contract.tags, f"{contract.name} answered {tag!r}, not one of {contract.tags}"
    return Reply(tag, payload, tuple(_transition(move) for move in moved))


def _transition(move: dict[str, str]) -> Transition:
    return Transition(
        move["ticket_id"], move["user_id"], move.get("from"), move["to"], move.get("reason")
    )
