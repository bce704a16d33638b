"""A test's time limit (``timeout`` in pyproject.toml) that holds inside an event loop too.

pytest-timeout raises in its alarm's handler what fails a test. Raised while a loop runs it fails
nothing: uvloop logs it and goes on (0.23, ``cbhandles.pyx``), or the task that just ran keeps it
for itself, and the test hangs for good. What ends programs leaves every task and every loop.
"""

import asyncio
import gc
import signal
from collections.abc import Generator
from types import FrameType

import pytest
from _pytest.outcomes import Failed


class TooLong(Failed, SystemExit):
    """A failed test as any other, once it is out of the loop."""


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer() -> Generator[None, object, object]:
    """Change the alarm that was set, so that it gets through. It rings once: behind a failure
    pytest-timeout (2.4) sets none for the teardown."""
    was_set = yield
    fails = signal.getsignal(signal.SIGALRM)
    if not callable(fails):  # a thread keeps the time
        return was_set

    def ring(number: int, frame: FrameType | None) -> None:
        # The task that an alarm ended before tells so when it is collected; were that in the midst
        # of this failure's report, CPython 3.11 would take it for an error of its parser.
        gc.collect()
        waiting = _waiting()
        try:
            fails(number, frame)
        except Failed as error:
            raise TooLong("\n".join((str(error), *waiting))) from None

    signal.signal(signal.SIGALRM, ring)
    return was_set


def _waiting() -> list[str]:
    """The tasks of the running loop, and where they are."""
    try:
        return sorted(repr(task) for task in asyncio.all_tasks())
    except RuntimeError:  # no loop runs
        return []
