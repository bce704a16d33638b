"""How many calls of each user this process keeps open: what waits holds its body in memory."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_more(counts: Counter[str], user: str) -> Iterator[int]:
    """Count one of ``user`` while the block is open; how many there are with it."""
    counts[user] += 1
    try:
        yield counts[user]
    finally:
        counts[user] -= 1
        if not counts[user]:
            del counts[user]
