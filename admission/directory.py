"""Which workers there are, and which pool serves a model: the registry as this process saw it.

A copy, refreshed every second, so that a request costs no extra round trip. With it go out how many
requests this process has running on each worker, and come back those of the other processes. While
Redis is away the last copy stands, and each process counts what it sent itself: the running answers
and ``/v1/models`` go on.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from admission.domain import DEFAULT_POOL, Worker
from admission.errors import StoreUnavailable
from admission.gateway import routing
from admission.gateway.trouble import Trouble
from admission.store.redis_store import RedisStore

REFRESH_S = 1.0
_NOBODY = routing.Fleet()


class Directory:
    """The workers of all pools, and how many requests this process has running on each."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._workers: tuple[Worker, ...] = ()
        self._pools: frozenset[str] = frozenset({DEFAULT_POOL})
        self._request_pools: frozenset[str] = frozenset()
        self._pool_of: dict[str, str] = {}
        self._fleets: dict[str, routing.Fleet] = {}
        self._refreshing = asyncio.Lock()  # what was read earlier never replaces what came later
        self.outstanding: Counter[str] = Counter()
        self.trouble = Trouble()

    async def refresh(self) -> None:
        """Read the registry now, and tell the other processes what runs here.

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
            others = await self._store.traffic.exchange(self.outstanding)
            self._pools = frozenset(pools)
            self._request_pools = frozenset(requests)
            self._take(workers, others)

    def _take(self, workers: Sequence[Worker], others: dict[str, int]) -> None:
        """Make this the copy; ``others``: requests of the other processes on each worker."""
        self._workers = tuple(workers)
        self._pool_of = {model: w.pool for w in reversed(workers) for model in w.models}
        models = {model for worker in workers if worker.ready for model in worker.models}
        self._fleets = {model: routing.fleet(workers, model, others) for model in models}
        known = {worker.worker_id for worker in workers}
        self.trouble.forget(known, asyncio.get_running_loop().time())
        for name in [name for name, count in self.outstanding.items() if not count]:
            del self.outstanding[name]

    async def keep_fresh(self) -> None:
        """Refresh until cancelled; while Redis is away the last copy of the registry stands."""
        while True:
            try:
                await self.refresh()
            except StoreUnavailable:  # the store logged it
                self._take(self._workers, {})  # what others have running is soon no longer true
            await asyncio.sleep(REFRESH_S)

    def has_pool(self, pool: str) -> bool:
        """Whether the pool exists: the default one, or one an admin made."""
        return pool in self._pools

    def is_request_pool(self, pool: str) -> bool:
        """Whether a slot of this pool is held for one request."""
        return pool in self._request_pools

    def pool_of(self, model: str) -> str | None:
        """The pool that serves ``model``, ready at this moment or not; None: not ours."""
        return self._pool_of.get(model)

    def models(self) -> list[str]:
        """Models of the workers that are ready, sorted."""
        return sorted(self._fleets)

    def fleet(self, model: str) -> routing.Fleet:
        """Workers that may get a request for ``model``, and what they run."""
        return self._fleets.get(model, _NOBODY)

    def ready(self, model: str) -> list[Worker]:
        """Workers that may get a request for ``model`` now."""
        return list(self.fleet(model).workers.values())

    def everyone(self) -> list[Worker]:
        """Workers that may get requests now, whatever their models, each once."""
        fleets = self._fleets.values()
        return list({name: w for fleet in fleets for name, w in fleet.workers.items()}.values())

    def count(self) -> dict[str, int]:
        """How many workers there are, and how many are ready."""
        return {"known": len(self._workers), "ready": sum(w.ready for w in self._workers)}
