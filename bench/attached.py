"""The service in a process of its own, and clients that stay attached to its event streams.

Knows HTTP and Server-Sent Events, as little as it takes: what the clients cost must not be what is
measured. ``python -m bench.attached URL PORT`` is the service, with its ticks.
"""

import asyncio
import os
import re
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from psutil import Process

from admission import logs
from admission.clock import RedisClock
from admission.domain import DEFAULT_POOL, PoolPolicy
from admission.settings import Settings
from admission.store.connection import open_redis
from admission.store.redis_store import RedisStore
from bench.processes import until_answers
from bench.scripts import server
from infra.service import serving, store_at
from infra.stopping import stop_event
from scheduler import clockwork

KEY = "bench-service-key"
PORT = 18_721
CAPACITY = 50
CONNECTING = 100  # clients that connect at once

_VIEW = re.compile(rb'"status": "(\w+)", "position": (\w+)')


@dataclass
class Room:
    """A service and its queue, seen from another process."""

    store: RedisStore
    port: int
    service: Process

    def cpu_s(self) -> float:
        """Seconds of processor time that the service has used so far."""
        times = self.service.cpu_times()
        return float(times.user + times.system)

    async def join(self, *users: str, auto_confirm: bool = False) -> None:
        for start in range(0, len(users), 200):
            await asyncio.gather(
                *(
                    self.store.join(
                        DEFAULT_POOL, user, ticket=f"t-{user}", auto_confirm=auto_confirm
                    )
                    for user in users[start : start + 200]
                )
            )

    async def attach(self, users: list[str], heard: Callable[["Client"], None]) -> list["Client"]:
        """A client for each of ``users``, which has seen its ticket once; ``heard`` is called at
        each view."""
        loop, gate = asyncio.get_running_loop(), asyncio.Semaphore(CONNECTING)

        async def attach(user: str) -> Client:
            async with gate:
                client = Client(user, heard)
                await loop.create_connection(lambda: client, "127.0.0.1", self.port)
                await client.seen
                return client

        return list(await asyncio.gather(*map(attach, users)))


class Client(asyncio.Protocol):
    """One event stream: what it said last, and when that came."""

    def __init__(self, user: str, heard: Callable[["Client"], None]) -> None:
        self.user, self._heard = user, heard
        self.status, self.position, self.at_s = "", 0, 0.0
        self.seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        path = f"/queue/events/{self.user}"
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        transport.write(head.encode())

    def data_received(self, data: bytes) -> None:
        views = _VIEW.findall(data)  # a view is small: it is not cut between two packets
        if not views:
            return
        status, position = views[-1]
        self.status, self.at_s = status.decode(), time.perf_counter()
        self.position = 0 if position == b"null" else int(position)
        self._heard(self)
        if not self.seen.done():
            self.seen.set_result(None)


@asynccontextmanager
async def room(capacity: int = CAPACITY) -> AsyncIterator[Room]:
    """A running service over a Valkey of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with server() as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.attached", url, str(PORT)),
            env={**os.environ, "CAPACITY": str(capacity)},
        )
        redis = open_redis(url)
        try:
            await until_answers(f"http://127.0.0.1:{PORT}/healthz")
            store = RedisStore(redis, RedisClock(), _policy(capacity))
            yield Room(store, PORT, Process(process.pid))
        finally:
            await redis.aclose()
            process.terminate()
            await process.wait()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _policy(capacity: int) -> PoolPolicy:
    return PoolPolicy(capacity=capacity, max_active=capacity)


async def _serve(url: str, port: int, capacity: int) -> None:
    settings = Settings.model_validate(
        {"VESTIBULE_SERVICE_KEY": KEY, "VESTIBULE_PORT": port, "MAX_ACTIVE_USERS": capacity}
    )
    stop = stop_event()
    async with (
        store_at(url, _policy(capacity), settings) as store,
        serving(store, settings),
        clockwork.running(store, []),
    ):
        await stop.wait()


if __name__ == "__main__":
    logs.configure()
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), int(os.environ["CAPACITY"])))
