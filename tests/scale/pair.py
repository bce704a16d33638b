"""Two instances of the service over one Redis, a balancer in front of them, models behind them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from aiohttp import ClientSession, TCPConnector
from redis.asyncio import Redis

from admission.clock import RedisClock
from admission.domain import DEFAULT_POOL, WorkerReport
from admission.store.redis_store import RedisStore
from tests.api.calls import Caller
from tests.frontends.conftest import Model
from tests.gateway.upstream import Upstream, listening
from tests.scale.balancer import Balancer, balanced
from tests.scale.processes import Admission, admission
from tests.scale.servers import until

SERVICE_KEY = "service-key"
HOLDING = ("draft", "active", "finishing")


class Pair:
    """``call`` goes to both in turn; ``at_victim`` and ``at_survivor`` to the one. The first call
    of each path is the victim's."""

    def __init__(
        self, victim: Admission, survivor: Admission, balancer: Balancer, http: ClientSession
    ) -> None:
        self.victim, self.survivor, self.balancer = victim, survivor, balancer
        self.url = balancer.url
        self.call = Caller(http, balancer.url, SERVICE_KEY)
        self.at_victim = Caller(http, victim.url, SERVICE_KEY)
        self.at_survivor = Caller(http, survivor.url, SERVICE_KEY)
        self.http, self.models = http, list[Model]()

    async def kill_one(self) -> None:
        """As ``kill -9`` does it."""
        self.victim.process.kill()
        await self.victim.process.wait()

    def each_answered(self, begins: str) -> list[str]:
        """Who answered the calls whose method and path begin so, each named once."""
        names = {self.victim.url: "victim", self.survivor.url: "survivor"}
        return sorted({names[url] for url in self.balancer.answered(begins)})

    async def view(self, user: str) -> dict[str, Any]:
        """The user's ticket, as the survivor knows it."""
        seen: dict[str, Any] = (await self.at_survivor("GET", f"/queue/status/{user}")).json
        return seen

    async def counts(self, capacity: int) -> dict[str, int]:
        """The default pool's; never more than ``capacity`` hold a slot."""
        seen: dict[str, int] = (await self.at_survivor("GET", "/queue/metrics")).json
        assert sum(seen[each] for each in HOLDING) <= capacity
        return seen


async def _report(store: RedisStore, workers: Sequence[Upstream]) -> None:
    """That they are ready, again and again: a report is good for 30 s."""
    report = WorkerReport(ready=True, reason=None, models=("tiny",), slots=4)
    while True:
        for worker in workers:
            identity = {"url": worker.url, "kind": "static"}
            await store.report_worker(DEFAULT_POOL, worker.name, report, identity=identity)
        await asyncio.sleep(5)


@asynccontextmanager
async def pair(redis_url: str, *, capacity: int) -> AsyncIterator[Pair]:
    """Both are up, and know two workers that serve the model tiny."""
    async with AsyncExitStack() as stack:
        start = partial(admission, redis_url, MAX_ACTIVE_USERS=str(capacity))
        enter = stack.enter_async_context
        survivor, victim = await asyncio.gather(enter(start()), enter(start()))
        balancer = await enter(balanced(survivor.url, victim.url))
        http = await enter(ClientSession(connector=TCPConnector(limit=0)))
        made = Pair(victim, survivor, balancer, http)
        redis = await enter(Redis.from_url(redis_url))
        store = RedisStore(redis, RedisClock(), None)
        for name in ("w1", "w2"):
            made.models.append(Model(await enter(listening(name))))
        reports = asyncio.create_task(_report(store, [model.upstream for model in made.models]))
        stack.callback(reports.cancel)

        async def known() -> bool:
            told = [await at("GET", "/v1/models") for at in (made.at_victim, made.at_survivor)]
            return all("tiny" in each.text for each in told)

        await until(known, "an instance does not know the workers")
        yield made
