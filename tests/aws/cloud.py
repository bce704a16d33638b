"""AWS without AWS: moto as a server, and the one call of Terraform's provider that it lacks.

Moto knows no parameter groups and no members of replication groups, so ElastiCache can be planned
there and not made. Nothing here proves that AWS takes a value.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import requests
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class Cloud:
    """The server's application: moto's, and tags of scalable targets, of which there are none."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("HTTP_X_AMZ_TARGET") == "AnyScaleFrontendService.ListTagsForResource":
            start("200 OK", [("Content-Type", "application/x-amz-json-1.1")])
            return [b'{"Tags": {}}']
        answer: Iterable[bytes] = self._moto(environ, start)
        return answer


@contextmanager
def running() -> Iterator[str]:
    """The URL of an empty cloud."""
    server = make_server("127.0.0.1", 0, Cloud(), threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        # All clouds of a process are one.
        requests.post(f"{url}/moto-api/reset", timeout=10).raise_for_status()
        yield url
    finally:
        server.shutdown()
        thread.join()
