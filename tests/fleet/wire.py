"""A scheduler's process, and the wires between it and everything: it may end or sleep at any call.

A process that ends forgets all; one that sleeps wakes later and goes on where it was, with a lease
that somebody else holds by then.
"""

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from admission.errors import StoreUnavailable

OTHERS_FIRST = 0.2  # of all calls let another task go first


class Crash(BaseException):
    """The process is no more."""


@dataclass
class Rates:
    """How often, of all calls."""

    crash: float = 0.0
    sleep: float = 0.0
    lost: float = 0.0  # of the store: done or not, and no reply


class Process:
    """One scheduler as long as it lives."""

    def __init__(self, rng: random.Random, rates: Rates) -> None:
        self.rng, self.rates = rng, rates
        self.asleep: asyncio.Future[None] | None = None
        self.fell_asleep = asyncio.Event()
        self.dead = False

    async def point(self, *, of_store: bool) -> None:
        """Between any two steps something may happen."""
        if self.rng.random() < OTHERS_FIRST:
            await asyncio.sleep(0)
        while self.asleep is not None:
            await asyncio.shield(self.asleep)
        if self.dead:
            raise Crash
        rates, luck = self.rates, self.rng.random()
        if luck < rates.crash:
            self.dead = True
            raise Crash
        if luck < rates.crash + rates.sleep:
            self.asleep = asyncio.get_running_loop().create_future()
            self.fell_asleep.set()
            await asyncio.shield(self.asleep)
        elif of_store and luck < rates.crash + rates.sleep + rates.lost:
            raise StoreUnavailable

    def wake(self) -> None:
        """It goes on as if nothing had been."""
        if self.asleep is not None:
            self.asleep.set_result(None)
        self.asleep = None
        self.fell_asleep.clear()


class Wire:
    """What a process holds instead of the thing itself."""

    def __init__(self, inner: Any, process: Process, *, of_store: bool = False) -> None:
        self._inner, self._process, self._of_store = inner, process, of_store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if inspect.iscoroutinefunction(found):
            found = self._through(found)
        setattr(self, name, found)
        return found

    def _through(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def made(*args: Any, **given: Any) -> Any:
            await self._process.point(of_store=self._of_store)
            result = await call(*args, **given)
            await self._process.point(of_store=self._of_store)
            return result

        return made
