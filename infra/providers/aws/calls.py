"""boto3's client of EC2: made when it is first needed, and each of its calls bounded."""

from threading import Lock
from typing import Any

import boto3
from botocore.config import Config

CONNECT_S, READ_S = 5, 25  # RunInstances answers within seconds; a tick's call may take 60 s
POOL = 10  # the reconciler asks about 8 machines at once


class Calls:
    """Blocking; for any number of threads. Every call raises one of ``errors.FAULTS``."""

    def __init__(self, region: str, *, profile: str = "", endpoint_url: str = "") -> None:
        self._region, self._profile, self._endpoint_url = region, profile, endpoint_url
        self._client: Any = None
        self._lock = Lock()

    def client(self) -> Any:
        with self._lock:
            if self._client is None:
                session = boto3.Session(
                    profile_name=self._profile or None, region_name=self._region
                )
                self._client = session.client(
                    "ec2",
                    endpoint_url=self._endpoint_url or None,
                    config=Config(
                        connect_timeout=CONNECT_S,
                        read_timeout=READ_S,
                        # Whoever calls backs off, for all machines together, and says so.
                        retries={"total_max_attempts": 1, "mode": "standard"},
                        max_pool_connections=POOL,
                    ),
                )
            return self._client

    def one(self, operation: str, **words: Any) -> dict[str, Any]:
        """The answer to one call."""
        answer: dict[str, Any] = getattr(self.client(), operation)(**words)
        return answer

    def all(self, operation: str, key: str, **words: Any) -> list[dict[str, Any]]:
        """What stands under ``key`` of every page: all of it, or the error of one page."""
        pages = self.client().get_paginator(operation).paginate(**words)
        return [each for page in pages for each in page.get(key, [])]

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
