"""What passes while Redis is away: nothing, or with ``VESTIBULE_WHEN_REDIS_AWAY=pass`` a little.

Then nobody knows whose turn it is, so of those who may call at all so many pass at once in this
process, for at most ten minutes. The queue stands still meanwhile and goes on as it stood.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from admission import logs
from admission.errors import StoreUnavailable
from admission.settings import Settings
from admission.store.redis_store import RedisStore

PASS_MS = 600_000  # DESIGN section 7
SILENT_MS = 3000  # the directory asks Redis every second: after so long it need not be asked again

log = logging.getLogger(__name__)


class Away:
    """Decides while Redis does not answer."""

    def __init__(self, store: RedisStore, settings: Settings) -> None:
        self._store = store
        self._most = settings.away_concurrency if settings.when_redis_away == "pass" else 0
        self._running = 0

    def look(self) -> None:
        """Raises StoreUnavailable at once when it is known that Redis is away, and calls pass:
        none of them waits to find out. The first that does is heard again by the directory."""
        if self._most and self._store.silent_ms() > SILENT_MS:
            raise StoreUnavailable

    @contextmanager
    def passing(self) -> Iterator[None]:
        """A block in which one call runs without a turn.

        Raises:
            StoreUnavailable: none may, or not one more.
        """
        if self._running >= self._most or self._store.silent_ms() > PASS_MS:
            raise StoreUnavailable
        if self._running == 0:
            logs.event(log, "passing_without_redis", logging.WARNING)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
