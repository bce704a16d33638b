"""Real servers on loopback: one, a cluster, a master with its replica and sentinels.

Each keeps what it acknowledged on disk, and ends with its block. Valkey is the one that
``vestibule up`` brings along, Redis the machine's own, where it has one.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from infra import embedded
from tests.ports import free_port

DEADLINE_S = 40.0  # a busy machine starts a process in 20
NODE_TIMEOUT_MS = 1000
DOWN_AFTER_MS = 500
SLOTS = 16384
MASTER = "vestibule"  # the name the sentinels know it by
PASSWORD, GUARD_PASSWORD = "a-secret", "another-secret"  # of the servers, of the sentinels
BINARIES: dict[str, Callable[[], str | None]] = {
    "valkey": lambda: str(embedded.binary()),
    "redis": lambda: shutil.which("redis-server"),
}


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask again and again until it holds; fails with ``what``."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await holds():  # noqa: ASYNC110 - what is asked lives in another process
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(what) from None


class Server:
    """One server process at a time, on one port and one folder."""

    password = PASSWORD

    def __init__(self, binary: str, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir()
        self._command = [binary, *self._options(), *options]
        self.client = Redis(port=self.port, password=self.password, socket_timeout=5.0)
        self.process: asyncio.subprocess.Process | None = None

    def _options(self) -> list[str]:
        return [
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            *("--maxmemory-policy", "noeviction", "--daemonize", "no"),
            *("--requirepass", PASSWORD, "--masterauth", PASSWORD),
            *("--repl-diskless-sync-delay", "0"),  # a replica's first copy is sent at once
        ]

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(*self._command, stdout=output)
        await until(self._answers, "the server does not answer")

    async def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, (self.folder / "log").read_text()
        try:
            return bool(await self.client.ping())
        except (RedisError, OSError):
            return False

    async def kill(self) -> None:
        """As ``kill -9`` does it."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def ask(self, command: str, *words: str | int) -> Any:
        """The answer to a command that redis-py has no typed method for."""
        return await self.client.execute_command(command, *words)  # type: ignore[no-untyped-call]

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    async def in_step(self) -> bool:
        """Whether this replica has its master's data and hears of each change."""
        return str((await self.client.info("replication")).get("master_link_status")) == "up"

    async def is_master(self) -> bool:
        return str((await self.client.info("replication"))["role"]) == "master"


def _listed(servers: Sequence[Server]) -> str:
    return ",".join(f"127.0.0.1:{one.port}" for one in servers)


class _Member(Server):
    """A server of a cluster; the servers talk to each other over a port of their own."""

    def _options(self) -> list[str]:
        self.bus = free_port()
        return [
            *super()._options(),
            *("--cluster-enabled", "yes", "--cluster-port", str(self.bus)),
            *("--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
        ]


class _Sentinel(Server):
    """A sentinel; it writes its configuration file anew as it learns."""

    password = GUARD_PASSWORD

    def __init__(self, binary: str, folder: Path, master: Server, quorum: int) -> None:
        super().__init__(binary, folder)
        file = self.folder / "sentinel.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"requirepass {GUARD_PASSWORD}\nsentinel sentinel-pass {GUARD_PASSWORD}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {master.port} {quorum}\n"
            f"sentinel auth-pass {MASTER} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {MASTER} 3000\n"
        )
        self._command = [binary, str(file), "--sentinel"]

    async def knows(self, sentinels: int) -> bool:
        """Whether it knows the replica, and so many sentinels with itself."""
        facts: Any = await self.client.sentinel_master(MASTER)
        return (facts["num-slaves"], facts["num-other-sentinels"]) == (1, sentinels - 1)


@asynccontextmanager
async def _ground() -> AsyncIterator[tuple[Path, AsyncExitStack]]:
    folder = Path(tempfile.mkdtemp(prefix="vst-"))
    try:
        async with AsyncExitStack() as stack:
            yield folder, stack
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def one(binary: str, *options: str) -> AsyncIterator[Server]:
    """A server alone."""
    async with _ground() as (folder, stack):
        server = Server(binary, folder, *options)
        await _start(server, stack)
        yield server


async def _start(server: Server, stack: AsyncExitStack) -> None:
    stack.push_async_callback(server.client.aclose)
    stack.push_async_callback(server.kill)
    await server.start()


class Cluster:
    """Masters that share the slots, each with its replica if there are any."""

    def __init__(self, masters: Sequence[_Member], replicas: Sequence[_Member]) -> None:
        self.masters, self.replicas = masters, replicas

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@" + _listed(self.masters)

    async def form(self) -> None:
        """Make a cluster of the servers, which have not met yet."""
        first, share = self.masters[0], SLOTS // len(self.masters)
        for i, master in enumerate(self.masters):
            last = SLOTS - 1 if master is self.masters[-1] else (i + 1) * share - 1
            await master.ask("CLUSTER ADDSLOTSRANGE", i * share, last)
            await master.ask("CLUSTER SET-CONFIG-EPOCH", i + 1)
        for other in (*self.masters[1:], *self.replicas):
            await first.ask("CLUSTER MEET", "127.0.0.1", other.port, other.bus)
        await until(self._met, "the servers of the cluster did not meet")
        for master, replica in zip(self.masters, self.replicas, strict=False):
            name = await master.ask("CLUSTER MYID")
            await replica.ask("CLUSTER REPLICATE", name)
        for replica in self.replicas:
            await until(replica.in_step, "a replica is not in step")

    async def _met(self) -> bool:
        everyone = (*self.masters, *self.replicas)
        seen = [await server.ask("CLUSTER INFO") for server in everyone]
        return all(
            about["cluster_state"] == "ok" and int(about["cluster_known_nodes"]) == len(everyone)
            for about in seen
        )


@asynccontextmanager
async def cluster(binary: str, *, replicas: int = 0) -> AsyncIterator[Cluster]:
    """A cluster of 3 masters that is up; the first ``replicas`` of them have one each."""
    async with _ground() as (folder, stack):
        servers = [_Member(binary, folder) for _ in range(3 + replicas)]
        for server in servers:
            await _start(server, stack)
        made = Cluster(servers[:3], servers[3:])
        await made.form()
        yield made


class Watched:
    """A master and its replica, which sentinels watch."""

    def __init__(self, master: Server, replica: Server, sentinels: Sequence[Server]) -> None:
        self.master, self.replica, self.sentinels = master, replica, sentinels

    @property
    def url(self) -> str:
        hosts = _listed(self.sentinels)
        return f"redis://:{PASSWORD}@{hosts}?sentinel_password={GUARD_PASSWORD}"

    async def cut_off_replica(self) -> None:
        """From here on the master acknowledges what its replica will never hear of."""
        self.replica.send(signal.SIGSTOP)
        await self.master.ask("CLIENT KILL", "TYPE", "replica")

    async def lose_master(self) -> None:
        """The master is gone for good; the replica, with what it has, is there again."""
        await self.master.kill()
        self.replica.send(signal.SIGCONT)


@asynccontextmanager
async def watched(binary: str, *, sentinels: int) -> AsyncIterator[Watched]:
    """A master, a replica in step with it, and sentinels that know all of them."""
    async with _ground() as (folder, stack):
        master = Server(binary, folder)
        await _start(master, stack)
        replica = Server(binary, folder, "--replicaof", f"127.0.0.1 {master.port}")
        await _start(replica, stack)
        await until(replica.in_step, "the replica is not in step")
        quorum = sentinels // 2 + 1
        guards = [_Sentinel(binary, folder, master, quorum) for _ in range(sentinels)]
        for guard in guards:
            await _start(guard, stack)
        for guard in guards:
            await until(partial(guard.knows, sentinels), "a sentinel does not know all others")
        yield Watched(master, replica, guards)
