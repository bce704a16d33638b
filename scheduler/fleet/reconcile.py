"""The tick that makes what is what is wanted, for the instances of one provider.

For each: look, judge, write the intent, act, write what came of it, and judge again, until there is
nothing to do now. Every write compares the version that was read and the epoch of the tick's lease,
so that of two schedulers one goes on; every action may be done twice. A crash between any two steps
leaves a record from which the next tick goes on.

One tick a provider: a slow one delays only its own instances, and a few of these at once.
"""

import asyncio
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from admission import logs
from admission.clock import Clock
from admission.domain import Worker
from admission.instance import Event, Instance, State, Volume
from admission.store.fence import Fence
from admission.store.fleet_store import NewerRecord
from scheduler.fleet import transitions as to
from scheduler.fleet.codes import known
from scheduler.fleet.judge import judge
from scheduler.fleet.limits import Limits
from scheduler.fleet.patience import Patience
from scheduler.fleet.port import Gone, Machine, Provider, Refused
from scheduler.fleet.records import Records, Workers
from scheduler.fleet.steps import (
    Advance,
    Answer,
    Blind,
    DeleteVolume,
    Find,
    Found,
    Launch,
    ListVolumes,
    Look,
    LookVolume,
    Move,
    Release,
    Seen,
    Steer,
    Step,
    Terminate,
    Wait,
)
from scheduler.fleet.table import Made, NotAllowed

AT_ONCE = 8  # instances of one provider
BUDGET_S = 20.0  # no further instance is begun after so long; those left out come first next time
STEPS = 32  # of one instance in one tick: all the milestones, or ten disks
LATE_MS = 30_000  # who slept after the intent may not launch: another may have proven it gone
GAP_MS = 60_000  # who did not look for so long has not seen what happened meanwhile

log = logging.getLogger(__name__)


@dataclass
class Memory:
    """What this scheduler knows of an instance from tick to tick."""

    state: State
    watched_ms: int
    visited_ms: int
    machine: Answer | None = None
    worker_id: str = ""  # where the provider says another than the instance's own
    asked: dict[str, int] = field(default_factory=dict)
    unwell_ms: int | None = None
    told: str = ""  # the last trouble that stands in the history

    def saw(self, found: Found, asked_ms: int) -> None:
        self.machine = Answer(found, asked_ms)
        if isinstance(found, Machine):
            self.worker_id = found.worker_id

    def heard(self, heard_ms: int, *, well: bool) -> None:
        if well:
            self.unwell_ms = None
        elif self.unwell_ms is None:
            self.unwell_ms = heard_ms

    def enter(self, state: State) -> None:
        """Whoever moved it there: what was done in another state was for something else, and a
        worker that drained was not ready without being ill."""
        if state is not self.state:
            self.state, self.unwell_ms = state, None
            self.asked.clear()


@dataclass
class Visit:
    """One instance in one tick."""

    instance: Instance
    memory: Memory
    worker: Worker | None
    heard_ms: int
    company: bool
    volumes: tuple[Volume, ...] | Blind | None = None
    disks: dict[str, Volume | Gone | Blind] = field(default_factory=dict)

    @property
    def seen(self) -> Seen:
        memory = self.memory
        return Seen(
            heard_ms=self.heard_ms,
            watched_ms=memory.watched_ms,
            worker=self.worker,
            machine=memory.machine,
            volumes=self.volumes,
            disks=self.disks,
            asked=memory.asked,
            unwell_ms=memory.unwell_ms,
            company=self.company,
        )


class Stale(Exception):
    """Somebody changed the record meanwhile: the next tick reads it again."""


class Reconciler:
    """For one provider. Any number may run: the lease of its tick lets one of them write."""

    def __init__(
        self,
        provider: Provider,
        records: Records,
        workers: Workers,
        clock: Clock,
        *,
        limits: Limits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._provider, self._records, self._workers = provider, records, workers
        self._clock, given = clock, limits or Limits()
        unseen_s = min(given.unseen_s, provider.lag_s)
        self._limits = msgspec.structs.replace(given, unseen_s=unseen_s)
        self._patience = Patience(provider.name, self._now_ms, rng or random.Random())
        self._memories: dict[str, Memory] = {}
        self._ahead_ms = 0.0  # of the store's clock before ours

    async def tick(self, fence: Fence) -> None:
        """Bring each instance one step further, or some of them.

        Raises:
            Fenced: another scheduler does it by now.
            StoreUnavailable.
        """
        began_ms = self._clock.passed_ms()
        self._ahead_ms = await self._records.now_ms() - began_ms
        instances = await self._records.instances()
        heard_ms = self._now_ms()
        visits = self._visits(instances, await self._heard(), heard_ms)
        room = asyncio.Semaphore(AT_ONCE)

        async def visit(each: Visit) -> None:
            async with room:
                if self._clock.passed_ms() - began_ms < BUDGET_S * 1000:
                    await self._visit(fence, each)

        # Most have nothing to do: they cost no task.
        busy = []
        for each in visits:
            if self._rests(each):
                each.memory.visited_ms = heard_ms
            else:
                busy.append(each)
        try:
            async with asyncio.TaskGroup() as group:
                for each in busy:
                    group.create_task(visit(each))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None

    def _now_ms(self) -> int:
        return round(self._clock.passed_ms() + self._ahead_ms)

    async def _heard(self) -> dict[str, Worker]:
        """All workers that an agent reports for, by their id."""
        found = [
            worker
            for pool in await self._workers.pools()
            for worker in await self._workers.workers(pool)
        ]
        return {worker.worker_id: worker for worker in found if worker.kind == "agent"}

    def _visits(
        self, instances: list[Instance], workers: Mapping[str, Worker], heard_ms: int
    ) -> list[Visit]:
        """Those of this provider, the one that waited longest first."""
        mine = [each for each in instances if each.order.provider == self._provider.name]
        ready = [each.id for each in instances if each.state is State.READY]
        fresh_ms = heard_ms - self._limits.fresh_s * 1000
        heard = any(each.ready or each.last_seen_ms > fresh_ms for each in workers.values())
        company = heard or len(ready) < 2
        for gone in self._memories.keys() - {each.id for each in mine}:
            del self._memories[gone]
        visits = []
        for each in mine:
            memory = self._remembered(each, heard_ms)
            worker = workers.get(memory.worker_id or each.worker_id or each.id)
            memory.heard(heard_ms, well=worker is not None and worker.ready)
            visits.append(Visit(each, memory, worker, heard_ms, company))
        return sorted(visits, key=lambda visit: visit.memory.visited_ms)

    def _remembered(self, instance: Instance, heard_ms: int) -> Memory:
        memory = self._memories.get(instance.id)
        if memory is None or heard_ms - memory.visited_ms > GAP_MS:
            memory = self._memories[instance.id] = Memory(instance.state, heard_ms, heard_ms)
        memory.enter(instance.state)
        return memory

    def _judge(self, visit: Visit) -> Step:
        return judge(visit.instance, visit.seen, self._now_ms(), self._limits)

    def _rests(self, visit: Visit) -> bool:
        """Whether there is nothing to do; where that cannot be told, its visit says why."""
        try:
            return isinstance(self._judge(visit), Wait)
        except NotAllowed:
            return False

    async def _visit(self, fence: Fence, visit: Visit) -> None:
        visit.memory.visited_ms = self._now_ms()
        try:
            for _ in range(STEPS):
                step = self._judge(visit)
                if isinstance(step, Wait) or not await self._do(fence, visit, step):
                    return
        except Stale:
            pass
        except NotAllowed:  # a mistake of ours: it stops no other instance
            log.exception("instance_stuck instance_id=%s", visit.instance.id)
        except NewerRecord:
            logs.event(log, "instance_of_newer_service", instance_id=visit.instance.id)

    async def _do(self, fence: Fence, visit: Visit, step: Step) -> bool:
        """Do one step; whether anything is to follow in this tick."""
        match step:
            case Move((after, _) as made):
                if after.state is State.TERMINATED and not after.worker_id:
                    # Also one that registered since: archived at once, nobody looks at it again.
                    await self._workers.release_worker(after.order.pool, after.id)
                await self._write(fence, visit, made)
            case Launch():
                return await self._launch(fence, visit)
            case Advance():
                return await self._advance(fence, visit, step)
            case Steer() | Release():
                await self._tell_registry(visit, step)
            case Terminate() | DeleteVolume():
                return await self._delete(fence, visit, step)
            case _:
                await self._look(visit, step)
        return True

    async def _write(self, fence: Fence, visit: Visit, made: Made) -> None:
        after, event = made
        before = visit.instance
        if not await self._records.write(fence, after, before.version, [event]):
            raise Stale
        logs.event(
            log,
            "instance",
            logging.INFO if event.ok else logging.WARNING,
            instance_id=after.id,
            did=event.name,
            state=after.state,
            progress=after.progress,
            reason=event.reason or None,
        )
        visit.instance = after
        visit.memory.enter(after.state)
        if after.ended_ms != before.ended_ms:
            visit.volumes = None  # those that it leaves are seen only now

    async def _trouble(self, fence: Fence, visit: Visit, action: str, why: str) -> None:
        """Let who follows the history know, once for each kind of trouble."""
        if visit.memory.told == f"{action} {why}":
            return
        visit.memory.told = f"{action} {why}"
        it = visit.instance
        event = Event(
            instance_id=it.id,
            at_ms=self._now_ms(),
            version=it.version,
            name=action,
            reason=why[: to.WORDS_MAX],
            progress=it.progress,
            ok=False,
        )
        await self._records.note(fence, [event])

    # --- what may cost money, or end something ---------------------------------------------------

    async def _launch(self, fence: Fence, visit: Visit) -> bool:
        it = visit.instance
        visit.memory.asked["launch"] = asked_ms = self._now_ms()
        if self._patience.closed(it.id):
            return False
        await self._write(fence, visit, to.try_launch(it, self._now_ms()))
        if self._now_ms() - asked_ms > LATE_MS:
            return False
        try:
            found = await self._patience.ask(it.id, lambda: self._provider.launch(it.id, it.order))
        except Refused as refusal:
            code, words = known(refusal.code, refusal.detail)
            made = to.fail_provisioning(visit.instance, self._now_ms(), code=code, words=words)
            await self._write(fence, visit, made)
            return True
        if isinstance(found, Blind):
            await self._trouble(fence, visit, "launch", found.why)
            return False
        visit.memory.saw(found, asked_ms)
        made = to.create(
            visit.instance,
            self._now_ms(),
            provider_id=found.provider_id,
            launched_ms=found.launched_ms,
            worker_id=found.worker_id,
        )
        await self._write(fence, visit, made)
        return True

    async def _advance(self, fence: Fence, visit: Visit, step: Advance) -> bool:
        it = visit.instance
        visit.memory.asked["advance"] = asked_ms = self._now_ms()
        try:
            found = await self._patience.ask(
                it.id, lambda: self._provider.advance(it, step.machine)
            )
        except Refused as refusal:
            code, words = known(refusal.code, refusal.detail)
            made = to.fail_startup(it, self._now_ms(), code=code, words=words)
            await self._write(fence, visit, made)
            return True
        if isinstance(found, Blind):
            await self._trouble(fence, visit, "advance", found.why)
            return False
        visit.memory.saw(found, asked_ms)
        return True

    async def _delete(self, fence: Fence, visit: Visit, step: Terminate | DeleteVolume) -> bool:
        provider, it = self._provider, visit.instance
        if isinstance(step, Terminate):
            action = name = "terminate"
            call, about = partial(provider.terminate, it.provider_id), it.id
        else:
            action, name = "delete_volume", step.volume_id
            call, about = partial(provider.delete_volume, step.volume_id), step.volume_id
        done = await self._patience.ask(about, call)
        if isinstance(done, Blind):
            await self._trouble(fence, visit, action, done.why)
            if isinstance(step, Terminate):
                return False  # it is asked again as soon as patience allows
        visit.memory.asked[name] = self._now_ms()
        return True

    # --- what only tells, or asks ----------------------------------------------------------------

    async def _tell_registry(self, visit: Visit, step: Steer | Release) -> None:
        worker = visit.worker
        assert worker is not None
        if isinstance(step, Release):
            await self._workers.release_worker(worker.pool, worker.worker_id)
            visit.worker = None
            return
        await self._workers.steer_worker(
            worker.pool, worker.worker_id, draining=step.draining, word=visit.instance.since_ms
        )
        visit.worker = replace(worker, steered=step.draining, draining=step.draining)

    async def _look(self, visit: Visit, step: Step) -> None:
        provider, it, ask = self._provider, visit.instance, self._patience.ask
        asked_ms = self._now_ms()
        match step:
            case Look():
                found = await ask(it.id, lambda: provider.look(it.provider_id))
                visit.memory.saw(found, asked_ms)
            case Find():
                found = await ask(it.id, lambda: provider.find(it.id))
                visit.memory.saw(found, asked_ms)
            case ListVolumes():
                listed = await ask(it.id, lambda: provider.volumes(it.id, it.provider_id))
                visit.volumes = listed if isinstance(listed, Blind) else tuple(listed)
                visit.memory.asked["volumes"] = asked_ms
            case LookVolume(volume_id):
                visit.disks[volume_id] = await ask(
                    volume_id, lambda: provider.look_volume(volume_id)
                )


def _first(error: BaseException) -> BaseException:
    """The error that ended the others."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
