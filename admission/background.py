"""Work that lasts as long as the service: restarted when it fails, ended for certain.

Knows tasks; not what they do.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

AGAIN_S = 1.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def running(name: str, work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """``work`` runs while this is open; should it fail, it is logged and begun again."""
    task = asyncio.create_task(_forever(name, work))
    try:
        yield
    finally:
        # redis-py 8.1 swallows a cancellation that arrives while it connects: asked until it ends.
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.02)


async def _forever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - the outermost place of a task nobody awaits
            log.exception("background_failed work=%s", name)
        await asyncio.sleep(AGAIN_S)
