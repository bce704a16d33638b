"""Service: the way from simulated people to the engine, on which calls and replies get lost.

Several stores stand for as many processes; each call goes through any of them. A script is atomic,
so calls one after the other, in any order and through any process, are all the concurrency there
is to Redis; that clients which really run at once find it so is tested beside (``tests/store``).
"""

import logging
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis

from admission.clock import ManualClock
from admission.domain import DEFAULT_POOL, PoolPolicy
from admission.store.redis_store import RedisStore
from tests.simulation.invariants import Step, Witness
from tests.simulation.ledger import Move

POOL = DEFAULT_POOL
STORES = 3
NOT_MADE = 0.01  # share of the calls that never arrive
UNHEARD = 0.02  # share of the calls whose reply is lost
TWICE = 0.02  # share of the calls that arrive twice
CRASH = 0.002  # share of the calls during which the process dies
REMEMBERED = 40  # steps that a failure shows


class _Transitions(logging.Handler):
    """Collects the log's transitions."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def taken(self) -> list[Move]:
        """Those since the last time."""
        moves = [Move.of(line) for line in self.lines if line.startswith("ticket_moved ")]
        self.lines.clear()
        return moves


class Service:
    """Makes calls with their faults, each seen by the witness."""

    def __init__(
        self,
        url: str,
        clock: ManualClock,
        policy: PoolPolicy,
        rng: random.Random,
        witness: Witness,
        heard: Callable[[Step], None] = lambda step: None,
    ) -> None:
        """``heard`` is told each step, before the witness looks at it."""
        self.calls = 0
        self.crashes = 0
        self.last: deque[str] = deque(maxlen=REMEMBERED)
        self._url, self._clock, self._policy = url, clock, policy
        self._rng, self._witness, self._heard = rng, witness, heard
        self._clients = [Redis.from_url(url, socket_timeout=None) for _ in range(STORES)]
        self._stores = [RedisStore(client, clock, policy) for client in self._clients]
        self._transitions = _Transitions()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the transitions while it lasts."""
        log = logging.getLogger("admission.transitions")
        level, propagate = log.level, log.propagate
        log.addHandler(self._transitions)
        log.setLevel(logging.INFO)
        log.propagate = False
        try:
            yield
        finally:
            log.removeHandler(self._transitions)
            log.setLevel(level)
            log.propagate = propagate

    async def call(self, name: str, **given: Any) -> Any:
        """Make a call as a network would have it: the outcome, or None when nothing was heard."""
        luck = self._rng.random()
        if luck < NOT_MADE:
            return None
        outcome = await self.surely(name, **given)
        if luck < NOT_MADE + UNHEARD:
            return None
        if luck < NOT_MADE + UNHEARD + TWICE:
            again = await self.surely(name, **given)
            return self._rng.choice((outcome, again))
        if luck < NOT_MADE + UNHEARD + TWICE + CRASH:
            await self.crash()
            return None
        return outcome

    async def surely(self, name: str, **given: Any) -> Any:
        """Make a call and hear its outcome."""
        at = self._rng.randrange(STORES)
        if "user" in given:
            positional = {"user": given["user"]}
            rest = {key: value for key, value in given.items() if key != "user"}
        else:
            positional, rest = {}, given
        outcome = await getattr(self._stores[at], name)(POOL, *positional.values(), **rest)
        self.calls += 1
        step = Step(name, given, outcome, self._transitions.taken())
        self.last.append(f"{self._clock.now_ms()} {step}")
        self._heard(step)
        await self._witness.see(step)
        return outcome

    async def crash(self) -> None:
        """One process dies, and comes back knowing nothing."""
        at = self._rng.randrange(STORES)
        await self._clients[at].aclose()
        self._clients[at] = Redis.from_url(self._url, socket_timeout=None)
        self._stores[at] = RedisStore(self._clients[at], self._clock, self._policy)
        self.crashes += 1

    async def forget_scripts(self) -> None:
        """As a server does that was just made master."""
        await self._clients[0].script_flush()

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
