"""Machines and disks of this deployment that nobody wants, as after a loss of data or of a reply.

What only the provider knows gets a record, and ends like any other: its disks are found, deletions
are verified, all of it stands in the history. What we know and the provider does not is the
reconciler's to find (DELETED_BY_PROVIDER). A provider lists only what carries this deployment's
tag; what another deployment made is never seen here.
"""

import logging
import re
from collections.abc import Sequence
from hashlib import sha256

from admission import logs
from admission.instance import INSTANCE_ID, Event, Instance, Order, Volume
from admission.store.fence import Fence
from scheduler.fleet import transitions as to
from scheduler.fleet.port import Machine, Power, Provider, Unclear
from scheduler.fleet.records import Records
from scheduler.fleet.table import OVER, Made

GRACE_MS = 600_000  # seen all that time: a list that lags by minutes makes no orphan

log = logging.getLogger(__name__)


class Sweep:
    """For one provider. ``end``: False only reports."""

    def __init__(
        self, provider: Provider, records: Records, *, end: bool = True, grace_ms: int = GRACE_MS
    ) -> None:
        self._provider, self._records = provider, records
        self._end, self._grace_ms = end, grace_ms
        self._told: set[str] = set()
        self._since: dict[str, int] = {}  # a machine's or disk's id -> when it was first seen so

    async def tick(self, fence: Fence) -> None:
        """Look for them, and give those a record that are orphans for long.

        Raises:
            Fenced, StoreUnavailable, UnreadableRecord.
        """
        try:
            # What the provider has is read first: each of it had its record before it was made.
            machines = await self._provider.machines()
            known = {each.id: each for each in await self._records.instances()}
            wanted = frozenset(each.id for each in known.values() if each.state not in OVER)
            disks = await self._provider.orphan_volumes(wanted)
        except Unclear as error:
            logs.event(log, "orphans_unclear", provider=self._provider.name, why=error)
            return
        now_ms = await self._records.now_ms()
        strays = {each.provider_id: each for each in self._strays(machines, known)}
        there = {each.instance_id for each in machines}  # whose disks end with them
        lost = {d.provider_volume_id: (owner, d) for owner, d in disks if owner not in there}
        kept = {name for name, (owner, each) in lost.items() if _is_kept(each, known.get(owner))}
        self._since = {
            name: self._since.get(name, now_ms) for name in (*strays, *(lost.keys() - kept))
        }
        self._told &= self._since.keys()
        for name, since_ms in list(self._since.items()):
            if now_ms - since_ms < self._grace_ms:
                continue
            if name in strays:
                await self._settle_machine(fence, strays[name], now_ms)
            else:
                await self._settle_disk(fence, *lost[name], now_ms)

    def _strays(self, machines: Sequence[Machine], known: dict[str, Instance]) -> list[Machine]:
        """Those that are no wanted instance's."""
        theirs = {each.provider_id for each in known.values() if each.state not in OVER}
        # The reply to its launch may be on its way, as long as none was said to be gone.
        unnamed = {
            each.id
            for each in known.values()
            if each.state not in OVER and not each.provider_id and each.ended_ms is None
        }
        return [
            each
            for each in machines
            if each.provider_id not in theirs
            and each.instance_id not in unnamed
            and each.power is not Power.STOPPING
        ]

    async def _settle_machine(self, fence: Fence, machine: Machine, now_ms: int) -> None:
        try:
            found = await self._provider.look(machine.provider_id)
        except Unclear:
            return
        if not isinstance(found, Machine) or found.power is Power.STOPPING:
            return
        if not self._end:
            await self._report(fence, machine.instance_id, machine.provider_id, now_ms)
            return
        owner = await self._owner(machine.instance_id, machine.provider_id)
        if isinstance(owner, str):
            order = Order(
                provider=self._provider.name,
                type=machine.type,
                zone=machine.zone,
                market=machine.market,
            )
            launched_ms = machine.launched_ms
            made = to.adopt(owner, order, machine.provider_id, now_ms, launched_ms=launched_ms)
            await self._write(fence, made, 0)
        elif owner.state in OVER:
            made = to.reappear(owner, now_ms, provider_id=machine.provider_id)
            await self._write(fence, made, owner.version)

    async def _settle_disk(self, fence: Fence, owner_id: str, disk: Volume, now_ms: int) -> None:
        if not self._end:
            await self._report(fence, owner_id, disk.provider_volume_id, now_ms)
            return
        owner = await self._owner(owner_id, disk.provider_volume_id)
        if isinstance(owner, str):
            order = Order(provider=self._provider.name)
            await self._write(fence, to.adopt(owner, order, "", now_ms, volume=disk), 0)
        elif owner.state in OVER and not _is_kept(disk, owner):
            await self._write(fence, to.reopen(owner, now_ms, volume=disk), owner.version)

    async def _owner(self, tag: str, provider_id: str) -> Instance | str:
        """The record that it belongs to, or the id of the one it gets."""
        known = await self._records.instance(tag) if INSTANCE_ID.fullmatch(tag) else None
        if known is not None and known.state in OVER:
            return known
        own = tag if known is None and INSTANCE_ID.fullmatch(tag) else _name(provider_id)
        return await self._records.instance(own) or own

    async def _write(self, fence: Fence, made: Made, read_version: int) -> None:
        instance, event = made
        if await self._records.write(fence, instance, read_version, [event]):
            logs.event(log, "orphan", logging.WARNING, instance_id=instance.id, did=event.name)

    async def _report(self, fence: Fence, instance_id: str, name: str, now_ms: int) -> None:
        if name in self._told:
            return
        self._told.add(name)
        event = Event(instance_id, now_ms, 0, "orphan", reason=name, ok=False)
        await self._records.note(fence, [event])


def _is_kept(disk: Volume, owner: Instance | None) -> bool:
    if not disk.delete_on_terminate:
        return True
    known = owner.volumes if owner else ()
    return any(
        each.provider_volume_id == disk.provider_volume_id and each.state == "kept"
        for each in known
    )


def _name(provider_id: str) -> str:
    """An id of ours for what carries none."""
    readable = re.sub(r"[^a-z0-9]+", "-", provider_id.lower()).strip("-")[:40]
    return f"orphan-{readable}-{sha256(provider_id.encode()).hexdigest()[:8]}"
