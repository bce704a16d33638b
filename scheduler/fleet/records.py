"""What the fleet needs of its store and of the registry of workers (``admission.store``)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

from admission.domain import Worker
from admission.instance import Command, Event, Instance, Offer
from admission.store.fence import Fence
from admission.store.fleet_store import Offered


class Records(Protocol):
    """As `admission.store.fleet_store.FleetStore`, which says what each call raises."""

    async def now_ms(self) -> int: ...

    async def instances(self) -> list[Instance]: ...

    async def instance(self, instance_id: str) -> Instance | None: ...

    async def write(
        self, fence: Fence, instance: Instance, read_version: int, events: Sequence[Event]
    ) -> bool: ...

    async def note(self, fence: Fence, events: Sequence[Event]) -> None: ...

    async def offer(self, fence: Fence, provider: str, offers: Sequence[Offer] | None) -> None: ...

    async def offers(self) -> Mapping[str, Offered]: ...

    async def commands(self, count: int) -> list[tuple[str, Command]]: ...

    async def take(
        self,
        fence: Fence,
        entry: str,
        changes: Sequence[tuple[Instance, int]],
        events: Sequence[Event],
    ) -> Literal["taken", "gone", "stale"]: ...


class Workers(Protocol):
    """As `admission.store.redis_store.RedisStore`."""

    async def pools(self) -> Collection[str]: ...

    async def workers(self, pool: str) -> list[Worker]: ...

    async def steer_worker(self, pool: str, worker: str, *, draining: bool, word: int) -> bool: ...

    async def release_worker(self, pool: str, worker: str) -> bool: ...
