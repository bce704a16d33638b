"""The fleet as one decision sees it: the instances of a pool with their workers, and the places."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from admission.domain import Worker
from admission.instance import Instance, Order, State
from scheduler.autoscale.places import ON_DEMAND, Failure, Place

BLAMELESS = frozenset({"VOLUMES_DELETE_PENDING", "TERMINATE_PENDING", "ORPHAN"})
"""Error codes that say nothing of how well a machine can be had at its place."""
SILENT = "no heartbeat"  # a registry's reason: it was ready when it was last heard
LOADING = frozenset({State.PROVISIONING, State.BOOTING})
BILLED = LOADING | {State.READY, State.DRAINING, State.TERMINATING}
FAILED = frozenset({State.PROVISIONING_FAILED, State.STARTUP_FAILED, State.FAILED})


class Member(Struct, frozen=True, kw_only=True):
    """An instance of the pool that is billed or about to be, with its worker where it has one.

    ``slots``: of the pool, that it gives or will give. ``ours``: False for a worker that somebody
    else manages: it is supply, and never ordered, drained or paid for. ``kept``: somebody else
    ordered it: it counts and costs, and theirs is the word to end it. ``usable``: False when its
    worker says that it is not ready, or may not be used: it is no supply.
    """

    id: str
    state: State
    slots: int
    place: str = ""
    market: str = ON_DEMAND
    price_per_hour: float = 0.0
    requested_ms: int = 0
    since_ms: int = 0  # in this state
    ready_ms: int | None = None
    drain_by_ms: int | None = None
    in_use: int | None = None  # slots; None: not known
    gpu_load: float | None = None  # 0 to 1; None: not known, or no GPU
    heard_ms: int | None = None  # its last heartbeat
    ends_ms: int | None = None  # its provider takes it back then
    ours: bool = True
    kept: bool = False
    usable: bool = True
    worker_id: str = ""  # where that is another than ``id``

    @property
    def loading(self) -> bool:
        """Ordered, and not ready yet."""
        return self.state in LOADING


class Fleet(Struct, frozen=True, kw_only=True):
    """All of a pool's instances at ``at_ms``; ``members`` None: they could not be read.

    ``rooms``: machines more that a provider can have at all of its places together; left out or
    None: no bound is known.
    """

    at_ms: int
    members: tuple[Member, ...] | None
    places: tuple[Place, ...] = ()
    failures: tuple[Failure, ...] = ()
    rooms: Mapping[str, int | None] = {}

    @classmethod
    def of(
        cls,
        at_ms: int,
        instances: Iterable[Instance],
        workers: Sequence[Worker],
        places: Iterable[Place],
        *,
        ends_ms: Mapping[str, int] | None = None,
        slots_each: int = 1,
        kept: Collection[str] = (),
        rooms: Mapping[str, int | None] | None = None,
    ) -> "Fleet":
        """From the store's instances and workers of one pool.

        ``slots_each``: of the pool, for each slot of a worker (``sessions_per_slot``).
        ``ends_ms``: instance id -> when its provider takes it back.
        ``kept``: ids of instances that are not to be drained or ended.
        """
        offered = {place.name: place for place in places}
        known = {worker.worker_id: worker for worker in workers}
        all_of_them = list(instances)
        taken_back = ends_ms or {}

        def member(one: Instance) -> Member:
            worker = known.get(one.worker_id or one.id)
            found = _member(one, worker, offered, taken_back.get(one.id), slots_each)
            return replace(found, kept=one.id in kept)

        members = [member(each) for each in all_of_them if each.state in BILLED]
        ids = {each.worker_id or each.id for each in all_of_them}
        members += [_foreign(w, slots_each) for w in workers if w.ready and w.worker_id not in ids]
        failures = [
            Failure(place_of(each.order), each.ended_ms or each.since_ms, each.id)
            for each in all_of_them
            if (each.error_code or each.state in FAILED) and each.error_code not in BLAMELESS
        ]
        return cls(
            at_ms=at_ms,
            members=tuple(sorted(members, key=lambda member: member.id)),
            places=tuple(offered.values()),
            failures=tuple(failures),
            rooms=rooms or {},
        )


def place_of(order: Order) -> str:
    """The name of the place an order went to."""
    return Place(
        provider=order.provider, type=order.type, zone=order.zone, market=order.market
    ).name


def _member(
    instance: Instance,
    worker: Worker | None,
    offered: Mapping[str, Place],
    ends_ms: int | None,
    slots_each: int,
) -> Member:
    order, place = instance.order, place_of(instance.order)
    expected = offered[place].slots if place in offered else slots_each
    return Member(
        id=instance.id,
        state=instance.state,
        slots=worker.slots * slots_each if worker else expected,
        place=place,
        market=order.market,
        price_per_hour=order.price_per_hour or 0.0,
        requested_ms=instance.requested_ms,
        since_ms=instance.since_ms,
        ready_ms=instance.ready_ms,
        drain_by_ms=instance.drain_by_ms,
        in_use=worker.in_flight if worker else None,
        gpu_load=_gpu_load(worker),
        heard_ms=worker.last_seen_ms if worker else None,
        usable=_usable(worker),
        worker_id=instance.worker_id,
        ends_ms=ends_ms,
    )


def _foreign(worker: Worker, slots_each: int) -> Member:
    return Member(
        id=worker.worker_id,
        state=State.READY,
        slots=worker.slots * slots_each,
        in_use=worker.in_flight,
        gpu_load=_gpu_load(worker),
        heard_ms=worker.last_seen_ms,
        ours=False,
    )


def _usable(worker: Worker | None) -> bool:
    """Silence is looked at elsewhere: a registry calls it unready too."""
    if worker is None or worker.ready:
        return True
    return worker.reason == SILENT and not worker.draining


def _gpu_load(worker: Worker | None) -> float | None:
    load = (worker.load or {}).get("gpu_load") if worker else None
    return float(load) if isinstance(load, int | float) else None
