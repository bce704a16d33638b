"""One periodic duty: how often, for how long at most, under which lease, and what it does."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from admission import logs
from admission.errors import StoreUnavailable
from admission.store.fence import Fence

RETRY_S = 10.0  # a tick that failed is tried again after its period, and at latest after so long
WORDS_MAX = 200
# What would let its reader in: in an address, a header or a query.
_SECRET = re.compile(r"(?i)(?<=//)[^/@\s]+@|(?<=bearer )\S+|(?<=key|ken|ret|ord|ure)=[^\s&]+")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tick:
    """``run`` gets the lease it runs under, for writes that are fenced by it, and answers in how
    many ms it has more to do, if that is sooner than its period.

    It is idempotent: whoever dies after it was done and before that was told, leaves it to be done
    again. ``lease``: its name in Redis where that is not its own, as for what only some schedulers
    were told to do.
    """

    name: str
    does: str
    period_s: float
    limit_s: float
    run: Callable[[Fence], Awaitable[int | None]]
    lease: str = ""

    @property
    def key(self) -> str:
        return self.lease or self.name

    @property
    def retry_ms(self) -> int:
        return round(min(self.period_s, RETRY_S) * 1000)


@dataclass(frozen=True)
class Run:
    """How a run ended. ``more_ms``: in how many ms it wants to run again, when that is not its
    period; ``error``: why it failed; ``everybody``: so it would anywhere else."""

    more_ms: int | None = None
    error: str | None = None
    everybody: bool = False


async def attempt(tick: Tick, fence: Fence, limit_s: float, bound: asyncio.Timeout) -> Run:
    """Run it once. A failure of whatever class is logged and goes no further.

    Args:
        bound: ends it after ``limit_s``, or sooner when its lease was lost.

    Raises:
        asyncio.CancelledError: who runs it was cancelled.
    """
    period_ms, limit = round(tick.period_s * 1000), bound.when()
    try:
        async with bound:
            more_ms = await tick.run(fence)
        return Run(more_ms if more_ms is not None and more_ms < period_ms else None)
    except StoreUnavailable:
        logs.event(log, "tick_without_store", logging.WARNING, tick=tick.name)
        return Run(tick.retry_ms, "StoreUnavailable: Redis does not answer", everybody=True)
    except TimeoutError as error:
        why = _told(error)
        if bound.expired():
            is_lost = bound.when() != limit
            why = "its lease was lost" if is_lost else f"not done within {limit_s:g} s"
        logs.event(log, "tick_failed", logging.WARNING, tick=tick.name, why=why)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        # A future that somebody else cancelled raises the same, and nobody asked this tick to end.
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            raise
        why = _told(error)
        known = type(error).__module__.startswith(("admission.", "scheduler.", "infra."))
        if known:
            logs.event(log, "tick_failed", logging.WARNING, tick=tick.name, why=why)
        else:
            log.exception("tick_failed tick=%s", tick.name)
    return Run(tick.retry_ms, why)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _told(error: BaseException) -> str:
    """Its class and its words, on one line and without what looks like a secret."""
    text = str(error).encode(errors="replace").decode()  # a file's name may be no Unicode
    words = " ".join(_SECRET.sub("…", text).split())
    name = type(error).__name__
    return f"{name}: {words[:WORDS_MAX]}" if words else name
