"""Who may call: keys, user tokens, and what each is good for (DESIGN section 5, "Who may call").

``callers`` the kinds of keys · ``tokens`` signed user tokens · ``keyring`` this process's copy of
what Redis keeps · ``gatekeeper`` who may do what. Handlers ask through ``api/access``.
"""

from admission.auth.callers import NOBODY, Caller, Kind, bearer, hash_key
from admission.auth.gatekeeper import Gatekeeper
from admission.auth.keyring import Keyring
from admission.auth.tokens import TOKEN_LIFE_S, Tokens

__all__ = [
    "NOBODY",
    "TOKEN_LIFE_S",
    "Caller",
    "Gatekeeper",
    "Keyring",
    "Kind",
    "Tokens",
    "bearer",
    "hash_key",
]
