"""Which workers there are, and which pool serves a model: the registry as this process saw it.

A copy, refreshed every second, so that a request costs no extra round trip. While Redis is away
the last copy stands: the running answers and ``/v1/models`` go on.
"""

import asyncio
from collections import Counter
from contextlib import suppress

from admission.domain import DEFAULT_POOL, Worker
from admission.errors import StoreUnavailable
from admission.store.redis_store import RedisStore

REFRESH_S = 1.0


class Directory:
    """The workers of all pools, and how many requests this process has running on each."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._workers: tuple[Worker, ...] = ()
        self._pools: frozenset[str] = frozenset({DEFAULT_POOL})
        self._request_pools: frozenset[str] = frozenset()
        self._refreshing = asyncio.Lock()  # what was read earlier never replaces what came later
        self.outstanding: Counter[str] = Counter()

    async def refresh(self) -> None:
        """Read the registry now.

        Raises:
            StoreUnavailable: the last copy stands.
        """
        async with self._refreshing:
            pools = await self._store.pools()
            workers: list[Worker] = []
            requests = set()
            for pool in pools:
                workers += await self._store.workers(pool)
                if await self._store.kind(pool) == "request":
                    requests.add(pool)
            self._pools, self._workers = frozenset(pools), tuple(workers)
            self._request_pools = frozenset(requests)

    async def keep_fresh(self) -> None:
        """Refresh until cancelled; while Redis is away the last copy stands."""
        while True:
            with suppress(StoreUnavailable):  # the store logged it
                await self.refresh()
            await asyncio.sleep(REFRESH_S)

    def has_pool(self, pool: str) -> bool:
        """Whether the pool exists: the default one, or one an admin made."""
        return pool in self._pools

    def is_request_pool(self, pool: str) -> bool:
        """Whether a slot of this pool is held for one request."""
        return pool in self._request_pools

    def pool_of(self, model: str) -> str | None:
        """The pool that serves ``model``, ready at this moment or not; None: not ours."""
        pools = (worker.pool for worker in self._workers if model in worker.models)
        return next(pools, None)

    def models(self) -> list[str]:
        """Models of the workers that are ready, sorted."""
        return sorted(
            {model for worker in self._workers if worker.ready for model in worker.models}
        )

    def ready(self, model: str) -> list[Worker]:
        """Workers that may get a request for ``model`` now."""
        return [w for w in self._workers if w.ready and model in w.models]

    def count(self) -> dict[str, int]:
        """How many workers there are, and how many are ready."""
        return {"known": len(self._workers), "ready": sum(w.ready for w in self._workers)}
