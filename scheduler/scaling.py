"""The autoscaler's ticks: what is known goes in, what is decided becomes commands of the fleet.

A decision is kept together with its commands under the tick's fence, and only then asked for; the
next tick, whoever runs it, asks for them once more. A command's id belongs to its decision, so that
it has its effect once, also when a scheduler dies or sleeps in between.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import islice

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from admission import fleet_views, logs
from admission.attendance import AUTOSCALER, pool_tick
from admission.decided import Hold
from admission.domain import Coming, PoolMetrics
from admission.instance import Command, Instance, Kind, Order, State
from admission.store.fence import Fence
from admission.store.fleet_records import UnreadableRecord
from admission.store.fleet_store import Offered
from admission.store.redis_store import RedisStore
from scheduler.autoscale import Decision, Demand, Fleet, FleetSpec, Launch, Memory, Place, decide
from scheduler.autoscale.coming import coming
from scheduler.autoscale.decision import Act, Why
from scheduler.autoscale.fleet import BILLED
from scheduler.decisions import REASON_MAX, Told, decided_of, news_of
from scheduler.tick import Tick

SCALE_S = 5.0
LIMIT_S = 30.0
WAITED_MS = 60_000  # commands are taken within a second or two
COMMANDS_MAX = 1_000  # that wait are looked at
COMMANDS_AT_ONCE = 200  # of one decision, so that they can be kept; the next one is seconds later

log = logging.getLogger(__name__)


class Kept(Struct, frozen=True):
    """What is remembered between two ticks: the autoscaler's own memory, what was asked for last,
    which instances drain because it said so (what somebody else drains is theirs), and what was
    told of it."""

    memory: bytes = b""
    commands: tuple[Command, ...] = ()
    drained: frozenset[str] = frozenset()
    told: Told = Told()


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
        self._name = pool_tick(spec.pool)
        self._introduced = False

    @property
    def tick(self) -> Tick:
        """For the clockwork."""
        pool = self._spec.pool
        return Tick(self._name, f"fits {pool}'s workers to its queue", SCALE_S, LIMIT_S, self.run)

    async def run(self, fence: Fence) -> None:
        """Decide once, and ask for it; nothing is decided while what was asked before waits.

        Raises:
            Fenced: another scheduler decides by now.
            StoreUnavailable: nothing was decided, or what was is asked for next time.
        """
        fleet, pool = self._store.fleet, self._spec.pool
        kept = read_kept(await fleet.memory(self._name))
        for command in kept.commands:
            await fleet.ask(command)
        waiting = [command for _, command in await fleet.commands(COMMANDS_MAX)]
        metrics = await self._store.metrics(pool)
        demand, now_ms = Demand.of(metrics), metrics.now_ms
        self._introduce(demand)
        if {command.id for command in waiting} & {command.id for command in kept.commands}:
            if now_ms - kept.commands[0].at_ms > WAITED_MS:
                why = Why(Hold.COMMANDS_WAIT, "nobody takes what was asked of the fleet")
                await self._keep(fence, Decision.held(why), kept, now_ms)
            return
        if pool not in await self._store.pools():
            why = Why(Hold.POOL_UNKNOWN, "there is no such pool: no worker could register")
            await self._keep(fence, Decision.held(why), kept, now_ms)
            return
        everybody, offers = await self._instances(waiting), await fleet.offers()
        rooms = rooms_of(self._providers, everybody or ())
        mine = [one for one in everybody or () if one.order.pool == pool]
        seen = Fleet(at_ms=now_ms, members=None)
        if everybody is not None:
            places = places_of(offers, self._providers, metrics)
            seen = await self._seen(metrics, mine, places, rooms, kept)
        before = Memory.load(kept.memory)
        decision, memory = decide(demand, seen, self._spec, before, now_ms)
        machines = coming(seen, decision, memory, self._spec, now_ms)
        after = self._after(decision, memory, mine, offers, kept, now_ms)
        await self._keep(fence, decision, after, now_ms, _cold_start_ms(seen, machines))
        for command in after.commands:
            await fleet.ask(command)
        if machines is not None:
            await self._store.expect_slots(pool, machines)

    async def _keep(
        self,
        fence: Fence,
        decision: Decision,
        kept: Kept,
        now_ms: int,
        cold_start_ms: int | None = None,
    ) -> None:
        """For the next tick, and for all who ask what was decided; what is news is told."""
        fleet, pool = self._store.fleet, self._spec.pool
        before = await fleet.decision(pool)
        decided = decided_of(
            decision, before, now_ms, gap_ms=self._spec.gap_ms, cold_start_ms=cold_start_ms
        )
        event, told = news_of(decision, decided, kept.told, pool)
        memory = msgspec.json.encode(replace(kept, told=told))
        await fleet.decide(fence, self._name, memory, pool, decided, event)
        if event is not None:
            level = logging.INFO if event.ok else logging.WARNING
            logs.event(log, "scaling", level, pool=pool, reason=event.reason)

    def _introduce(self, demand: Demand) -> None:
        """Say once what the file left to the pool's kind."""
        if not self._introduced:
            logs.event(
                log,
                "scaling_begins",
                pool=self._spec.pool,
                kind="request" if demand.session_ms is None else "session",
                wait_target_s=self._spec.target_ms(demand.session_ms) / 1000,
                held_s=self._spec.turn_ms(demand.session_ms) / 1000,
            )
        self._introduced = True

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
        self,
        metrics: PoolMetrics,
        mine: list[Instance],
        places: Iterable[Place],
        rooms: Mapping[str, int | None],
        kept: Kept,
    ) -> Fleet:
        return Fleet.of(
            metrics.now_ms,
            mine,
            await self._store.workers(self._spec.pool),
            places,
            ends_ms=_ends_ms(mine, kept.drained),
            slots_each=slots_each(metrics),
            kept=[one.id for one in mine if one.asked_by != AUTOSCALER],
            rooms=rooms,
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
            return Kept(memory.dump(), (), kept.drained, kept.told)
        wanted = commands_of(decision, mine, offers, self._spec.pool, now_ms)
        commands = tuple(islice(wanted, COMMANDS_AT_ONCE))
        began = {one.instances[0] for one in commands if one.kind is Kind.DRAIN}
        still = {one.id for one in mine if one.state is State.DRAINING}
        drained = frozenset(began | (kept.drained & still))
        return Kept(memory.dump(), commands, drained, kept.told)


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
    offers: Mapping[str, Offered], providers: Iterable[str], metrics: PoolMetrics
) -> Iterable[Place]:
    """Where machines are offered, also where that was long ago."""
    for name in providers:
        for offer in offers[name].offers if name in offers else ():
            yield Place(
                provider=name,
                type=offer.type,
                zone=offer.zone,
                market=offer.market,
                price_per_hour=offer.price_per_hour or 0.0,
                slots=max(1, offer.slots * slots_each(metrics)),
                told_ms=offers[name].at_ms,
            )


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
            asked_by=AUTOSCALER,
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
        billed_least_s=offer.billed_least_s,
    )
    return Command(
        id=f"provision-{launch.id}",
        kind=Kind.PROVISION,
        at_ms=now_ms,
        asked_by=AUTOSCALER,
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


def _cold_start_ms(seen: Fleet, machines: Collection[Coming] | None) -> int | None:
    """Until the first worker is ready; None where one is, or none is coming."""
    if any(member.state is State.READY for member in seen.members or ()):
        return None
    return min((machine.in_ms for machine in machines or ()), default=None)
