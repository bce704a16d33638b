"""User tokens: signed, and checked with the public keys of the key set alone.

A new key is published before it signs, and an old one is accepted until the last token it signed
has ended: whoever holds a copy of the key set can check every token at any time.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import jwt

from admission.auth.callers import Caller, Kind, hash_key
from admission.domain import USER_ID
from admission.errors import Unauthorized
from admission.signing import SigningKey

TOKEN_LIFE_S = 3600  # a user token's life is at most one hour (DESIGN section 5)
_ISSUER = "vestibule"
_ALGORITHM = "EdDSA"
_CLOCKS_S = 60  # how far the clocks of two hosts may be apart
_REMEMBERED = 10_000  # tokens checked before, about 5 MB: checking one again takes 0.1 ms

# Bytes that are no text are not an InvalidTokenError of PyJWT 2.15.
UNREADABLE = (jwt.InvalidTokenError, UnicodeError, RecursionError)


class Tokens:
    """Signs and checks user tokens with the keys there are at the moment."""

    def __init__(self) -> None:
        self._keys: list[SigningKey] = []
        self._retire = True
        self._by_kid: dict[str, SigningKey] = {}
        self._checked: OrderedDict[str, Caller] = OrderedDict()

    def use(self, keys: Sequence[SigningKey], *, retire: bool = True) -> None:
        """Sign and check with these from now on, the oldest first; without ``retire`` the old
        ones are accepted for as long as they are named."""
        self._keys, self._retire = list(keys), retire
        self._by_kid = {key.kid: key for key in keys}
        self._checked.clear()  # a key that was withdrawn takes its tokens along

    @property
    def ready(self) -> bool:
        """Whether there is a key to sign with."""
        return bool(self._keys)

    def signer(self) -> SigningKey:
        """The newest whose time has come, else the oldest."""
        now_ms = time.time() * 1000
        come = [key for key in self._keys if key.signs_from_ms <= now_ms]
        return come[-1] if come else self._keys[0]

    def accepted(self) -> list[SigningKey]:
        """Those whose tokens are good: an old one until the last it signed has ended."""
        if not self._retire:
            return self._keys
        since_ms = (time.time() - TOKEN_LIFE_S - _CLOCKS_S) * 1000
        followers = [*self._keys[1:], None]
        pairs = zip(self._keys, followers, strict=True)
        return [key for key, next_ in pairs if next_ is None or next_.signs_from_ms > since_ms]

    def sign(self, user: str, project: str | None = None) -> str:
        """A token that acts for ``user`` for one hour."""
        now_s = int(time.time())
        claims: dict[str, Any] = {
            "iss": _ISSUER,
            "sub": user,
            "iat": now_s,
            "exp": now_s + TOKEN_LIFE_S,
        }
        if project is not None:
            claims["project"] = project
        key = self.signer()
        return jwt.encode(claims, key.private, algorithm=_ALGORITHM, headers={"kid": key.kid})

    def has_unknown_signer(self, text: str) -> bool:
        """Whether this looks like a token, but of a key that is not among ours."""
        if text.count(".") != 2 or hash_key(text) in self._checked:
            return False
        try:
            kid = jwt.get_unverified_header(text).get("kid")
        except UNREADABLE:
            return False
        return isinstance(kid, str) and kid not in self._by_kid

    def holder(self, text: str, digest: str) -> Caller | None:
        """The user whose token this is, None when it is none of ours.

        Args:
            digest: ``hash_key(text)``.

        Raises:
            Unauthorized: it has expired.
        """
        caller = self._checked.get(digest)
        if caller is None:
            caller = self._check(text)
            if caller is None:
                return None
            self._checked[digest] = caller
            if len(self._checked) > _REMEMBERED:
                self._checked.popitem(last=False)
        if caller.expires_s <= time.time():
            raise _expired()
        self._checked.move_to_end(digest)
        return caller

    def _check(self, text: str) -> Caller | None:
        try:
            # The header only says which of our keys to try; how to check is not its to choose.
            key = self._by_kid.get(jwt.get_unverified_header(text).get("kid", ""))
            if key is None or key not in self.accepted():
                return None
            claims = jwt.decode(
                text,
                key.private.public_key(),
                algorithms=[_ALGORITHM],
                issuer=_ISSUER,
                options={"require": ["exp", "sub"], "verify_iat": False},  # clocks differ
            )
        except jwt.ExpiredSignatureError as error:
            raise _expired() from error
        except UNREADABLE:
            return None
        user = claims["sub"]
        if not USER_ID.fullmatch(user):
            return None
        return Caller(Kind.USER, user, float(claims["exp"]), project=claims.get("project"))


def _expired() -> Unauthorized:
    return Unauthorized("The user token has expired: join again.")
