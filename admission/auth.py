"""Who is calling, and for whom they may act (DESIGN section 5, "Who may call").

Knows keys, user tokens and Open WebUI's identity headers; not what the calls do.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import jwt

from admission.domain import USER_ID
from admission.errors import AdmissionError, BadInput, Forbidden, Unauthorized
from admission.settings import Settings

TOKEN_LIFE_S = 3600  # a user token's life is at most one hour (DESIGN section 5)
_ISSUER = "vestibule"
_OWUI_ISSUER = "open-webui"  # Open WebUI 0.12.4, utils/headers.py

USER_HEADER = "X-OpenWebUI-User-Id"
USER_JWT_HEADER = "X-OpenWebUI-User-Jwt"


class Kind(StrEnum):
    """What a key is good for."""

    ADMIN = "admin"
    SERVICE = "service"
    WORKER = "worker"
    USER = "user"  # a user token
    OTHER = "other"  # a key we do not know; a worker's own token is looked up by its hash
    NONE = "none"


@dataclass(frozen=True)
class Caller:
    """The kind of key a call came with."""

    kind: Kind
    user: str | None = None  # whose token it is
    expires_s: float = 0  # when that token ends, in seconds since 1970


_NOBODY = Caller(Kind.NONE)
# Bytes that are no text are not an InvalidTokenError of PyJWT 2.15.
_UNREADABLE = (jwt.InvalidTokenError, UnicodeError)


def hash_key(key: str) -> str:
    """How keys are stored: SHA-256 in hex. Keys are random, so no salt is needed."""
    return hashlib.sha256(key.encode()).hexdigest()


class Gatekeeper:
    """Checks keys and tokens of one service."""

    def __init__(self, settings: Settings, signing_key: str) -> None:
        keys = (
            (settings.admin_key, Kind.ADMIN),
            (settings.service_key, Kind.SERVICE),
            (settings.worker_token, Kind.WORKER),
        )
        self._keys = [(hash_key(key.get_secret_value()), kind) for key, kind in keys if key]
        self._signing_key = signing_key
        self._checks_users = settings.auth
        self._owui_secret = settings.owui_jwt_secret

    def caller(self, headers: Mapping[str, str], query_token: str | None = None) -> Caller:
        """The caller by its bearer key; Kind.NONE when it brought none.

        Args:
            query_token: a user token of the query; no other key is taken there, as URLs are logged.

        Raises:
            Unauthorized: the Authorization header is not a bearer key.
        """
        key = bearer(headers)
        if key is None:
            return (self._token(query_token) or Caller(Kind.OTHER)) if query_token else _NOBODY
        presented = hash_key(key)
        for known, kind in self._keys:
            if hmac.compare_digest(known, presented):
                return Caller(kind)
        return self._token(key) or Caller(Kind.OTHER)

    def may_act_for(self, caller: Caller, user: str) -> None:
        """Raises Unauthorized or Forbidden unless ``caller`` may act for ``user``."""
        if not self._checks_users or caller.kind in (Kind.ADMIN, Kind.SERVICE):
            return
        _known(caller)
        if caller.kind is not Kind.USER or caller.user != user:
            raise Forbidden("This key may not act for that user.")

    def must_be(self, caller: Caller, *kinds: Kind) -> None:
        """Raises Unauthorized or Forbidden unless the key is of one of ``kinds`` or an admin's."""
        if Kind.SERVICE in kinds and not self._checks_users:
            return
        if caller.kind in kinds or caller.kind is Kind.ADMIN:
            return
        _known(caller)
        wanted = " or ".join(dict.fromkeys((*kinds, Kind.ADMIN)))
        raise Forbidden(f"This needs a key of kind {wanted}.")

    def user_of(self, caller: Caller, headers: Mapping[str, str]) -> str:
        """The user a gateway call is for.

        Identity headers are believed only beside a service or admin key; with Open WebUI's JWT
        secret configured, only its valid JWT names the user.

        Raises:
            Unauthorized, Forbidden: no key, or the wrong one.
            AdmissionError: 400, nobody is named; says which Open WebUI setting is missing.
        """
        if caller.kind is Kind.USER and caller.user:
            return caller.user
        if self._checks_users:
            self.must_be(caller, Kind.SERVICE)
        if self._owui_secret:
            return self._owui_user(
                headers.get(USER_JWT_HEADER), self._owui_secret.get_secret_value()
            )
        user = headers.get(USER_HEADER, "")
        if not user:
            raise _NobodyNamed(
                f"No user is named. Give this connection the header {USER_HEADER}: {{{{USER_ID}}}},"
                " or set ENABLE_FORWARD_USER_INFO_HEADERS=true in Open WebUI.",
                field=USER_HEADER,
            )
        if not USER_ID.fullmatch(user):
            raise BadInput(f"{USER_HEADER}: not a user id", field=USER_HEADER)
        return user

    def token_for(self, user: str) -> str:
        """A signed token that acts for ``user`` for one hour."""
        now_s = int(time.time())
        claims = {"iss": _ISSUER, "sub": user, "iat": now_s, "exp": now_s + TOKEN_LIFE_S}
        return jwt.encode(claims, self._signing_key, algorithm="HS256")

    def renewal_for(self, caller: Caller) -> str | None:
        """A new token for a caller whose token is past half its life."""
        if caller.user is None or caller.expires_s - time.time() > TOKEN_LIFE_S / 2:
            return None
        return self.token_for(caller.user)

    def _token(self, key: str) -> Caller | None:
        try:
            claims = jwt.decode(
                key,
                self._signing_key,
                algorithms=["HS256"],
                issuer=_ISSUER,
                options={"require": ["exp", "sub"], "verify_iat": False},  # clocks differ
            )
        except jwt.ExpiredSignatureError as error:
            raise Unauthorized("The user token has expired: join again.") from error
        except _UNREADABLE:
            return None
        return Caller(Kind.USER, str(claims["sub"]), float(claims["exp"]))

    def _owui_user(self, token: str | None, secret: str) -> str:
        if not token:
            raise _NobodyNamed(
                f"No user is named: {USER_JWT_HEADER} is missing. Set"
                " FORWARD_USER_INFO_HEADER_JWT_SECRET and ENABLE_FORWARD_USER_INFO_HEADERS=true"
                " in Open WebUI.",
                field=USER_JWT_HEADER,
            )
        try:
            claims = jwt.decode(
                token,
                secret,
                algorithms=["HS256"],
                issuer=_OWUI_ISSUER,
                options={"require": ["exp", "sub"], "verify_aud": False, "verify_iat": False},
            )
        except _UNREADABLE as error:
            raise Unauthorized(f"{USER_JWT_HEADER} is not valid: {error}") from error
        user = str(claims["sub"])
        if not USER_ID.fullmatch(user):
            raise BadInput(f"{USER_JWT_HEADER}: its sub is not a user id", field=USER_JWT_HEADER)
        return user


class _NobodyNamed(AdmissionError):
    status, code = 400, "user_missing"


def bearer(headers: Mapping[str, str]) -> str | None:
    """The key of an Authorization header, or None without one.

    Raises:
        Unauthorized: the header is not ``Bearer KEY``.
    """
    value = headers.get("Authorization")
    if value is None:
        return None
    match = re.fullmatch(r"[Bb]earer +([\x21-\x7e]+) *", value)
    if not match:
        raise Unauthorized("The Authorization header must be: Bearer KEY")
    return match[1]


def _known(caller: Caller) -> None:
    if caller.kind is Kind.NONE:
        raise Unauthorized("A key is needed: Authorization: Bearer KEY")
    if caller.kind is Kind.OTHER:
        raise Unauthorized("Nobody knows this key.")
