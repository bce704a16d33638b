"""Who is calling, and for whom they may act (DESIGN section 5, "Who may call").

Knows keys, user tokens and Open WebUI's identity headers; not what the calls do.
"""

import time
from collections.abc import Mapping

import jwt

from admission.auth.callers import NOBODY, Caller, Kind, bearer, hash_key
from admission.auth.keyring import Keyring
from admission.auth.tokens import TOKEN_LIFE_S, UNREADABLE, Tokens
from admission.domain import USER_ID
from admission.errors import AdmissionError, BadInput, Forbidden, Unauthorized
from admission.settings import Settings
from admission.signing import SigningKey, keys_of_pem
from admission.store.key_store import KeyStore

_OWUI_ISSUER = "open-webui"  # Open WebUI 0.12.4, utils/headers.py

USER_HEADER = "X-OpenWebUI-User-Id"
USER_JWT_HEADER = "X-OpenWebUI-User-Jwt"


class Gatekeeper:
    """Checks keys and tokens of one service."""

    def __init__(self, settings: Settings, store: KeyStore) -> None:
        keys = (
            (settings.admin_key, Kind.ADMIN),
            (settings.service_key, Kind.SERVICE),
            (settings.worker_token, Kind.WORKER),
        )
        fixed = {
            hash_key(key.get_secret_value()): Caller(kind) for key, kind in reversed(keys) if key
        }
        self.tokens = Tokens()
        if settings.signing_key:
            signer, *old = keys_of_pem(settings.signing_key.get_secret_value())
            self.tokens.use([SigningKey(key) for key in (*old, signer)], retire=False)
        self.keyring = Keyring(store, fixed, self.tokens)
        self._checks_users = settings.auth
        self._owui_secret = settings.owui_jwt_secret

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """The caller by its bearer key; Kind.NONE when it brought none.

        Raises:
            Unauthorized: the Authorization header is not a bearer key, or its token has expired.
        """
        key = bearer(headers)
        if key is None:
            return NOBODY
        digest = hash_key(key)
        found = self.keyring.find(digest) or self.tokens.holder(key, digest)
        return found or Caller(Kind.OTHER)

    def holder(self, token: str) -> Caller:
        """The caller by a user token, and by no other key: of a query or a cookie.

        Raises:
            Unauthorized: it has expired.
        """
        return self.tokens.holder(token, hash_key(token)) or Caller(Kind.OTHER)

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

    def priority_of(self, caller: Caller, user: str) -> str | None:
        """The class in which ``user`` joins: an admin's word about the user, else the key's."""
        return self.keyring.priorities.get(user) or caller.priority

    def token_for(self, user: str, project: str | None = None) -> str:
        """A signed token that acts for ``user`` for one hour."""
        return self.tokens.sign(user, project)

    def renewal_for(self, caller: Caller) -> str | None:
        """A new token for a caller whose token is past half its life."""
        if caller.user is None or caller.key is not None:  # a key is no token
            return None
        if caller.expires_s - time.time() > TOKEN_LIFE_S / 2:
            return None
        return self.token_for(caller.user, caller.project)

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
        except UNREADABLE as error:
            raise Unauthorized(f"{USER_JWT_HEADER} is not valid: {error}") from error
        user = str(claims["sub"])
        if not USER_ID.fullmatch(user):
            raise BadInput(f"{USER_JWT_HEADER}: its sub is not a user id", field=USER_JWT_HEADER)
        return user


class _NobodyNamed(AdmissionError):
    status, code = 400, "user_missing"


def _known(caller: Caller) -> None:
    if caller.kind is Kind.NONE:
        raise Unauthorized("A key is needed: Authorization: Bearer KEY")
    if caller.kind is Kind.OTHER:
        raise Unauthorized("Nobody knows this key.")
