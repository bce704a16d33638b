"""The workers that may get requests, and what they run: the roster as the gateway routes by it.

Refreshed every second. With it go out how many requests this process has running on each worker,
and come back those of the other processes. While Redis is away the last copy stands, and each
process counts what it sent itself: the running answers and ``/v1/models`` go on.
"""

import asyncio
from collections import Counter

from admission.domain import Worker
from admission.errors import StoreUnavailable
from admission.gateway import routing
from admission.gateway.trouble import Trouble
from admission.roster import Roster
from admission.store.redis_store import RedisStore

REFRESH_S = 1.0
_NOBODY = routing.Fleet()


class Directory(Roster):
    """The workers of all pools, and how many requests this process has running on each."""

    def __init__(self, store: RedisStore) -> None:
        super().__init__(store)
        self._fleets: dict[str, routing.Fleet] = {}
        self.outstanding: Counter[str] = Counter()
        self.trouble = Trouble()

    async def _read(self) -> None:
        others = await self._store.traffic.exchange(self.outstanding)
        await super()._read()
        self._route(others)

    def _route(self, others: dict[str, int]) -> None:
        """``others``: requests of the other processes on each worker."""
        workers = self._workers
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
                self._route({})  # what others have running is soon no longer true
            await asyncio.sleep(REFRESH_S)

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
