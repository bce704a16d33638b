"""One environment of a function: ``python -m bench.cold MODULE INVOCATIONS`` prints what it took.

Imports nothing before the handler's module, so that all of that counts.
"""

import json
import os
import sys
from importlib import import_module
from time import perf_counter
from typing import Any


def _event(method: str, path: str) -> dict[str, Any]:
    key = os.environ["VESTIBULE_SERVICE_KEY"]
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"authorization": f"Bearer {key}", "host": "gate.example"},
        "requestContext": {
            "http": {"method": method, "path": path, "sourceIp": "192.0.2.1"},
            "stage": "$default",
        },
        "isBase64Encoded": False,
    }


def main(name: str, invocations: int) -> None:
    """Print, in ms, the import, the first answer and each of the warm ones."""
    begun_s = perf_counter()
    handler = import_module(name).handler
    imported_s = perf_counter()
    first, again = _event("POST", "/queue/join/ada"), _event("GET", "/queue/status/ada")
    if name.startswith("scheduler"):
        first = again = {}
    handler(first, None)
    answered_s = perf_counter()
    warm = []
    for _ in range(invocations):
        asked_s = perf_counter()
        handler(again, None)
        warm.append((perf_counter() - asked_s) * 1000)
    taken = {"import": (imported_s - begun_s) * 1000, "first": (answered_s - imported_s) * 1000}
    print(json.dumps({**taken, "warm": warm}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
