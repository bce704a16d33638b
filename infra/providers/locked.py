"""A lock that processes and threads of one machine share: a file, held while something is done."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WAIT_S = 5.0  # what is done under it takes milliseconds
_AGAIN_S = 0.02


@contextmanager
def locked(file: Path, within_s: float = WAIT_S) -> Iterator[None]:
    """Wait for it, in a thread.

    Raises:
        BlockingIOError: another still has it after so long.
        OSError: there is no such folder, or it cannot be written.
    """
    give_up = time.monotonic() + within_s
    with file.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise
            time.sleep(_AGAIN_S)
        yield
