"""What was used, on its way through Redis: records that wait for SQL, and counts of this month.

The stream is bounded: who drains it may be away for long, and the queue's Redis must not fill up.
Knows bytes and numbers; what they say is the accounting's.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from admission.clock import Clock
from admission.store import names
from admission.store.connection import answering

RECORDS_MAX = 100_000
"""Of some 200 bytes each: about 25 MB."""
_WORD_S = 86_400  # longer than any process repeats itself


class Told(NamedTuple):
    """What one process says of one window, and asks."""

    life_s: int  # how long the window is kept from now
    added: dict[str, int]
    wanted: list[str]


class UsageStore:
    """Raises StoreUnavailable when Redis does not answer."""

    def __init__(self, redis: Redis, clock: Clock, records_max: int = RECORDS_MAX) -> None:
        self._redis = redis
        self._clock = clock
        self.records_max = records_max

    async def append(self, records: Sequence[bytes]) -> int:
        """Keep records for who drains; how many there was room for, the first ones."""
        with answering():
            text = _script("append")
            call: Any = self._redis.eval(text, 1, names.USAGE_KEY, str(self.records_max), *records)
            return int(await call)

    async def oldest(self, count: int) -> list[tuple[bytes, bytes]]:
        """Up to so many records with their ids in the stream, which stay there."""
        with answering():
            entries: Any = await self._redis.xrange(names.USAGE_KEY, count=count)
        return [(entry, fields.get(b"r", b"")) for entry, fields in entries]

    async def forget(self, entries: Sequence[bytes]) -> None:
        """Take records out that are in SQL."""
        with answering():
            await self._redis.xdel(names.USAGE_KEY, *entries)

    async def length(self) -> int:
        """How many records wait."""
        with answering():
            return int(await self._redis.xlen(names.USAGE_KEY))

    async def now_ms(self) -> int:
        """The time by Redis' clock, or by that of the tests."""
        with answering():
            text, given = _script("now", "lib/clock"), str(self._clock.now_ms())
            call: Any = self._redis.eval(text, 1, names.USAGE_KEY, given)
            return int(await call)

    async def exchange(
        self, process: str, number: int, windows: Mapping[str, Told]
    ) -> tuple[int, dict[str, dict[str, int]]]:
        """Add what ``process`` counted and hear what all have, by window and field, and the time
        (ms).

        ``number``: of this word of the process. Said again with the same number it adds nothing.
        """
        keys = [
            names.SPENT_BY_PREFIX + process,
            *(names.SPENT_PREFIX + window for window in windows),
        ]
        said = [msgspec.msgpack.encode(tuple(told)) for told in windows.values()]
        given = (str(self._clock.now_ms()), str(number), str(_WORD_S))
        with answering():
            text = _script("exchange", "lib/clock")
            call: Any = self._redis.eval(text, len(keys), *keys, *given, *said)
            now_ms, counts = await call
        return int(now_ms), {
            window: {
                field: int(count or 0) for field, count in zip(told.wanted, found, strict=True)
            }
            for (window, told), found in zip(windows.items(), counts, strict=True)
        }


@cache
def _script(name: str, *libraries: str) -> str:
    folder = files("admission.store") / "lua"
    return "".join((folder / f"{path}.lua").read_text() for path in (*libraries, f"usage/{name}"))
