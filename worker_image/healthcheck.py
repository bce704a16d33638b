"""Exit status 0 when the agent in this container answers, 1 when it does not: Docker's HEALTHCHECK.

Alive, not ready: a model that is still loading is no reason to start the container again.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 3


def alive(port: str) -> bool:
    """Whether `/healthz` answers on loopback, over TLS or, where that is off, without."""
    anyone = ssl.create_default_context()  # the certificate is the agent's own, and so is loopback
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    for scheme in ("https", "http"):
        url = f"{scheme}://127.0.0.1:{port}/healthz"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=anyone) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            continue
    return False


if __name__ == "__main__":
    sys.exit(not alive(os.environ.get("VESTIBULE_WORKER_PORT") or "9001"))
