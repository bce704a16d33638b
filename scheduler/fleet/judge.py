"""What is to be done next for one instance, from its record, what was last seen, and the time.

Pure. Rules that hold throughout:

- Nothing is concluded from an answer that is not one (`Unclear`): hold, and look again.
- A heartbeat younger than 30 s outranks what a provider says: nobody heals what is well.
- *Gone* counts only when the machine is old enough that a lagging list is no excuse.
- What failed, and what was launched under whatever outcome, is ended and proven gone.
"""

from collections.abc import Callable

from admission.instance import Instance, State, Volume
from scheduler.fleet import transitions as to
from scheduler.fleet.codes import known
from scheduler.fleet.limits import Limits
from scheduler.fleet.port import Gone, Machine, Power
from scheduler.fleet.steps import (
    Advance,
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
from scheduler.fleet.table import (
    ADDRESSED,
    ANSWERING,
    CREATED,
    FAILED,
    HEALTHY,
    INSTALLED,
    LOADED,
    STARTED,
    WARM,
    Made,
)

BLIND_AGAIN_S = 60.0  # disks are asked for again, where a booting machine has shown none
HOURLY_S = 3600.0  # the same of one that is ready


def judge(instance: Instance, seen: Seen, now_ms: int, limits: Limits) -> Step:
    """The next step. It is repeated, with what the last one brought, until it is `Wait`."""
    return _Case(instance, seen, now_ms, limits).step()


class _Case:
    """One instance at one instant."""

    def __init__(self, instance: Instance, seen: Seen, now_ms: int, limits: Limits) -> None:
        self.it, self.seen, self.now_ms, self.limits = instance, seen, now_ms, limits
        self.worker = seen.worker

    def step(self) -> Step:
        match self.it.state:
            case State.PROVISIONING:
                return self._provisioning()
            case State.BOOTING:
                return self._booting()
            case State.READY:
                return self._ready()
            case State.DRAINING:
                return self._draining()
            case State.STARTUP_FAILED if self.it.error_code == "STARTUP_TIMEOUT":
                return self._too_slow()
            case state if state in FAILED:
                return Move(to.terminate(self.it, self.now_ms, reason=f"it is {state}"))
            case State.TERMINATING:
                return self._ending() if self.it.ended_ms is None else self._emptying()
            case _:
                return self._over()

    # --- how things are ----------------------------------------------------------------------

    def _passed(self, since_ms: int | None, seconds: float) -> bool:
        return since_ms is None or self.now_ms - since_ms >= seconds * 1000

    def _heard_for(self, since_ms: int, seconds: float) -> bool:
        """The same, by the time at which the registry was read: a scheduler that slept since, or
        waited for a provider, has not heard what came meanwhile."""
        return self.seen.heard_ms - since_ms >= seconds * 1000

    @property
    def fresh(self) -> bool:
        """Its agent was heard within the last 30 s, or answers the scheduler's own questions: the
        registry calls none else ready."""
        worker = self.worker
        if worker is None:
            return False
        return worker.ready or not self._heard_for(worker.last_seen_ms, self.limits.fresh_s)

    @property
    def well(self) -> bool:
        return self.worker is not None and self.worker.ready

    def _due(self, action: str, seconds: float) -> bool:
        return self._passed(self.seen.asked.get(action), seconds)

    def _look_every(self, seconds: float) -> Look | None:
        answer = self.seen.machine
        return Look() if answer is None or self._passed(answer.at_ms, seconds) else None

    @property
    def machine(self) -> Found | None:
        """As it was found last; a gone one that may only be too new to be listed is not known."""
        answer = self.seen.machine
        if answer is None:
            return None
        began_ms = max(self.it.tried_ms or 0, self.it.launched_ms or 0)
        unseen_s = self.limits.unseen_s
        if not self.it.provider_id:
            unseen_s += self.limits.unnamed_s
        unexplained = isinstance(answer.found, Gone) and answer.found.failure is None
        if unexplained and answer.at_ms - began_ms < unseen_s * 1000:
            return Blind("it is too new to be missed")
        return answer.found

    # --- provisioning and booting ------------------------------------------------------------

    def _provisioning(self) -> Step:
        # After an outage of ours each is tried once more before it is given up.
        tried = "launch" in self.seen.asked
        if tried and self._passed(self.it.since_ms, self.limits.provision_s):
            return Move(to.fail_provisioning(self.it, self.now_ms, code="PROVIDER_SILENT"))
        return Launch()

    def _booting(self) -> Step:
        if self.worker and self.worker.steered:  # an agent that outlived another instance
            return Steer(draining=False)
        if look := self._look_every(self.limits.look_booting_s):
            return look
        if further := self._milestone(self._progress()):
            return Move(further)
        if self.it.progress == HEALTHY and self.well:
            return Move(to.become_ready(self.it, self.now_ms))
        if failure := self._doomed() or self._too_late():
            code, words = failure
            return Move(to.fail_startup(self.it, self.now_ms, code=code, words=words))
        machine = self.machine
        if not isinstance(machine, Machine):
            why = machine.why if isinstance(machine, Blind) else "it is not there"
            return Wait(why, hold=True)
        if step := self._discover(machine, BLIND_AGAIN_S):
            return step
        if self.it.progress == ADDRESSED and self._due("advance", self.limits.look_booting_s):
            return Advance(machine)
        return Wait(self._waits_for())

    def _discover(self, machine: Found | None, again_s: float) -> Step | None:
        """Its disks, as soon as it runs; asked for again where it has shown none."""
        running = isinstance(machine, Machine) and machine.power is Power.RUNNING
        if running and not self.it.volumes and self._due("volumes", again_s):
            return ListVolumes()
        if isinstance(self.seen.volumes, tuple) and self._new_volumes(self.seen.volumes):
            return Move(to.see_volumes(self.it, self.now_ms, found=self.seen.volumes))
        return None

    def _too_late(self) -> tuple[str, str] | None:
        """Why a booting one is given up by our own rules."""
        worker, machine = self.worker, self.machine
        if (
            worker
            and worker.verdict
            and self._heard_for(worker.first_seen_ms, self.limits.verdict_s)
        ):
            return "AGENT_CHECKSUM_FAILED", worker.verdict
        if not self._phase_is_over():
            return None
        if isinstance(machine, Blind | None) and self.it.progress < INSTALLED:
            return None  # it may be further than we can see
        return "STARTUP_TIMEOUT", f"at {self.it.progress} %: {self._waits_for()}"

    def _phase_is_over(self) -> bool:
        """Not by the time in which no scheduler looked: it may have had news, or waited for us."""
        limit_s = self.limits.phase_s(self.it.progress)
        if self.it.progress <= ADDRESSED:
            return self._heard_for(max(self.it.moved_ms, self.seen.watched_ms), limit_s)
        watched = self._heard_for(self.seen.watched_ms, self.limits.watched_s)
        return watched and self._heard_for(self.it.moved_ms, limit_s)

    def _doomed(self) -> tuple[str, str] | None:
        """Why a booting one can never become ready, by its provider's word."""
        match self.machine:
            case Gone(failure=failure) if not self.fresh:
                return known(*failure) if failure else ("DELETED_BY_PROVIDER", "")
            case Machine(failure=(code, words)):
                return known(code, words)
            case Machine(ends_ms=int()):
                return "SPOT_INTERRUPTED", ""
            case Machine(power=Power.STOPPING | Power.STOPPED) if not self.fresh:
                return "MACHINE_STOPPED", ""
        return None

    def _progress(self) -> int:
        """How far it is by what is known; what its agent says needs no provider's word."""
        machine, worker = self.machine, self.worker
        if worker is not None and self.fresh and worker.claimed:
            engine = (worker.engine or {}).get("state", "external")
            if worker.ready:
                return HEALTHY
            if worker.models and engine in {"serving", "external"}:
                return LOADED
            return ANSWERING if engine in {"starting", "serving"} else INSTALLED
        if not isinstance(machine, Machine) or machine.power is not Power.RUNNING:
            return CREATED
        if not machine.address:
            return STARTED
        return INSTALLED if machine.installed else ADDRESSED

    def _milestone(self, progress: int) -> Made | None:
        """The next one on the way to ``progress``: each stands in the history."""
        machine, worker = self.machine, self.worker
        if self.it.progress < STARTED <= progress:
            return to.start(self.it, self.now_ms)
        if self.it.progress < ADDRESSED <= progress:
            host = machine.address if isinstance(machine, Machine) else ""
            if not host and worker:
                host = worker.url.split("//", 1)[-1].rsplit(":", 1)[0]
            return to.address(self.it, self.now_ms, address=host)
        later: tuple[tuple[int, Callable[[Instance, int], Made]], ...] = (
            (INSTALLED, to.install),
            (ANSWERING, to.answer),
            (LOADED, to.load),
            (WARM, to.warm),
            (HEALTHY, to.pass_health),
        )
        for milestone, reach in later:
            if self.it.progress < milestone <= progress:
                return reach(self.it, self.now_ms)
        return None

    def _waits_for(self) -> str:
        worker = self.worker
        if worker and worker.reason:
            return worker.reason
        if self.it.progress < ADDRESSED:
            return "the provider starts the machine"
        machine = self.machine
        phase = machine.phase if isinstance(machine, Machine) else ""
        return phase or "its agent was not heard yet"

    def _too_slow(self) -> Step:
        """A time-out: should it be heard after all, with news, it goes on."""
        progress = self._progress()
        if self.fresh and (progress > self.it.progress or self.well):
            reason = "a heartbeat came late"
            return Move(to.rescue(self.it, self.now_ms, progress=progress, reason=reason))
        if not self._heard_for(self.it.since_ms, self.limits.rescue_s):
            return Wait("it may be heard after all")
        return Move(to.terminate(self.it, self.now_ms, reason="it was too slow"))

    # --- ready and draining ------------------------------------------------------------------

    def _ready(self) -> Step:
        if self.worker and self.worker.steered:
            return Steer(draining=False)
        if look := self._look_every(self._pace_s()):
            return look
        machine = self.machine
        if isinstance(machine, Machine) and machine.ends_ms is not None:
            made = to.drain(
                self.it,
                self.now_ms,
                by_ms=self._before(machine.ends_ms),
                reason="the provider takes it back",
                code="SPOT_INTERRUPTED",
            )
            return Move(made)
        if self.fresh:
            return self._unready()
        if isinstance(machine, Blind | None):
            return Wait("neither its agent nor its provider says how it is", hold=True)
        if code := self._lost(machine):
            return Move(to.fail(self.it, self.now_ms, code=code))
        return Wait("its agent is silent")

    def _pace_s(self) -> float:
        if not self.fresh:
            return self.limits.look_unwell_s
        spot = self.it.order.market == "spot"
        return self.limits.look_spot_s if spot else self.limits.look_ready_s

    def _before(self, ends_ms: int) -> int:
        return max(self.now_ms, ends_ms - round(self.limits.spot_margin_s * 1000))

    def _unready(self) -> Step:
        """Its agent reports: is its model server well?"""
        worker, since_ms = self.worker, self.seen.unwell_ms
        if worker is None or worker.ready or worker.draining:  # an admin's drain is an admin's
            # One that was ready at once, or while nobody looked, has shown no disks.
            return self._discover(self.machine, HOURLY_S) or Wait("it is well")
        if since_ms is not None and self._heard_for(since_ms, self.limits.unready_s):
            words = worker.reason or ""
            return Move(to.fail(self.it, self.now_ms, code="WORKER_UNREADY", words=words))
        return Wait(worker.reason or "it is not ready")

    def _lost(self, machine: Machine | Gone) -> str | None:
        """The code of one whose agent is silent; None as long as that may be our own fault."""
        if isinstance(machine, Gone):
            return "DELETED_BY_PROVIDER"
        if machine.power in {Power.STOPPING, Power.STOPPED}:
            return "MACHINE_STOPPED"
        patience_s = self.limits.lost_s if self.seen.company else self.limits.all_lost_s
        if self.seen.unwell_ms is None:
            return None
        heard_ms = self.worker.last_seen_ms if self.worker else 0
        silent = self._heard_for(max(self.seen.unwell_ms, heard_ms), patience_s)
        return "WORKER_LOST" if silent else None

    def _draining(self) -> Step:
        worker = self.worker
        if worker and not worker.steered:
            return Steer(draining=True)
        if self._passed(self.it.drain_by_ms, 0):
            return self._terminate("its time is over")
        if worker is None:
            return self._terminate("it has no worker")
        after_ms = self.it.since_ms + round(self.limits.settle_s * 1000)
        if worker.draining and worker.in_flight == 0 and worker.last_seen_ms >= after_ms:
            return self._terminate("nothing runs on it")
        if look := self._look_every(self._pace_s()):
            return look
        machine = self.machine
        if isinstance(machine, Gone) and not self.fresh:
            if self.it.error_code:
                return self._terminate("the provider took it back")
            return Move(to.fail(self.it, self.now_ms, code="DELETED_BY_PROVIDER"))
        if isinstance(machine, Machine) and machine.ends_ms is not None:
            by_ms = min(self._before(machine.ends_ms), self.it.drain_by_ms or machine.ends_ms)
            if by_ms != self.it.drain_by_ms or not self.it.error_code:
                reason, code = "the provider takes it back", "SPOT_INTERRUPTED"
                made = to.redate(self.it, self.now_ms, by_ms=by_ms, reason=reason, code=code)
                return Move(made)
        return Wait(f"{worker.in_flight} requests run")

    def _terminate(self, reason: str) -> Move:
        return Move(to.terminate(self.it, self.now_ms, reason=reason))

    # --- the end -----------------------------------------------------------------------------

    def _ending(self) -> Step:
        """Until the machine is proven gone."""
        it, machine = self.it, self.machine
        if self.worker and not self.worker.steered:
            return Steer(draining=True)
        if it.tried_ms is None:
            return Move(to.lose_machine(it, self.now_ms, reason="it was never ordered"))
        if look := self._look_every(self.limits.look_ending_s):
            return look if it.provider_id else Find()
        match machine:
            case Gone():
                why = "the provider says so" if it.provider_id else "it never appeared"
                return Move(to.lose_machine(it, self.now_ms, reason=why))
            case Machine() if not it.provider_id:
                made = to.find(
                    it,
                    self.now_ms,
                    provider_id=machine.provider_id,
                    launched_ms=machine.launched_ms,
                )
                return Move(made)
        if self._pends(it.since_ms, self.limits.terminate_pending_s):
            return Move(to.pend(it, self.now_ms, code="TERMINATE_PENDING"))
        if not isinstance(machine, Machine):
            why = machine.why if isinstance(machine, Blind) else "it is looked for"
            return Wait(why, hold=True)
        return self._delete(machine)

    def _delete(self, machine: Machine) -> Step:
        """Its disks are noted first: those that are no longer attached are harder to find."""
        if not self._due("terminate", self.limits.again_s):
            return Wait(f"the provider deletes it: {machine.power}")
        if self.seen.volumes is None:
            return ListVolumes()
        if isinstance(self.seen.volumes, Blind):
            if not self._passed(self.it.since_ms, self.limits.volumes_blind_s):
                return Wait(f"its disks are not known: {self.seen.volumes.why}", hold=True)
        elif self._new_volumes(self.seen.volumes):
            return Move(to.see_volumes(self.it, self.now_ms, found=self.seen.volumes))
        return Terminate()

    def _new_volumes(self, found: tuple[Volume, ...]) -> bool:
        return to.with_volumes(self.it.volumes, found) != self.it.volumes

    def _pends(self, since_ms: int, seconds: float) -> bool:
        return not self.it.error_code and self._passed(since_ms, seconds)

    def _emptying(self) -> Step:
        """The machine is gone; until no disk is left that is ours to delete."""
        it = self.it
        if self.worker and self.worker.worker_id == it.id:
            return Release()
        if self.worker and self.worker.steered:  # somebody else's agent, which goes on serving
            return Steer(draining=False)
        if it.tried_ms is None:
            return Move(to.end(it, self.now_ms))
        if self.seen.volumes is None:
            return ListVolumes()
        if isinstance(self.seen.volumes, tuple) and self._new_volumes(self.seen.volumes):
            return Move(to.see_volumes(it, self.now_ms, found=self.seen.volumes))
        for volume in it.volumes:
            if step := self._settle(volume):
                return step
        left = [each for each in it.volumes if each.state not in {"deleted", "kept"}]
        if not left and isinstance(self.seen.volumes, tuple):
            return Move(to.end(it, self.now_ms))
        since_ms = it.ended_ms or self.now_ms
        if self._pends(since_ms, self.limits.volumes_pending_s):
            return Move(to.pend(it, self.now_ms, code="VOLUMES_DELETE_PENDING"))
        return Wait(f"{len(left)} disks are being deleted", hold=not left)

    def _settle(self, volume: Volume) -> Step | None:
        """What is to be done about one disk now, if anything."""
        it, name = self.it, volume.provider_volume_id
        if volume.state in {"deleted", "kept"}:
            return None
        if not volume.delete_on_terminate:
            return Move(to.keep_volume(it, self.now_ms, volume_id=name))
        if volume.state == "attached":
            return Move(to.delete_volume(it, self.now_ms, volume_id=name))
        found = self.seen.disks.get(name)
        if found is None:
            return LookVolume(name)
        if isinstance(found, Gone):
            reason = "the provider says so"
            return Move(to.lose_volume(it, self.now_ms, volume_id=name, reason=reason))
        if isinstance(found, Volume) and self._due(name, self.limits.again_s):
            return DeleteVolume(name)
        return None

    def _over(self) -> Step:
        if self.worker and self.worker.worker_id == self.it.id:
            return Release()
        ended = self.it.state is State.TERMINATED
        if ended and self._passed(self.it.since_ms, self.limits.archive_s):
            return Move(to.archive(self.it, self.now_ms, reason="it is long over"))
        return Wait("it is over")
