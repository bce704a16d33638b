"""The autoscaler's ticks: what is known goes in, what is decided becomes commands of the fleet.

A decision is kept together with its commands under the tick's fence, and only then asked for; the
next tick, whoever runs it, asks for them once more. A command's id belongs to its decision, so that
it has its effect once, also when a scheduler dies or sleeps in between.
"""

import logging
from collections.abc import Collection, Iterable, Mapping

import msgspec
from msgspec import Struct

from admission import fleet_views, logs
from admission.domain import PoolMetrics
from admission.instance import Command, Instance, Kind, Order, State
from admission.store.fence import Fence
from admission.store.fleet_records import UnreadableRecord
from admission.store.fleet_store import Offered
from admission.store.redis_store import RedisStore
from scheduler.autoscale import Decision, Demand, Fleet, FleetSpec, Launch, Memory, Place, decide
from scheduler.autoscale.decision import Act
from scheduler.tick import Tick

SCALE_S = 5.0
LIMIT_S = 30.0
ASKED_BY = "autoscaler"
REASON_MAX = 500  # characters of it in the history
COMMANDS_MAX = 1_000  # that wait are looked at

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
        """Decide once, and ask for it.

        Raises:
            Fenced: another scheduler decides by now.
            StoreUnavailable: nothing was decided, or what was is asked for next time.
        """
        fleet, name = self._store.fleet, f"scale-{self._spec.pool}"
        kept = read_kept(await fleet.memory(name))
        for command in kept.commands:
            await fleet.ask(command)
        metrics = await self._store.metrics(self._spec.pool)
        now_ms, mine = metrics.now_ms, await self._instances()
        offers = await fleet.offers()
        seen = await self._seen(metrics, mine, offers, kept.drained)
        decision, memory = decide(
            Demand.of(metrics), seen, self._spec, Memory.load(kept.memory), now_ms
        )
        self._say(decision)
        commands = tuple(commands_of(decision, mine or (), offers, self._spec.pool, now_ms))
        began = {one.instances[0] for one in commands if one.kind is Kind.DRAIN}
        still = {one.id for one in mine or () if one.state is State.DRAINING}
        drained = frozenset(began | (kept.drained & still)) if mine is not None else kept.drained
        after = Kept(memory.dump(), commands, drained)
        await fleet.remember(fence, name, msgspec.json.encode(after))
        for command in commands:
            await fleet.ask(command)

    async def _instances(self) -> list[Instance] | None:
        """The pool's, with those that were asked for and nobody took yet; None: not all are known.

        What waits is read first: what is taken in between is known by then.
        """
        try:
            waiting = [
                one
                for _, command in await self._store.fleet.commands(COMMANDS_MAX)
                for one in fleet_views.pending_instances(command)
            ]
            known = await self._store.fleet.instances()
        except UnreadableRecord as error:
            logs.event(log, "scaling_blind", logging.WARNING, why=error)
            return None
        found = {one.id: one for one in (*waiting, *known)}
        return [one for one in found.values() if one.order.pool == self._spec.pool]

    async def _seen(
        self,
        metrics: PoolMetrics,
        mine: list[Instance] | None,
        offers: Mapping[str, Offered],
        drained: Collection[str],
    ) -> Fleet:
        if mine is None:
            return Fleet(at_ms=metrics.now_ms, members=None)
        each = int(metrics.settings.get("sessions_per_slot", 1))
        return Fleet.of(
            metrics.now_ms,
            mine,
            await self._store.workers(self._spec.pool),
            places_of(offers, self._providers, each),
            ends_ms=_ends_ms(mine, drained),
            slots_each=each,
            kept=[one.id for one in mine if one.asked_by != ASKED_BY],
        )

    def _say(self, decision: Decision) -> None:
        """Each new decision, once: a reason that holds for hours would drown all else."""
        words = decision.reason if decision.acts or decision.hold else ""
        if words != self._said:
            self._said = words
            if words:
                level = logging.WARNING if decision.hold else logging.INFO
                logs.event(log, "scaling", level, pool=self._spec.pool, reason=words)


def read_kept(raw: bytes | None) -> Kept:
    """What was kept; nothing, where a scheduler of another version kept it."""
    try:
        return _KEPT.decode(raw or b"{}")
    except msgspec.DecodeError:
        return Kept()


_KEPT = msgspec.json.Decoder(Kept)


def places_of(
    offers: Mapping[str, Offered], providers: Mapping[str, int | None], slots_each: int
) -> Iterable[Place]:
    """Where machines may be ordered."""
    for name, capacity in providers.items():
        for offer in offers[name].offers if name in offers else ():
            yield Place(
                provider=name,
                type=offer.type,
                zone=offer.zone,
                market=offer.market,
                price_per_hour=offer.price_per_hour or 0.0,
                slots=max(1, offer.slots * slots_each),
                quota=capacity,
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
