"""Threads in which SQL is waited for, and nothing else is.

A database that hangs, on a lock or behind a network that swallows packets, holds its thread long
after whoever asked has given up. In the threads that the whole process shares, a minute of that
would stop all who need one: providers, too.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_duties = ThreadPoolExecutor(4, "sql")
_readers = ThreadPoolExecutor(8, "sql-reader")  # an admin's long report delays no duty


async def in_thread(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a duty writes. Who is cancelled while it waits for a thread takes none."""
    return await _in(_duties, partial(step, *args, **kwargs))


async def to_read(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a person asks for."""
    return await _in(_readers, partial(step, *args, **kwargs))


async def _in(threads: ThreadPoolExecutor, step: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, step)
