"""Who calls: the kinds of keys, and how a key stands in a call and in Redis."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from admission.errors import Unauthorized

_BEARER = re.compile(r"[Bb]earer +([\x21-\x7e]+) *")


class Kind(StrEnum):
    """What a key is good for."""

    ADMIN = "admin"
    SERVICE = "service"
    WORKER = "worker"
    USER = "user"  # a user token, or a user's own key
    OTHER = "other"  # a key we do not know; a worker's own token is looked up by its hash
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Caller:
    """The kind of key a call came with, and what belongs to that key."""

    kind: Kind
    user: str | None = None  # whose token or key it is
    expires_s: float = 0  # when that token ends, in seconds since 1970
    project: str | None = None
    priority: str | None = None  # the class of that key
    key: str | None = None  # the id of a key kept in Redis; a token has none


NOBODY = Caller(Kind.NONE)


def hash_key(key: str) -> str:
    """How keys are stored and looked up: SHA-256 in hex.

    Keys are random, so no salt is needed; and as nobody can choose the hash of what they present,
    the time that a look-up by it takes tells nothing of the keys there are.
    """
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def bearer(headers: Mapping[str, str]) -> str | None:
    """The key of an Authorization header, or None without one.

    Raises:
        Unauthorized: the header is not ``Bearer KEY``.
    """
    value = headers.get("Authorization")
    if value is None:
        return None
    match = _BEARER.fullmatch(value)
    if not match:
        raise Unauthorized("The Authorization header must be: Bearer KEY")
    return match[1]
