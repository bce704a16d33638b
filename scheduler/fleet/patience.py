"""How a provider is asked: each call for a bounded time, and less often when it does not answer.

A provider that throttles is left alone by all for a while; an instance about which it gave no
answer is asked about later and later. Kept in this process: another scheduler finds out for itself.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from admission import logs
from scheduler.fleet.port import Refused, Unclear
from scheduler.fleet.steps import Blind

CALL_S = 60.0  # one bounded step of a provider takes seconds; an SSH installation's the longest
FIRST_S, LAST_S = 2.0, 60.0  # between two calls without an answer; it doubles in between
FORGOTTEN_MS = 600_000  # after it might be asked again: much longer than anything waits for that

T = TypeVar("T")

log = logging.getLogger(__name__)


class Patience:
    """For one provider. ``now_ms`` tells the time."""

    def __init__(self, name: str, now_ms: Callable[[], int], rng: random.Random) -> None:
        self._name, self._now_ms, self._rng = name, now_ms, rng
        self._throttled = 0
        self._open_ms = 0
        self._failures: dict[str, tuple[int, int]] = {}  # of whom: how many, and not before

    def closed(self, about: str) -> Blind | None:
        """Why nothing may be asked about ``about`` now."""
        not_before_ms = max(self._open_ms, self._failures.get(about, (0, 0))[1])
        if not_before_ms <= self._now_ms():
            return None
        return Blind(f"the provider {self._name} is asked again in a while")

    async def ask(self, about: str, call: Callable[[], Awaitable[T]]) -> T | Blind:
        """Its answer, or why there is none.

        Raises:
            Refused: it was asked to launch or to install something.
        """
        if closed := self.closed(about):
            return closed
        try:
            async with asyncio.timeout(CALL_S):
                answer = await call()
        except Refused:
            self._well(about)
            raise
        except Unclear as error:
            return self._unclear(about, error)
        except TimeoutError:
            return self._unclear(about, Unclear(f"no answer within {CALL_S:g} s"))
        except Exception as error:
            log.exception("provider_failed provider=%s", self._name)
            return self._unclear(about, Unclear(type(error).__name__))
        self._well(about)
        return answer

    def _well(self, about: str) -> None:
        self._throttled = 0
        self._failures.pop(about, None)

    def _unclear(self, about: str, error: Unclear) -> Blind:
        why = str(error)
        logs.event(log, "provider_unclear", provider=self._name, about=about, why=why)
        if error.throttled:
            wait_s = error.retry_after_s or self._wait_s(self._throttled)
            self._throttled += 1
            self._open_ms = self._now_ms() + round(wait_s * 1000)
        else:
            times = self._failures.get(about, (0, 0))[0]
            not_before_ms = self._now_ms() + round(self._wait_s(times) * 1000)
            self._forget()
            self._failures[about] = (times + 1, not_before_ms)
        return Blind(why)

    def _forget(self) -> None:
        """What nobody asks about any more: an ended machine, a disk that is gone."""
        over_ms = self._now_ms() - FORGOTTEN_MS
        self._failures = {who: each for who, each in self._failures.items() if each[1] > over_ms}

    def _wait_s(self, times: int) -> float:
        """With jitter: what was refused together must not come again together."""
        return min(LAST_S, FIRST_S * 2.0 ** min(times, 10)) * self._rng.uniform(0.5, 1.0)
