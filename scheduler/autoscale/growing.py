"""More capacity: drains are taken back, then machines are ordered where it is cheapest."""

import zlib
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from admission.decided import Short
from scheduler.autoscale.decision import Act, Launch, Why
from scheduler.autoscale.fleet import Fleet, Member
from scheduler.autoscale.memory import Memory
from scheduler.autoscale.places import ON_DEMAND, SPOT, Place, open_places, opens_ms
from scheduler.autoscale.spec import FleetSpec

PREFIX = 32  # of a pool's name, in the names of its instances
LAUNCHES_MAX = 50  # of one decision; the next one is seconds later
MINUTE_MS = 60_000


class Growth(Struct, frozen=True):
    """``short``: why less is ordered than is wanted; None when it is not."""

    undrains: tuple[Act, ...] = ()
    launches: tuple[Launch, ...] = ()
    short: Why | None = None


class Lack(Struct):
    """What is still to be had: slots and workers beside those that are ready, loading and ordered.

    ``usable``: of those slots, how many the pool could ever grant, which is ``slots_most`` in all;
    None: all of them. A worker that a bound asks for is to be there whether or not it brings any.
    """

    slots: int
    workers: int
    slots_most: int | None = None
    usable: int | None = None

    @property
    def is_met(self) -> bool:
        """Nothing is."""
        return self.slots <= 0 and self.workers <= 0

    @property
    def is_useless(self) -> bool:
        """More slots could not be used."""
        return self.workers <= 0 and self.usable is not None and self.usable <= 0

    def met_by(self, slots: int) -> None:
        """One more worker is had, with so many slots."""
        self.slots -= slots
        self.workers -= 1
        if self.usable is not None:
            self.usable -= slots


class Room(Struct):
    """What the bounds still allow; shrinks with each order."""

    workers: int
    budget: float | None
    per_place: Counter[str]
    per_provider: dict[str, int | None]  # machines more
    ondemand: int  # workers that are not spot

    @classmethod
    def of(cls, fleet: Fleet, memory: Memory, spec: FleetSpec, most: int) -> "Room":
        """Everything that is billed, or ordered and not seen yet, takes its part."""
        ours = [member for member in fleet.members or () if member.ours]
        taken = Counter(member.place for member in ours)
        taken.update(pending.place for pending in memory.pending)
        cost = sum(m.price_per_hour for m in ours) + sum(p.price_per_hour for p in memory.pending)
        unseen = Counter(pending.place.partition("/")[0] for pending in memory.pending)
        return cls(
            workers=most - len(ours) - len(memory.pending),
            budget=None if spec.hourly_budget is None else spec.hourly_budget - cost,
            per_place=taken,
            per_provider={
                name: None if room is None else room - unseen[name]
                for name, room in fleet.rooms.items()
            },
            ondemand=sum(m.market != SPOT and m.state != "terminating" for m in ours)
            + sum(pending.market != SPOT for pending in memory.pending),
        )

    def suits(self, place: Place, spec: FleetSpec) -> bool:
        """Whether the market there is one that may be ordered now: on-demand while their base is
        not met, spot where it is used at all."""
        return place.market != SPOT or (spec.spot and self.ondemand >= spec.ondemand_base)

    def holds(self, place: Place) -> bool:
        """Whether place and provider may have one more."""
        left = self.per_provider.get(place.provider)
        has_left = left is None or left > 0
        return has_left and (place.quota is None or self.per_place[place.name] < place.quota)

    def affords(self, place: Place) -> bool:
        """Whether the budget has room for one there."""
        return self.budget is None or place.price_per_hour <= self.budget

    def take(self, place: Place) -> None:
        """Order one there."""
        self.workers -= 1
        self.per_place[place.name] += 1
        left = self.per_provider.get(place.provider)
        if left is not None:
            self.per_provider[place.provider] = left - 1
        self.ondemand += place.market == ON_DEMAND
        if self.budget is not None:
            self.budget -= place.price_per_hour


def grow(
    fleet: Fleet,
    memory: Memory,
    spec: FleetSpec,
    now_ms: int,
    *,
    lack: Lack,
    most: int,
    reason: str,
) -> Growth:
    """What is lacking, or as much of it as may be."""
    undrains = []
    for member in sorted(fleet.members or (), key=_usefulness, reverse=True):
        wanted = not lack.is_met and not lack.is_useless
        if wanted and _comes_back(member, spec, now_ms):
            undrains.append(Act(member.id, f"its drain is taken back: {reason}"))
            lack.met_by(member.slots)
    room = Room.of(fleet, memory, spec, most)
    open_ = open_places(fleet.places, memory.places, spec, now_ms)
    launches: list[Launch] = []
    short = None
    while not lack.is_met and not short and len(launches) < LAUNCHES_MAX:
        places = [place for place in open_ if room.suits(place, spec)]
        place = next((p for p in places if room.holds(p) and room.affords(p)), None)
        if lack.is_useless:
            words = f"MAX_ACTIVE_USERS lets no more than {lack.slots_most} slots be used"
            short = Why(Short.SLOTS_MOST, words)
        elif room.workers <= 0:
            short = Why(Short.WORKERS_MAX, f"{most} workers are the most")
        elif place is None:
            short = _full(places, room, spec) or _nowhere(fleet, memory, room, spec, now_ms)
        else:
            launches.append(Launch(_name(spec.pool, now_ms, len(launches)), place, reason))
            room.take(place)
            lack.met_by(place.slots)
    return Growth(tuple(undrains), tuple(launches), short)


def _full(places: Sequence[Place], room: Room, spec: FleetSpec) -> Why | None:
    """Why none of the places that are open may be used; None where none is open."""
    if not places:
        return None
    free = [place for place in places if room.holds(place)]
    if not free:
        names = ", ".join(sorted({place.provider for place in places}))
        return Why(Short.QUOTA, f"{names} may have no more machines")
    least = min(place.price_per_hour for place in free)
    words = f"the budget of {spec.hourly_budget:g} an hour has no room for {least:g} more"
    return Why(Short.BUDGET, words)


def _nowhere(fleet: Fleet, memory: Memory, room: Room, spec: FleetSpec, now_ms: int) -> Why:
    """Why no place is open."""
    wanted = [place for place in fleet.places if room.suits(place, spec)]
    old: dict[str, int] = {
        place.provider: now_ms - (place.told_ms or 0)
        for place in wanted
        if place.is_old(spec, now_ms)
    }
    words = [f"the offers of {name} are {ms // MINUTE_MS} minutes old" for name, ms in old.items()]
    opens = opens_ms(memory.places, [p for p in wanted if p.provider not in old], now_ms)
    if opens is not None:
        closed = f"all places failed; the first opens again in {(opens - now_ms) / 1000:.0f} s"
        return Why(Short.PLACES_CLOSED, ", and ".join((closed, *words)))
    if words:
        return Why(Short.OFFERS_OLD, " and ".join(words))
    if fleet.places:
        return Why(Short.NO_PLACE, "only spot machines are offered")
    return Why(Short.NO_PLACE, "there is no place to order at")


def _comes_back(member: Member, spec: FleetSpec, now_ms: int) -> bool:
    heard = member.heard_ms is not None and now_ms - member.heard_ms <= spec.stale_ms
    in_time = member.drain_by_ms is None or member.drain_by_ms > now_ms
    draining = member.state == "draining" and member.ours and member.ends_ms is None
    return draining and heard and in_time


def _usefulness(member: Member) -> tuple[float, int, str]:
    return (-member.price_per_hour / max(1, member.slots), member.in_use or 0, member.id)


def _name(pool: str, now_ms: int, number: int) -> str:
    """The same for the same decision, another for every other: `admission.instance.INSTANCE_ID`."""
    short = pool[:PREFIX].strip("-") or "pool"
    if short != pool:
        short += f"-{zlib.crc32(pool.encode()):x}"
    return f"{short}-{now_ms:x}-{number}"
