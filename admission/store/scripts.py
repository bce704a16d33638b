"""Loads the Lua: one file per transition, each with the shared library in front of it.

Knows the files and their headers; not what the replies mean (``redis_store``).

The header of a script is its contract and is executed: ``ARGV`` names what a call must pass and in
which order, ``RETURNS`` the tags it may answer. A wrong call fails at once, by name. ``USES`` names
the parts of the library that a script which only reads can do with: to Redis a script is a function
that makes the whole library anew at each call.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from admission.store.names import POOL_KEYS

LIBRARY = (
    "clock",
    "ticket",
    "pool",
    "order",
    "publish",
    "learn",
    "lives",
    "forecast",
    "curve",
    "coming",
    "estimate",
    "view",
    "told",
    "enqueue",
    "presence",
    "finish",
    "offer",
    "admit",
    "disconnect",
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
    uses: tuple[str, ...] = LIBRARY


@dataclass(frozen=True)
class Script:
    """One script as Redis gets it: its text, and the hash by which a call names it."""

    contract: Contract
    source: str
    sha: bytes

    @classmethod
    def named(cls, name: str) -> "Script":
        text = source(name)
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        return cls(contract(name), text, sha.encode())


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


@cache
def all_scripts() -> Mapping[str, Script]:
    """Every script by its name, read once in a process."""
    return {name: Script.named(name) for name in script_names()}


def read_contract(text: str) -> Contract:
    """Parse a script's header.

    Raises:
        ValueError: the header is missing, has no ARGV or RETURNS section, or USES no such part.
    """
    header = _HEADER.match(text)
    if not header:
        raise ValueError("a script begins with --[[, its name and what it guarantees")
    parts = re.split(r"^(ARGV|RETURNS|USES)\n", header["guarantee"], flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    if list(sections)[:2] != ["ARGV", "RETURNS"]:
        raise ValueError(f"{header['name']}: needs the sections ARGV and RETURNS")
    named = [re.findall(r"^  (\w+)  ", sections[key], re.MULTILINE) for key in ("ARGV", "RETURNS")]
    uses = sections["USES"].split() if "USES" in sections else LIBRARY
    if unknown := set(uses) - set(LIBRARY):
        raise ValueError(f"{header['name']}: uses {', '.join(sorted(unknown))}, which there is not")
    ordered = tuple(part for part in LIBRARY if part in uses)
    return Contract(header["name"], tuple(named[0]), tuple(named[1]), ordered)


def source(name: str) -> str:
    """The Lua text sent to Redis for one script: keys by name, the library, the script."""
    folder = files("admission.store") / "lua"
    keys = ", ".join(f"{key.name} = KEYS[{i}]" for i, key in enumerate(POOL_KEYS, 1))
    library = [_part(part) for part in contract(name).uses]
    script = (folder / f"{name}.lua").read_text()
    return "\n".join([f"local K = {{ {keys} }}", *library, script])


@cache
def _part(name: str) -> str:
    """A file of the library; nearly every script has nearly all of them."""
    return (files("admission.store") / "lua" / "lib" / f"{name}.lua").read_text()


def contract(name: str) -> Contract:
    """The contract of one script."""
    folder = files("admission.store") / "lua"
    return read_contract((folder / f"{name}.lua").read_text())


def arguments(contract: Contract, given: dict[str, str | int]) -> list[bytes]:
    """Put named arguments in the order of the header, as bytes.

    Raises:
        TypeError: a name is missing or unknown.
        UnicodeEncodeError: a text that cannot be sent.
    """
    if set(given) != set(contract.arguments):
        raise TypeError(f"{contract.name} takes {contract.arguments}, got {tuple(given)}")
    return [str(given[name]).encode() for name in contract.arguments]


def parse(contract: Contract, raw: list[bytes]) -> Reply:
    """Turn a script's raw answer into a Reply."""
    tag, payload = raw[0].decode(), msgspec.json.decode(raw[1])
    assert tag in contract.tags, f"{contract.name} answered {tag!r}, not one of {contract.tags}"
    moved = () if raw[2] == b"[]" else map(_transition, msgspec.json.decode(raw[2]))
    return Reply(tag, payload, tuple(moved))


def _transition(move: dict[str, str]) -> Transition:
    return Transition(
        move["ticket_id"], move["user_id"], move.get("from"), move["to"], move.get("reason")
    )
