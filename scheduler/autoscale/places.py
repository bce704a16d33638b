"""Where a machine may be ordered: by price, spot before on-demand, and not where it just failed.

A place is (provider, type, zone, market). Each has a budget of failures; a place that has spent it
is closed for a time that doubles with each further failure. A machine that became ready there opens
it again and gives the budget back.
"""

from collections.abc import Collection, Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from scheduler.autoscale.spec import FleetSpec

ON_DEMAND, SPOT = "on-demand", "spot"


class Place(Struct, frozen=True, kw_only=True):
    """Something that may be ordered. ``slots``: of the pool, that one such worker gives, >= 1.

    ``price_per_hour`` >= 0. ``quota``: machines of ours that may be there at once; None: no bound.
    ``told_ms``: when its provider offered it; None: it always does.
    """

    provider: str
    type: str = ""
    zone: str = ""
    market: str = ON_DEMAND
    price_per_hour: float = 0.0
    slots: int = 1
    quota: int | None = None
    told_ms: int | None = None

    def is_old(self, spec: FleetSpec, now_ms: int) -> bool:
        """Whether that was too long ago to be ordered."""
        return self.told_ms is not None and now_ms - self.told_ms > spec.offers_stale_ms

    @property
    def name(self) -> str:
        """As it is remembered and shown."""
        return "/".join((self.provider, self.type, self.zone, self.market))

    @property
    def price_per_slot(self) -> float:
        """What one slot costs in an hour."""
        return self.price_per_hour / self.slots


class Failure(Struct, frozen=True):
    """A machine that was refused, never became ready, or was taken back, at this place."""

    place: str
    at_ms: int
    id: str = ""  # the machine's: it counts once, though it goes on to its end


class Record(Struct, frozen=True):
    """What is remembered of a place. ``failures``: since a machine last became ready there."""

    place: str
    failures: int = 0
    last_ms: int = 0  # the newest failure that is counted
    closed_until_ms: int = 0
    counted: tuple[str, ...] = ()  # ids of those whose failure is known, while they are shown


def learn(
    records: Sequence[Record],
    failures: Collection[Failure],
    good: Iterable[tuple[str, int]],
    spec: FleetSpec,
    now_ms: int,
) -> tuple[Record, ...]:
    """The records after what happened; each failure counts once. ``good``: (place, when a machine
    became ready there)."""
    known = {record.place: record for record in records}
    for place, ready_ms in good:
        old = known.get(place)
        if old and old.failures and ready_ms > old.last_ms:
            known[place] = replace(old, failures=0, closed_until_ms=0)
    for failure in sorted(failures, key=lambda each: (each.at_ms, each.place)):
        old = known.get(failure.place, Record(failure.place))
        recent = now_ms - failure.at_ms < spec.cooldown_most_ms
        new = failure.id not in old.counted if failure.id else failure.at_ms > old.last_ms
        if recent and new:
            known[failure.place] = _failed(old, failure, spec)
    shown = {failure.id for failure in failures}
    for place, record in known.items():
        known[place] = replace(record, counted=tuple(i for i in record.counted if i in shown))
    kept = [record for record in known.values() if now_ms - record.last_ms < 2 * DAY_MS]
    return tuple(sorted(kept, key=lambda record: record.place))


DAY_MS = 86_400_000


def _failed(old: Record, failure: Failure, spec: FleetSpec) -> Record:
    failures, at_ms = old.failures + 1, failure.at_ms
    beyond = failures - spec.failures_most
    closed = old.closed_until_ms
    if beyond > 0:
        # The exponent is bounded: 2 ** 30 times a second is 34 years.
        closed = at_ms + min(spec.cooldown_most_ms, spec.cooldown_ms * 2 ** min(beyond - 1, 30))
    counted = (*old.counted, failure.id) if failure.id else old.counted
    return Record(old.place, failures, max(at_ms, old.last_ms), closed, counted)


def open_places(
    places: Iterable[Place], records: Sequence[Record], spec: FleetSpec, now_ms: int
) -> list[Place]:
    """Those that may be tried now, best first: by price of a slot, then by name."""
    closed = {record.place for record in records if record.closed_until_ms > now_ms}
    wanted = [p for p in places if p.name not in closed and not p.is_old(spec, now_ms)]
    return sorted(wanted, key=lambda place: (place.price_per_slot, place.name))


def opens_ms(records: Sequence[Record], places: Iterable[Place], now_ms: int) -> int | None:
    """When the first closed one of these places opens again; None when none is closed."""
    names = {place.name for place in places}
    return min(
        (r.closed_until_ms for r in records if r.place in names and r.closed_until_ms > now_ms),
        default=None,
    )
