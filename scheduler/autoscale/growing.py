"""More capacity: drains are taken back, then machines are ordered where it is cheapest."""

import zlib
from collections import Counter

from msgspec import Struct

from scheduler.autoscale.decision import Act, Launch
from scheduler.autoscale.fleet import Fleet, Member
from scheduler.autoscale.memory import Memory
from scheduler.autoscale.places import ON_DEMAND, SPOT, Place, open_places, opens_ms
from scheduler.autoscale.spec import FleetSpec

PREFIX = 32  # of a pool's name, in the names of its instances


class Growth(Struct, frozen=True):
    """``short``: why less is ordered than is wanted; "" when it is not."""

    undrains: tuple[Act, ...] = ()
    launches: tuple[Launch, ...] = ()
    short: str = ""


class Room(Struct):
    """What the bounds still allow; shrinks with each order."""

    workers: int
    budget: float | None
    per_place: Counter[str]
    ondemand: int  # workers that are not spot

    @classmethod
    def of(cls, fleet: Fleet, memory: Memory, spec: FleetSpec, most: int) -> "Room":
        """Everything that is billed, or ordered and not seen yet, takes its part."""
        ours = [member for member in fleet.members or () if member.ours]
        taken = Counter(member.place for member in ours)
        taken.update(pending.place for pending in memory.pending)
        cost = sum(m.price_per_hour for m in ours) + sum(p.price_per_hour for p in memory.pending)
        return cls(
            workers=most - len(ours) - len(memory.pending),
            budget=None if spec.hourly_budget is None else spec.hourly_budget - cost,
            per_place=taken,
            ondemand=sum(m.market != SPOT and m.state != "terminating" for m in ours)
            + sum(pending.market != SPOT for pending in memory.pending),
        )

    def take(self, place: Place) -> None:
        """Order one there."""
        self.workers -= 1
        self.per_place[place.name] += 1
        self.ondemand += place.market == ON_DEMAND
        if self.budget is not None:
            self.budget -= place.price_per_hour


def grow(
    fleet: Fleet,
    memory: Memory,
    spec: FleetSpec,
    now_ms: int,
    *,
    slots: int,
    workers: int,
    most: int,
    reason: str,
) -> Growth:
    """``slots`` and ``workers`` more than are ready, loading and ordered, or as many as may be."""
    undrains = []
    for member in sorted(fleet.members or (), key=_usefulness, reverse=True):
        if (slots > 0 or workers > 0) and _comes_back(member, spec, now_ms):
            undrains.append(Act(member.id, f"its drain is taken back: {reason}"))
            slots, workers = slots - member.slots, workers - 1
    room = Room.of(fleet, memory, spec, most)
    places = open_places(fleet.places, memory.places, spec, now_ms)
    launches: list[Launch] = []
    short = ""
    while (slots > 0 or workers > 0) and not short:
        place = _best(places, room, spec)
        if room.workers <= 0:
            short = f"{most} workers are the most"
        elif place is None:
            short = _nowhere(fleet, memory, places, now_ms)
        else:
            launches.append(Launch(_name(spec.pool, now_ms, len(launches)), place, reason))
            room.take(place)
            slots, workers = slots - place.slots, workers - 1
    return Growth(tuple(undrains), tuple(launches), short)


def _best(places: list[Place], room: Room, spec: FleetSpec) -> Place | None:
    """The cheapest slot among the open places with room; on-demand while their base is not met."""
    if room.ondemand < spec.ondemand_base:
        places = [place for place in places if place.market != SPOT]
    for place in places:
        fits = room.budget is None or place.price_per_hour <= room.budget
        if fits and (place.quota is None or room.per_place[place.name] < place.quota):
            return place
    return None


def _nowhere(fleet: Fleet, memory: Memory, places: list[Place], now_ms: int) -> str:
    if places:
        return "neither budget nor quota has room"
    opens = opens_ms(memory.places, fleet.places, now_ms)
    if opens is None:
        return "there is no place to order at"
    return f"all places failed; the first opens again in {(opens - now_ms) / 1000:.0f} s"


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
