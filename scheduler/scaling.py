"""The autoscaler's ticks: what is known goes in, what is decided becomes commands of the fleet.

A decision is kept together with its commands under the tick's fence, and only then asked for; the
next tick, whoever runs it, asks for them once more. A command's id belongs to its decision, so that
it has its effect once, also when a scheduler dies or sleeps in between.
"""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from admission import fleet_views, logs
from admission.domain import PoolMetrics
from admission.instance import Command, Instance, Kind, Order, State
from admission.store.fence import Fence
from admission.store.fleet_records import UnreadableRecord
from admission.store.fleet_store import Offered
from admission.store.redis_store import RedisStore
from scheduler.autoscale import Decision, Demand, Fleet, FleetSpec, Launch, Memory, Place, decide
from scheduler.autoscale.decision import Act
from scheduler.autoscale.fleet import BILLED, place_of
from scheduler.tick import Tick

SCALE_S = 5.0
LIMIT_S = 30.0
ASKED_BY = "autoscaler"
REASON_MAX = 500  # characters of it in the history
WAITED_MS = 60_000  # commands are taken within a second or two
COMMANDS_MAX = 1_000  # that wait are looked at
LAUNCHES_MAX = 50  # of one decision; the next is five seconds later

_NUMBERS = re.compile(r"[\d.]+")

log = logging.getLogger(__name__)


class Kept(Struct, frozen=True):
    """What is remembered between two ticks: the autoscaler's own memory, what was decided last, and
    which instances drain because it said so: what somebody else drains is theirs."""

    memory: bytes = b""
    commands: tuple[Command, ...] = ()
    drained: frozenset[str] = frozenset()


class Scaling:
    """One pool's.

    Args:
        providers: those where it may order, by name: how many machines each can have, None where
            that is not known.
    """

    def __init__(
        self, store: RedisStore, spec: FleetSpec, providers: Mapping[str, int | None]
    ) -> None:
        self._store, self._spec, self._providers = store, spec, dict(providers)
        self._said = ""

    @property
    def tick(self) -> Tick:
        """For the clockwork."""
        pool = self._spec.pool
        return Tick(
            f"scale-{pool}", f"fits {pool}'s workers to its queue", SCALE_S, LIMIT_S, self.run
        )

    async def run(self, fence: Fence) -> None:
        """Decide once, and ask for it; nothing is decided while what was asked before waits.

        Raises:
            Fenced: another scheduler decides by now.
            StoreUnavailable: nothing was decided, or what was is asked for next time.
        """
        fleet, name = self._store.fleet, f"scale-{self._spec.pool}"
        kept = read_kept(await fleet.memory(name))
        for command in kept.commands:
            await fleet.ask(command)
        waiting = [command for _, command in await fleet.commands(COMMANDS_MAX)]
        metrics = await self._store.metrics(self._spec.pool)
        own = {command.id for command in waiting} & {command.id for command in kept.commands}
        if own:
            if metrics.now_ms - kept.commands[0].at_ms > WAITED_MS:
                why = "nobody takes what was asked of the fleet"
                self._say(Decision(reason=f"hold: {why}", hold=why))
            return
        everybody, offers = await self._instances(waiting), await fleet.offers()
        rooms = rooms_of(self._providers, everybody or ())
        mine = [one for one in everybody or () if one.order.pool == self._spec.pool]
        seen = Fleet(at_ms=metrics.now_ms, members=None)
        if everybody is not None:
            seen = await self._seen(metrics, mine, places_of(offers, rooms, metrics, mine), kept)
        demand, before = Demand.of(metrics), Memory.load(kept.memory)
        decision, memory = decide(demand, seen, self._spec, before, metrics.now_ms)
        decision, memory = within(decision, memory, rooms)
        self._say(decision)
        after = self._after(decision, memory, mine, offers, kept, metrics.now_ms)
        await fleet.remember(fence, name, msgspec.json.encode(after))
        for command in after.commands:
            await fleet.ask(command)
        await self._tell_who_waits(decision)

    async def _instances(self, waiting: Iterable[Command]) -> list[Instance] | None:
        """All there are, with those that were asked for and nobody took yet; None: not all of them
        are known. What waits was read before: what is taken in between is known by then."""
        asked = [one for command in waiting for one in fleet_views.pending_instances(command)]
        try:
            known = await self._store.fleet.instances()
        except UnreadableRecord as error:
            logs.event(log, "scaling_blind", logging.WARNING, why=error)
            return None
        return list({one.id: one for one in (*asked, *known)}.values())

    async def _seen(
        self, metrics: PoolMetrics, mine: list[Instance], places: Iterable[Place], kept: Kept
    ) -> Fleet:
        return Fleet.of(
            metrics.now_ms,
            mine,
            await self._store.workers(self._spec.pool),
            places,
            ends_ms=_ends_ms(mine, kept.drained),
            slots_each=slots_each(metrics),
            kept=[one.id for one in mine if one.asked_by != ASKED_BY],
        )

    def _after(
        self,
        decision: Decision,
        memory: Memory,
        mine: list[Instance],
        offers: Mapping[str, Offered],
        kept: Kept,
        now_ms: int,
    ) -> Kept:
        if decision.hold:
            return Kept(memory.dump(), (), kept.drained)
        commands = tuple(commands_of(decision, mine, offers, self._spec.pool, now_ms))
        began = {one.instances[0] for one in commands if one.kind is Kind.DRAIN}
        still = {one.id for one in mine if one.state is State.DRAINING}
        return Kept(memory.dump(), commands, frozenset(began | (kept.drained & still)))

    async def _tell_who_waits(self, decision: Decision) -> None:
        """While there is no worker, and one comes."""
        if decision.cold_start_ms is None:
            return
        slots = sum(launch.place.slots for launch in decision.launches)
        slots += round(decision.numbers["supply_slots"] or 0)
        pool = self._spec.pool
        await self._store.expect_slots(pool, in_ms=decision.cold_start_ms, slots=slots)

    def _say(self, decision: Decision) -> None:
        """What is done, and each new reason why nothing can be: one that holds for hours, with
        other numbers each time, would drown all else."""
        why = decision.hold or decision.reason.partition(":")[0]
        is_short = why.startswith("more is wanted")
        news = _NUMBERS.sub("", why) if decision.hold or is_short else ""
        if decision.acts or (news and news != self._said):
            level = logging.WARNING if decision.hold or is_short else logging.INFO
            logs.event(log, "scaling", level, pool=self._spec.pool, reason=decision.reason)
        self._said = news


def read_kept(raw: bytes | None) -> Kept:
    """What was kept; nothing, where a scheduler of another version kept it."""
    try:
        return _KEPT.decode(raw or b"{}")
    except msgspec.DecodeError:
        return Kept()


_KEPT = msgspec.json.Decoder(Kept)


def slots_each(metrics: PoolMetrics) -> int:
    """How many slots of the pool one of a worker's is."""
    return int(metrics.settings.get("sessions_per_slot", 1))


def rooms_of(
    providers: Mapping[str, int | None], instances: Iterable[Instance]
) -> dict[str, int | None]:
    """How many machines more each provider can have; None: not known."""
    there = Counter(one.order.provider for one in instances if one.state in BILLED)
    return {
        name: None if capacity is None else max(0, capacity - there[name])
        for name, capacity in providers.items()
    }


def places_of(
    offers: Mapping[str, Offered],
    rooms: Mapping[str, int | None],
    metrics: PoolMetrics,
    mine: Iterable[Instance],
) -> Iterable[Place]:
    """Where machines may be ordered."""
    there = Counter(place_of(one.order) for one in mine if one.state in BILLED)
    for name, room in rooms.items():
        for offer in offers[name].offers if name in offers else ():
            place = Place(
                provider=name,
                type=offer.type,
                zone=offer.zone,
                market=offer.market,
                price_per_hour=offer.price_per_hour or 0.0,
                slots=max(1, offer.slots * slots_each(metrics)),
            )
            quota = None if room is None else there[place.name] + room
            yield replace(place, quota=quota)


def within(
    decision: Decision, memory: Memory, rooms: Mapping[str, int | None]
) -> tuple[Decision, Memory]:
    """What of it can be ordered at once: a provider's room is for all of its places together."""
    left = dict(rooms)
    launches: list[Launch] = []
    for launch in decision.launches:
        room = left[launch.place.provider]
        if len(launches) < LAUNCHES_MAX and room != 0:
            left[launch.place.provider] = None if room is None else room - 1
            launches.append(launch)
    never = {launch.id for launch in decision.launches} - {launch.id for launch in launches}
    pending = tuple(each for each in memory.pending if each.id not in never)
    return replace(decision, launches=tuple(launches)), replace(memory, pending=pending)


def commands_of(
    decision: Decision,
    instances: Iterable[Instance],
    offers: Mapping[str, Offered],
    pool: str,
    now_ms: int,
) -> Iterable[Command]:
    """What a decision asks for. Who drains is ended by the reconciler, in its own time."""
    draining = {one.id for one in instances if one.state is State.DRAINING}
    for launch in decision.launches:
        yield _provision(launch, offers, pool, now_ms)
    acts: list[tuple[Kind, Act]] = [(Kind.DRAIN, act) for act in decision.drains]
    acts += [(Kind.RESUME, act) for act in decision.undrains]
    acts += [(Kind.TERMINATE, act) for act in decision.terminations if act.id not in draining]
    for kind, act in acts:
        drain_s = None
        if kind is not Kind.RESUME:
            drain_s = 0 if act.by_ms is None else max(0, round((act.by_ms - now_ms) / 1000))
        yield Command(
            id=f"{pool}-{now_ms:x}-{kind}-{act.id}",
            kind=kind,
            at_ms=now_ms,
            asked_by=ASKED_BY,
            instances=(act.id,),
            drain_s=drain_s,
            reason=act.reason[:REASON_MAX],
        )


def _provision(launch: Launch, offers: Mapping[str, Offered], pool: str, now_ms: int) -> Command:
    place = launch.place
    words = (place.type, place.zone, place.market)
    offer = next(
        each
        for each in offers[place.provider].offers
        if (each.type, each.zone, each.market) == words
    )
    order = Order(
        place.provider,
        pool,
        *words,
        price_per_hour=offer.price_per_hour,
        currency=offer.currency,
    )
    return Command(
        id=f"provision-{launch.id}",
        kind=Kind.PROVISION,
        at_ms=now_ms,
        asked_by=ASKED_BY,
        instances=(launch.id,),
        order=order,
        reason=launch.reason[:REASON_MAX],
    )


def _ends_ms(instances: Iterable[Instance], drained: Collection[str]) -> dict[str, int]:
    """Whose drain is not the autoscaler's to take back: an admin's, or their provider's."""
    return {
        one.id: one.drain_by_ms or one.since_ms
        for one in instances
        if one.state is State.DRAINING and (one.error_code or one.id not in drained)
    }
