"""Which pools and workers there are, as they were read last.

A copy, so that a call costs no extra round trip for it: the service renews it every second
(``directory``), a function at its invocations (``functions``).
"""

import asyncio

from admission.domain import DEFAULT_POOL, PoolPolicy, Worker
from admission.store.redis_store import RedisStore


class Roster:
    """The pools, and their workers with the models they serve."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._workers: tuple[Worker, ...] = ()
        self._policies: dict[str, PoolPolicy] = {DEFAULT_POOL: PoolPolicy()}
        self._request_pools: frozenset[str] = frozenset()
        self._pool_of: dict[str, str] = {}
        self._refreshing = asyncio.Lock()  # what was read earlier never replaces what came later

    async def refresh(self) -> None:
        """Read the registry now.

        Raises:
            StoreUnavailable: the last copy stands.
        """
        async with self._refreshing:
            await self._read()

    async def _read(self) -> None:
        workers: list[Worker] = []
        policies = {}
        for pool in await self._store.pools():
            workers += await self._store.workers(pool)
            policies[pool] = await self._store.policy(pool)
        self._workers, self._policies = tuple(workers), policies
        self._request_pools = frozenset(p for p, it in policies.items() if it.kind == "request")
        self._pool_of = {model: w.pool for w in reversed(workers) for model in w.models}

    def has_pool(self, pool: str) -> bool:
        """Whether the pool exists: the default one, or one an admin made."""
        return pool in self._policies

    def policy(self, pool: str) -> PoolPolicy:
        """What the pool allows; of one that is not there (any more), what pools do by default."""
        return self._policies.get(pool) or self._policies[DEFAULT_POOL]

    def is_request_pool(self, pool: str) -> bool:
        """Whether a slot of this pool is held for one request."""
        return pool in self._request_pools

    def pool_of(self, model: str) -> str | None:
        """The pool that serves ``model``, ready at this moment or not; None: not ours."""
        return self._pool_of.get(model)

    def count(self) -> dict[str, int]:
        """How many workers there are, and how many are ready."""
        return {"known": len(self._workers), "ready": sum(w.ready for w in self._workers)}
