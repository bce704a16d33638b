"""Work that is not broken off: what a call makes must be known to whoever takes it away."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which goes on to its end also when this is cancelled.

    Raises:
        asyncio.CancelledError: it was, and the work is done.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        task.exception()  # nobody is left to hear of it
        raise
