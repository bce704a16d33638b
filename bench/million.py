"""What a million who wait cost: status, join and leave beside a thousand, and Redis' memory."""

import json
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from statistics import median
from typing import Any

from redis.asyncio import Redis

from admission.clock import RedisClock
from admission.domain import PoolPolicy
from admission.store import names, scripts
from admission.store.connection import open_redis
from admission.store.redis_store import RedisStore
from bench.scripts import server

FEW, MANY = 1_000, 1_000_000
SESSIONS = 50
POLICY = PoolPolicy(capacity=SESSIONS)
FILL_AT_ONCE = 1_000  # in one script
ROUNDS, CALLS = 20, 50  # of each call on each side, in turn
RATIO_MAX, BYTES_MAX = 1.25, 400

Call = Callable[[int], Awaitable[object]]


async def main() -> None:
    """Print the median of each call in both queues, their ratio, and the bytes a ticket takes."""
    async with server() as url:
        redis = open_redis(url)
        store = RedisStore(redis, RedisClock(), POLICY)
        await store.load()
        # The fill need not be synced call by call; what is measured then is.
        await redis.config_set("appendfsync", "everysec")
        await _fill(store, redis, "few", FEW)
        empty, start = await _used(redis), time.perf_counter()
        await _fill(store, redis, "many", MANY)
        taken, each = time.perf_counter() - start, (await _used(redis) - empty) / MANY
        await redis.config_set("appendfsync", "always")
        print(f"million: {FEW} and {MANY} waiting in one server ({taken:.0f} s to join them)")
        print(f"  memory  {each:.0f} bytes a waiting ticket  (to reach: {BYTES_MAX})")
        await _compare(store, redis)
        await redis.aclose()


async def _compare(store: RedisStore, redis: Redis) -> None:
    """Time as the caller sees it, and as the server counts it for the script alone."""
    seen: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    counted: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(ROUNDS):
        for pool, waiting in (("few", FEW), ("many", MANY)):
            for name, call in _calls(store, pool, waiting, number).items():
                await redis.config_resetstat()
                for i in range(CALLS):
                    start = time.perf_counter()
                    await call(i)
                    seen[name, pool].append((time.perf_counter() - start) * 1e6)
                stats = (await redis.info("commandstats"))["cmdstat_evalsha"]
                counted[name, pool].append(stats["usec_per_call"])
    for name in ("status", "join", "leave"):
        for what, times in (("call", seen), ("script", counted)):
            few, many = median(times[name, "few"]), median(times[name, "many"])
            goal = f"  (to reach: {RATIO_MAX})" if what == "call" else ""
            print(f"  {name:<6} {what:<6} {few:5.0f} {many:5.0f} us  ratio {many / few:.2f}{goal}")


def _calls(store: RedisStore, pool: str, waiting: int, number: int) -> dict[str, Call]:
    chance = random.Random(number)

    def one_more(i: int) -> str:
        return _user(waiting + number * CALLS + i)

    return {
        "status": lambda _: store.status(pool, _user(chance.randrange(waiting))),
        "join": lambda i: store.join(pool, one_more(i), ticket=f"{one_more(i)[4:]}"),
        "leave": lambda i: store.leave(pool, one_more(i)),
    }


async def _fill(store: RedisStore, redis: Redis, pool: str, waiting: int) -> None:
    """Every slot is a session that does not end before the benchmark does."""
    for i in range(SESSIONS):
        await store.join(pool, f"s{i}", ticket=f"s{i}")
        await store.confirm(pool, f"s{i}")
    await store.join(pool, _user(0), ticket=_user(0)[4:])
    many = redis.register_script(_more_like_the_first())
    keys = names.pool_keys(pool)
    policy = json.dumps({"pool": pool, **_known(asdict(POLICY))})
    for first in range(1, waiting, FILL_AT_ONCE):
        past = min(first + FILL_AT_ONCE, waiting)
        await many(keys=keys, args=[0, policy, _user(0), first, past])
    assert (await store.metrics(pool)).waiting == waiting


def _more_like_the_first() -> str:
    """A script on the library's own functions: as if those numbered ARGV[4] to below ARGV[5] had
    joined after ARGV[3] did. A million calls of join would take a quarter of an hour."""
    library = scripts.source("join").partition("--[[\njoin - ")[0]
    return f"""{library}
local first = redis.call("HGET", K.users, ARGV[3])
for i = tonumber(ARGV[4]), tonumber(ARGV[5]) - 1 do
  local facts = load_ticket(first)
  facts.user = string.format("%036x", i)
  enqueue(string.sub(facts.user, 5), facts)
end
"""


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _user(number: int) -> str:
    """36 characters, as Open WebUI's ids are; without the first four, a ticket id as ours are."""
    return f"{number:036x}"


async def _used(redis: Redis) -> int:
    used: int = (await redis.info("memory"))["used_memory"]
    return used
