"""What admins and the autoscaler want of the fleet: each command is taken once, or refused once.

A command and all that it changes are one write of the store, so that it has its effect exactly once
whoever crashes when. What it asks for and the table does not allow is refused in the history.
"""

import logging
from collections.abc import Collection

from msgspec.structs import replace

from admission import logs
from admission.instance import Command, Event, Instance, Kind, State
from admission.store.fence import Fence
from admission.store.fleet_store import NewerRecord
from scheduler.fleet import transitions as to
from scheduler.fleet.limits import Limits
from scheduler.fleet.records import Records
from scheduler.fleet.table import Made, NotAllowed

AT_ONCE = 50
TRIES = 3  # the reconciler may write to the same instance in between

log = logging.getLogger(__name__)


class Commands:
    """``providers``: the names of those that are configured."""

    def __init__(
        self, records: Records, providers: Collection[str], *, limits: Limits | None = None
    ) -> None:
        self._records, self._providers = records, frozenset(providers)
        self._limits = limits or Limits()

    async def tick(self, fence: Fence) -> None:
        """Take those that wait, the oldest first.

        Raises:
            Fenced, StoreUnavailable: what was not taken waits.
        """
        for entry, command in await self._records.commands(AT_ONCE):
            try:
                for _ in range(TRIES):
                    if await self._take(fence, entry, command):
                        break
            except NewerRecord:
                logs.event(log, "command_left_to_newer_service", command=command.id)

    async def _missing(self, command: Command) -> str:
        """The provider that no scheduler has: another's file may be newer than this one's."""
        name = command.order.provider if command.order else ""
        if not name or name in self._providers or name in await self._records.offers():
            return ""
        return name

    async def _take(self, fence: Fence, entry: str, command: Command) -> bool:
        missing = await self._missing(command)
        now_ms = await self._records.now_ms()
        changes: list[tuple[Instance, int]] = []
        events: list[Event] = []
        for instance_id in dict.fromkeys(command.instances):
            before = await self._records.instance(instance_id)
            try:
                if missing:
                    raise NotAllowed(f"there is no provider {missing}")
                after, event = self._applied(command, instance_id, before, now_ms)
            except NotAllowed as refusal:
                event = _refused(command, instance_id, before, now_ms, str(refusal))
            else:
                changes.append((after, before.version if before else 0))
            events.append(replace(event, detail={**event.detail, "command": command.id}))
        outcome = await self._records.take(fence, entry, changes, events)
        if outcome == "taken":
            logs.event(log, "command", command=command.id, kind=command.kind, changes=len(changes))
        return outcome != "stale"

    def _applied(
        self, command: Command, instance_id: str, before: Instance | None, now_ms: int
    ) -> Made:
        if command.kind is Kind.PROVISION:
            return self._provision(command, instance_id, before, now_ms)
        if before is None:
            raise NotAllowed(f"there is no instance {instance_id}")
        reason = command.reason
        match command.kind:
            case Kind.DRAIN:
                return self._drain(command, before, now_ms)
            case Kind.RESUME:
                return to.resume(before, now_ms, reason=reason)
            case Kind.TERMINATE if before.state is State.READY and command.drain_s != 0:
                return self._drain(command, before, now_ms)
            case Kind.TERMINATE if before.state is State.DRAINING and command.drain_s:
                return self._drain(command, before, now_ms)
            case Kind.TERMINATE:
                return to.terminate(before, now_ms, reason=reason)
            case Kind.ARCHIVE:
                return to.archive(before, now_ms, reason=reason)

    def _provision(
        self, command: Command, instance_id: str, before: Instance | None, now_ms: int
    ) -> Made:
        order = command.order
        if before is not None or order is None:
            raise NotAllowed(f"there is an instance {instance_id} already")
        asked_by = command.asked_by or command.id
        return to.request(instance_id, order, now_ms, asked_by=asked_by, reason=command.reason)

    def _drain(self, command: Command, before: Instance, now_ms: int) -> Made:
        """With the time that its requests are given from now on."""
        given_s = self._limits.drain_s if command.drain_s is None else command.drain_s
        by_ms = now_ms + round(given_s * 1000)
        if before.state is not State.DRAINING:
            return to.drain(before, now_ms, by_ms=by_ms, reason=command.reason)
        if before.error_code:  # the provider's deadline is not ours to move
            by_ms = min(by_ms, before.drain_by_ms or by_ms)
        code = before.error_code
        return to.redate(before, now_ms, by_ms=by_ms, reason=command.reason, code=code)


def _refused(
    command: Command, instance_id: str, before: Instance | None, now_ms: int, why: str
) -> Event:
    return Event(
        instance_id=instance_id,
        at_ms=now_ms,
        version=before.version if before else 0,
        name=command.kind,
        reason=why,
        progress=before.progress if before else 0,
        ok=False,
    )
