"""A key that signs user tokens (Ed25519): its text, its name, and the time from which it signs.

Knows no tokens.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

_PEM = re.compile("-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----", re.DOTALL)


@dataclass(frozen=True)
class SigningKey:
    """One key pair. ``signs_from_ms``: from then on, in ms since 1970, it signs new tokens."""

    private: Ed25519PrivateKey
    signs_from_ms: int = 0
    made_ms: int = 0

    @classmethod
    def fresh(cls, now_ms: int, signs_from_ms: int) -> "SigningKey":
        """A new random one."""
        return cls(Ed25519PrivateKey.generate(), signs_from_ms, now_ms)

    @classmethod
    def read(cls, text: str) -> "SigningKey":
        """From what ``written`` gave."""
        facts = json.loads(text)
        (private,) = keys_of_pem(facts["pem"])
        return cls(private, facts["signs_from_ms"], facts["made_ms"])

    def written(self) -> str:
        """As JSON, with the private key."""
        pem = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return json.dumps(
            {
                "pem": pem.decode(),
                "signs_from_ms": self.signs_from_ms,
                "made_ms": self.made_ms,
            }
        )

    @cached_property
    def kid(self) -> str:
        """Its name in tokens and the key set: the thumbprint of RFC 7638, as RFC 8037 has it."""
        members = {"crv": "Ed25519", "kty": "OKP", "x": self._x()}
        digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
        return _base64url(digest)

    def public(self) -> dict[str, Any]:
        """The public half as a JWK."""
        members = {"kty": "OKP", "crv": "Ed25519", "x": self._x()}
        return {**members, "kid": self.kid, "use": "sig", "alg": "EdDSA"}

    def _x(self) -> str:
        public = self.private.public_key()
        return _base64url(public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def keys_of_pem(text: str) -> list[Ed25519PrivateKey]:
    """The Ed25519 keys of one or more PEM blocks, in order; a literal ``\\n`` ends a line too.

    Raises:
        ValueError: there is none, or one is of another kind or has a password.
    """
    blocks = _PEM.findall(text.replace("\\n", "\n"))
    if not blocks:
        raise ValueError("is not a private key as PEM")
    return [_key_of(block) for block in blocks]


def _key_of(block: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(block.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("is not a private key as PEM without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is a key of another kind than Ed25519")  # noqa: TRY004
    return key


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
