"""How a worker's certificate is checked by whoever calls it: the gateway, REST and the scheduler.

An agent off loopback has a certificate it made itself, and tells its fingerprint when it registers,
with a key that admission trusts. Nobody else's word is needed, and nobody else's is believed.
"""

from functools import lru_cache

from aiohttp import Fingerprint

from admission.domain import Worker


def ssl_of(worker: Worker) -> Fingerprint | bool:
    """What to give aiohttp's client as ``ssl`` when it calls this worker.

    The pinned certificate if one is; else the usual check of https. A call that meets another
    certificate raises ``aiohttp.ServerFingerprintMismatch``, a ClientError, before anything is
    sent.
    """
    return pinned(worker.fingerprint)


@lru_cache(maxsize=4096)
def pinned(fingerprint: str | None) -> Fingerprint | bool:
    """The same object for the same fingerprint: aiohttp shares connections by its identity."""
    return Fingerprint(bytes.fromhex(fingerprint)) if fingerprint else True
