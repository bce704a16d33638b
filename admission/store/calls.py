"""Calls of the scripts: named arguments in, a Reply out, one log line per transition.

Knows how a call travels to Redis; not what the replies mean (``redis_store``).
"""

import asyncio
import json
import logging
from dataclasses import asdict
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError

from admission import logs
from admission.clock import Clock
from admission.domain import PoolPolicy
from admission.errors import StoreUnavailable
from admission.store import names, scripts
from admission.store.connection import answering
from admission.store.lanes import Command, Lanes

log = logging.getLogger(__name__)
moves = logging.getLogger("admission.transitions")


class Calls:
    """The way to the scripts of one Redis. Safe to share between tasks of one event loop."""

    def __init__(self, redis: Redis, clock: Clock, policy: PoolPolicy | None) -> None:
        """``policy`` is the service's; None in a process that only runs ticks."""
        self._redis = redis
        # A cluster's client finds the server of each call, and cannot do so for a batch.
        self._lanes = None if isinstance(redis, RedisCluster) else Lanes(redis)
        self._clock = clock
        self._policy = policy
        self._scripts = scripts.all_scripts()
        self._pools: dict[str, tuple[list[bytes], str]] = {}
        self._loads = 0
        self._loading = asyncio.Lock()
        self.heard_ms = clock.passed_ms()  # when Redis last answered

    def passed_ms(self) -> float:
        """Milliseconds on a clock of this process that measures spans of the store's time."""
        return self._clock.passed_ms()

    async def load(self) -> None:
        """Send every script to Redis, which compiles it: a bad one fails here, not under load.

        Raises:
            StoreUnavailable: Redis does not answer, or refuses a script.
        """
        with answering():
            await self._load()

    async def run(self, name: str, pool: str, **given: str | int) -> scripts.Reply:
        """Run script ``name`` on ``pool`` with what its header asks for, less now_ms and policy.

        Raises:
            StoreUnavailable: no answer; the call may or may not have happened.
            TypeError: an argument is missing or unknown.
        """
        script = self._scripts[name]
        keys, policy = self._pools.get(pool) or self._of_pool(pool)
        given |= {"now_ms": self._clock.now_ms(), "policy": policy}
        arguments = scripts.arguments(script.contract, given)
        try:
            raw = await self._send([b"EVALSHA", script.sha, len(keys), *keys, *arguments])
        except (RedisError, OSError) as error:
            logs.event(log, "store_failed", logging.WARNING, script=name, error=error)
            raise StoreUnavailable from error
        self.heard_ms = self._clock.passed_ms()
        reply = scripts.parse(script.contract, raw)
        for move in reply.transitions:
            _log_move(pool, move)
        return reply

    async def drained(self) -> None:
        """Returns when no call is under way, as before Redis is closed."""
        if self._lanes is not None:
            await self._lanes.drained()

    async def _send(self, command: Command) -> Any:
        loads = self._loads
        try:
            return await self._ask(command)
        except NoScriptError:  # a server that started empty, or was just made master
            async with self._loading:
                if self._loads == loads:  # many may find out at once
                    await self._load()
            return await self._ask(command)

    async def _ask(self, command: Command) -> Any:
        if self._lanes is None:
            return await self._redis.execute_command(*command)
        answer = await self._lanes.send(command)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _load(self) -> None:
        every = [*self._scripts.values()]
        known = await self._redis.script_exists(*(script.sha.decode() for script in every))
        for script, there in zip(every, known, strict=True):
            if not there:  # the texts are some megabytes
                await self._redis.script_load(script.source)
        self._loads += 1

    def _of_pool(self, pool: str) -> tuple[list[bytes], str]:
        """Keys and policy, which are the same at each call."""
        policy = asdict(self._policy) if self._policy else {}
        known = {key: value for key, value in policy.items() if value is not None}
        text = json.dumps({"pool": pool, **known}, separators=(",", ":"))
        kept = [key.encode() for key in names.pool_keys(pool)], text
        self._pools[pool] = kept
        return kept


def _log_move(pool: str, move: scripts.Transition) -> None:
    logs.event(
        moves,
        "ticket_moved",
        pool=pool,
        ticket_id=move.ticket_id,
        user_id=move.user_id,
        source=move.source or "new",
        target=move.target,
        reason=move.reason,
    )
