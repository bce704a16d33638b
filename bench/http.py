"""What the service adds to HTTP and Redis: ``status`` and ``join`` beside a bare aiohttp handler.

The bare one does one EVALSHA of the same kind, a rank or a ZADD, on the same Valkey (every write
synced to disk), in one process as the service is; the callers have a process of their own.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import NamedTuple

from aiohttp import web
from psutil import Process
from redis.asyncio import Redis

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

BARE_PORT, SERVICE_PORT = 18_711, 18_712
KEY = "bench-service-key"
CAPACITY, WAITING = 50, 1_000
CALLERS = 32
ROUNDS, ROUND_S = 7, 1.0
QUEUE = "bench:queue"
RANK = "return redis.call('ZRANK', KEYS[1], ARGV[1])"
ADD = "return redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])"
TO_REACH = 0.8

Sides = dict[int, tuple[Process, Process]]
"""Port -> the process that serves there, and Valkey."""


class Load(NamedTuple):
    """What one round found: calls per second, median latency, and CPU time a call, in us, of the
    process that serves and of Valkey."""

    rate: float
    ms: float
    own_us: float
    valkey_us: float


async def main() -> None:
    """Print calls per second and median latency of both, and the ratio of the medians."""
    print(f"http: {CALLERS} callers, {WAITING} waiting, one process each, {ROUNDS} rounds in turn")
    async with server() as url, _process("bare", url) as bare, _process("service", url) as service:
        valkey = await _fill(url)
        sides = {BARE_PORT: (bare, valkey), SERVICE_PORT: (service, valkey)}
        users = [_waiting(i) for i in range(WAITING)]
        await _compare("status", "GET", "/queue/status/{user}", [users] * 2 * ROUNDS, sides)
        new = [[f"j{n}-{i}" for i in range(50_000)] for n in range(2 * ROUNDS)]
        await _compare("join", "POST", "/queue/join/{user}", new, sides)


async def _compare(name: str, method: str, path: str, users: list[list[str]], sides: Sides) -> None:
    found: dict[int, list[Load]] = {port: [] for port in sides}
    for number, some in enumerate(users):
        port = (BARE_PORT, SERVICE_PORT)[number % 2]
        found[port].append(await _round(port, method, path, some, sides[port]))
    bare, service = (Load(*map(median, zip(*loads, strict=True))) for loads in found.values())
    for side, load in (("bare", bare), ("service", service)):
        print(
            f"  {name:<7} {side:<8} {load.rate:6.0f} calls/s   median {load.ms:6.2f} ms"
            f"   CPU {load.own_us:4.0f} us + Valkey {load.valkey_us:4.0f} us a call"
        )
    print(f"  {name:<7} ratio    {service.rate / bare.rate:6.2f}   (to reach: {TO_REACH})")


async def _round(
    port: int, method: str, path: str, users: list[str], serving: tuple[Process, Process]
) -> Load:
    before = [_cpu_s(each) for each in serving]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    given = {"port": port, "method": method, "path": path, "users": users, "key": KEY}
    given |= {"callers": CALLERS, "seconds": ROUND_S}
    out, _ = await process.communicate(json.dumps(given).encode() + b"\n")
    assert process.returncode == 0, f"{method} {path} on {port} failed"
    rate, ms, calls = json.loads(out)
    used = [_cpu_s(each) - was for each, was in zip(serving, before, strict=True)]
    return Load(rate, ms, *(s / calls * 1e6 for s in used))


def _cpu_s(process: Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _fill(url: str) -> Process:
    """Every slot is a session; the same users wait on both sides. The server's process."""
    redis = open_redis(url)
    store = RedisStore(redis, RedisClock(), PoolPolicy(capacity=CAPACITY))
    for i in range(CAPACITY):
        await store.join(DEFAULT_POOL, f"s{i}", ticket=f"s{i}")
        await store.confirm(DEFAULT_POOL, f"s{i}")
    for i in range(WAITING):
        await store.join(DEFAULT_POOL, _waiting(i), ticket=f"t{i}")
        await redis.zadd(QUEUE, {_waiting(i): i})
    valkey = Process((await redis.info("server"))["process_id"])
    await redis.aclose()
    return valkey


def _waiting(number: int) -> str:
    return f"{number:036d}"


@asynccontextmanager
async def _process(side: str, url: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.http", side, url),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = SERVICE_PORT if side == "service" else BARE_PORT
        await until_answers(f"http://127.0.0.1:{port}/healthz")
        yield Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


def _bare(url: str) -> web.Application:
    redis = Redis.from_url(url)
    shas: dict[str, str] = {}

    async def load(_: web.Application) -> None:
        shas.update(rank=await redis.script_load(RANK), add=await redis.script_load(ADD))

    async def status(request: web.Request) -> web.Response:
        rank = await redis.evalsha(shas["rank"], 1, QUEUE, request.match_info["user"])
        return web.json_response({"position": rank + 1})

    async def join(request: web.Request) -> web.Response:
        user = request.match_info["user"]
        added = await redis.evalsha(shas["add"], 1, QUEUE, user, "1")
        return web.json_response({"joined": added})

    async def healthy(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.on_startup.append(load)
    app.add_routes([web.get("/queue/status/{user}", status), web.post("/queue/join/{user}", join)])
    app.router.add_get("/healthz", healthy)
    return app


async def _service(url: str) -> None:
    settings = Settings.model_validate(
        {
            "MAX_ACTIVE_USERS": str(CAPACITY),
            "VESTIBULE_PORT": str(SERVICE_PORT),
            "VESTIBULE_SERVICE_KEY": KEY,
        }
    )
    logs.configure()
    policy = settings.pool_policy(needs_worker=False)
    async with (
        store_at(url, policy, settings) as store,
        serving(store, settings),
        clockwork.running(store, ()),
    ):
        await stop_event().wait()


if __name__ == "__main__":
    side, url = sys.argv[1:]
    if side == "service":
        asyncio.run(_service(url))
    else:
        web.run_app(_bare(url), host="127.0.0.1", port=BARE_PORT, print=None, access_log=None)
