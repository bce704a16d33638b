"""What is kept between two decisions: learnt rates, what was wanted lately, places that failed.

Whoever restores it from an older time gets only what stays true: how long machines boot and slots
are held, and which places are closed. The rest begins anew, and nothing is drained before it has
been watched for as long as the knobs say.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from scheduler.autoscale.demand import Demand
from scheduler.autoscale.fleet import Fleet, Member
from scheduler.autoscale.places import Record, learn
from scheduler.autoscale.spec import FleetSpec
from scheduler.autoscale.traffic import Traffic

VERSION = 1
BUCKETS = 20  # into which the span is cut over which a peak is kept
NEW = 0.25  # what one more boot weighs


class Boot(Struct, frozen=True):
    """How long machines take from order to ready: mean and mean deviation (as TCP learns round
    trips, RFC 6298)."""

    mean_ms: float | None = None
    deviation_ms: float = 0.0
    last_ready_ms: int = 0  # the newest that is learnt from

    def after(self, members: Iterable[Member]) -> "Boot":
        """With those that became ready since."""
        boot = self
        new = [m for m in members if m.ours and m.ready_ms and m.ready_ms > self.last_ready_ms]
        for member in sorted(new, key=lambda each: (each.ready_ms or 0, each.id)):
            boot = boot._with((member.ready_ms or 0) - member.requested_ms, member.ready_ms or 0)
        return boot

    def _with(self, took_ms: int, ready_ms: int) -> "Boot":
        if self.mean_ms is None:
            return Boot(took_ms, took_ms / 4, ready_ms)
        off = took_ms - self.mean_ms
        deviation = self.deviation_ms + NEW * (abs(off) - self.deviation_ms)
        return Boot(self.mean_ms + NEW * off, deviation, ready_ms)


class Peak(Struct, frozen=True):
    """The most slots that were wanted in a span that began at ``from_ms``."""

    from_ms: int
    slots: int


class Pending(Struct, frozen=True):
    """An order that the fleet does not show yet."""

    id: str
    place: str
    market: str
    slots: int
    price_per_hour: float
    at_ms: int


class Memory(Struct, frozen=True, kw_only=True):
    """One pool's. Instants in ms; None: not the case, or not known."""

    version: int = VERSION
    at_ms: int | None = None  # of the last decision that was no hold
    since_ms: int | None = None  # watched since then without a gap
    traffic: Traffic = Traffic()
    boot: Boot = Boot()
    places: tuple[Record, ...] = ()
    pending: tuple[Pending, ...] = ()
    peaks: tuple[Peak, ...] = ()
    late_since_ms: int | None = None  # the estimated wait is over its target, or not known
    full_since_ms: int | None = None  # the slots in use are over the saturation
    short_since_ms: int | None = None  # more is wanted than there is
    idle_since_ms: int | None = None  # the GPUs' load is under ``idle_load``
    panic_until_ms: int = 0
    slump_ms: int | None = None  # the newest sign that far fewer come than did
    present_ms: int | None = None  # somebody waited or held a slot

    def dump(self) -> bytes:
        """As JSON, for ``load``."""
        return msgspec.json.encode(self)

    @classmethod
    def load(cls, data: bytes | None) -> "Memory":
        """What ``dump`` gave; anything else, also of another version, is an empty memory."""
        try:
            memory = msgspec.json.decode(data or b"", type=cls)
        except msgspec.DecodeError:
            return cls()
        return memory if memory.version == VERSION else cls()

    def seen(self, demand: Demand, fleet: Fleet, spec: FleetSpec, now_ms: int) -> "Memory":
        """After one more look at everything."""
        members = fleet.members or ()
        memory = self if self._follows(spec, now_ms) else self._lasting()
        traffic = memory.traffic.heard(demand, spec, now_ms)
        late = bool(demand.waiting)
        if demand.wait_ms is not None:
            late = demand.wait_ms > spec.target_ms(demand.session_ms)
        full = traffic.busy is not None and traffic.busy >= spec.saturation * (demand.capacity or 0)
        full = full and bool(demand.capacity)
        load = gpu_load(members)
        # Who came and went since the last look was there too; and who knows nothing takes it that
        # somebody was there a moment ago.
        came = (demand.arrived_total or 0) > (memory.traffic.arrived_total or 0)
        present = bool(demand.waiting or demand.in_use or came) or memory.present_ms is None
        panic_until_ms = now_ms + spec.panic_hold_ms
        good = [(m.place, m.ready_ms) for m in members if m.ready_ms]
        return replace(
            memory,
            at_ms=now_ms,
            since_ms=now_ms if memory.since_ms is None else memory.since_ms,
            traffic=traffic,
            boot=memory.boot.after(members),
            places=learn(memory.places, fleet.failures, good, spec, now_ms),
            pending=_unseen(memory.pending, fleet, spec, now_ms),
            late_since_ms=_since(memory.late_since_ms, late, now_ms),
            full_since_ms=_since(memory.full_since_ms, full, now_ms),
            idle_since_ms=_since(memory.idle_since_ms, idle(load, spec), now_ms),
            panic_until_ms=panic_until_ms if traffic.change > 0 else memory.panic_until_ms,
            slump_ms=now_ms if traffic.change < 0 else memory.slump_ms,
            present_ms=now_ms if present else memory.present_ms,
        )

    def wanted(
        self, slots: int, steady: int, supply: int, spec: FleetSpec, now_ms: int
    ) -> "Memory":
        """After ``slots`` were found to be wanted, whether or not they may be had, ``steady`` of
        them to stay, where ``supply`` are there or coming."""
        width = max(1, spec.surplus_after_ms // BUCKETS)
        start = now_ms // width * width
        peaks = [p for p in self.peaks if p.from_ms > now_ms - spec.surplus_after_ms - width]
        again = bool(peaks) and peaks[-1].from_ms == start
        most = max(steady, peaks.pop().slots) if again else steady
        return replace(
            self,
            peaks=(*peaks, Peak(start, most)),
            short_since_ms=_since(self.short_since_ms, slots > supply, now_ms),
        )

    def peak(self, span_ms: int, spec: FleetSpec, now_ms: int) -> int:
        """The most slots that were wanted within the last ``span_ms``."""
        width = max(1, spec.surplus_after_ms // BUCKETS)
        return max((p.slots for p in self.peaks if p.from_ms + width > now_ms - span_ms), default=0)

    def deserted(self, spec: FleetSpec, now_ms: int) -> bool:
        """Whether nobody was there for so long that the last worker may go."""
        return self.present_ms is not None and now_ms - self.present_ms >= max(
            1, spec.zero_after_ms
        )

    def boot_ms(self, spec: FleetSpec) -> float:
        """How long an order made now is expected to take, rather too long than too short; at least
        a second, also when a clock went back between an order and its end."""
        if self.boot.mean_ms is None:
            return float(spec.boot_ms)
        return max(1000.0, self.boot.mean_ms + self.boot.deviation_ms)

    def _follows(self, spec: FleetSpec, now_ms: int) -> bool:
        return self.at_ms is not None and 0 <= now_ms - self.at_ms <= spec.gap_ms

    def _lasting(self) -> "Memory":
        return Memory(
            traffic=Traffic(held_ms=self.traffic.held_ms),
            boot=self.boot,
            places=self.places,
            pending=self.pending,
            present_ms=self.present_ms,
        )


def gpu_load(members: Iterable[Member]) -> float | None:
    """The mean load of the ready workers' GPUs, by slots; None unless all are known."""
    ready = [member for member in members if member.state == "ready"]
    slots = sum(member.slots for member in ready)
    if not slots or any(member.gpu_load is None for member in ready):
        return None
    return sum((member.gpu_load or 0) * member.slots for member in ready) / slots


def idle(load: float | None, spec: FleetSpec) -> bool:
    """Whether the GPUs have next to nothing to do; always, where they are not to be asked."""
    return spec.idle_load is None or (load is not None and load < spec.idle_load)


def _since(before: int | None, holds: bool, now_ms: int) -> int | None:
    if not holds:
        return None
    return now_ms if before is None else before


def _unseen(
    pending: Iterable[Pending], fleet: Fleet, spec: FleetSpec, now_ms: int
) -> tuple[Pending, ...]:
    """Orders that a view made after them would show; an old one came to nothing."""
    known = {member.id for member in fleet.members or ()}
    return tuple(
        each for each in pending if each.id not in known and now_ms - each.at_ms <= spec.stale_ms
    )
