"""A fleet's store without Redis: the same calls, the same answers, in plain Python.

For simulations, which make thousands of runs. ``test_plain_store`` compares it with the real one,
so what is proven over it holds for the scripts. It keeps objects, which nobody can change (they are
frozen), and knows nothing of records that cannot be read or that a newer service wrote.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from admission.instance import COMMAND_INSTANCES_MAX, Command, Event, Instance, Offer, State
from admission.store import fleet_store
from admission.store.fence import Fence, Fenced
from admission.store.fleet_records import Recorded
from admission.store.fleet_store import CommandsFull, Offered, OtherWords

Change = tuple[Instance, int]


@dataclass
class PlainFleetStore:
    """``epochs``: the last epoch of each tick's lease; a fence of another one is refused.

    Entries of the streams are numbered "1-0", "2-0", …; only their order means anything.
    """

    ms: int = 1_800_000_000_000
    epochs: dict[str, int] = field(default_factory=dict)
    history_kept: int = fleet_store.HISTORY_KEPT
    history_max: int = fleet_store.HISTORY_MAX
    kept: dict[str, Instance] = field(default_factory=dict)
    beside: dict[str, list[Event]] = field(default_factory=dict)
    stream: list[Recorded] = field(default_factory=list)
    waiting: list[tuple[str, Command]] = field(default_factory=list)
    known: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    memories: dict[str, bytes] = field(default_factory=dict)
    published: dict[str, Offered] = field(default_factory=dict)
    entries: int = 0
    in_sql: str = "0-0"
    dropped: int = 0

    def lease(self, tick: str) -> Fence:
        """Somebody takes the lease: who had it before is fenced off."""
        self.epochs[tick] = self.epochs.get(tick, self.ms) + 1
        return Fence(tick, self.epochs[tick])

    # --- instances -------------------------------------------------------------------------------

    async def instances(self, *, archived: bool = False) -> list[Instance]:
        found = sorted(self.kept.values(), key=lambda instance: instance.id)
        return [one for one in found if archived or one.state is not State.ARCHIVED]

    async def instance(self, instance_id: str) -> Instance | None:
        return self.kept.get(instance_id)

    async def lines(self, instance_id: str) -> list[Event]:
        return list(self.beside.get(instance_id, ()))

    async def write(
        self, fence: Fence, instance: Instance, read_version: int, events: Sequence[Event]
    ) -> bool:
        changes = [(instance, read_version)]
        self._check(changes, events)
        self._pass(fence)
        why = self._obstacle(changes)
        if why is None:
            self._keep(changes, events)
        return why in (None, "done")

    async def note(self, fence: Fence, events: Sequence[Event]) -> None:
        self._check([], events)
        self._pass(fence)
        newest = [entry.event for entry in self.stream[-len(events) :]]
        if events and newest != list(events):
            self._keep([], events)

    # --- commands --------------------------------------------------------------------------------

    async def ask(self, command: Command, said: bytes | None = None) -> bool:
        if not 1 <= len(command.instances) <= COMMAND_INSTANCES_MAX:
            raise ValueError("instances")
        if (command.order is not None) != (command.kind == "provision"):
            raise ValueError("order")
        words = fleet_store.words_of(command) if said is None else said
        if await self.knows(command.id, words):
            return False
        if len(self.waiting) >= fleet_store.WAITING_MAX or len(self.known) >= fleet_store.KNOWN_MAX:
            raise CommandsFull("full")
        self.known[command.id] = self.ms, words
        self.waiting.append((self._entry(), command))
        return True

    async def knows(self, command_id: str, said: bytes) -> bool:
        over = self.ms - fleet_store.KNOWN_MS
        self.known = {name: each for name, each in self.known.items() if each[0] > over}
        _, known = self.known.get(command_id, (0, said))
        if known != said:
            raise OtherWords(command_id)
        return command_id in self.known

    async def commands(self, count: int = fleet_store.PAGE) -> list[tuple[str, Command]]:
        return self.waiting[:count]

    async def take(
        self, fence: Fence, entry: str, changes: Sequence[Change], events: Sequence[Event]
    ) -> Literal["taken", "gone", "stale"]:
        self._check(changes, events)
        self._pass(fence)
        why = self._obstacle(changes)
        if entry not in (waiting for waiting, _ in self.waiting):
            return "taken" if why == "done" else "gone"
        if why is not None:
            return "stale"
        self.waiting = [each for each in self.waiting if each[0] != entry]
        self._keep(changes, events)
        return "taken"

    # --- the history -----------------------------------------------------------------------------

    async def history(self, after: str = "0-0", count: int = fleet_store.PAGE) -> list[Recorded]:
        return [each for each in self.stream if _number(each.entry) > _number(after)][:count]

    async def ends(self) -> tuple[str, str]:
        return (self.stream[0].entry, self.stream[-1].entry) if self.stream else ("0-0", "0-0")

    async def drained(self) -> str:
        return self.in_sql

    async def drain(self, entry: str) -> None:
        self.in_sql = max(self.in_sql, entry, key=_number)

    async def lost(self) -> int:
        return self.dropped

    # --- what is left for others -----------------------------------------------------------------

    async def remember(self, fence: Fence, name: str, value: bytes) -> None:
        self._pass(fence)
        self.memories[name] = value

    async def memory(self, name: str) -> bytes | None:
        return self.memories.get(name)

    async def offer(self, fence: Fence, provider: str, offers: Sequence[Offer] | None) -> None:
        self._pass(fence)
        self.published.pop(provider, None)
        if offers is not None:
            self.published[provider] = Offered(self.ms, tuple(offers))

    async def offers(self) -> dict[str, Offered]:
        return dict(sorted(self.published.items()))

    async def now_ms(self) -> int:
        return self.ms

    # --- the rules -------------------------------------------------------------------------------

    def _check(self, changes: Sequence[Change], events: Sequence[Event]) -> None:
        if any(instance.version != read + 1 for instance, read in changes):
            raise ValueError("version")
        if {instance.id for instance, _ in changes} - {event.instance_id for event in events}:
            raise ValueError("events")
        if len(events) > fleet_store.LINES_AT_ONCE:
            raise ValueError("events")

    def _pass(self, fence: Fence) -> None:
        if self.epochs.get(fence.tick) != fence.epoch:
            raise Fenced(str(fence))

    def _obstacle(self, changes: Sequence[Change]) -> str | None:
        if changes and all(self.kept.get(one.id) == one for one, _ in changes):
            return "done"
        versions = {one.id: one.version for one in self.kept.values()}
        if any(versions.get(one.id, 0) != read for one, read in changes):
            return "stale"
        return None

    def _keep(self, changes: Sequence[Change], events: Sequence[Event]) -> None:
        records = {one.id: one for one, _ in changes}
        self.kept |= records
        last = {event.instance_id: index for index, event in enumerate(events)}
        for index, event in enumerate(events):
            about = event.instance_id
            record = records.get(about) if last[about] == index else None
            self.stream.append(Recorded(self._entry(), event, record))
            if about in self.kept:
                self.beside.setdefault(about, []).append(event)
        self._trim()

    def _trim(self) -> None:
        for _ in range(100):
            if len(self.stream) <= self.history_kept:
                return
            oldest = self.stream[0]
            if _number(oldest.entry) > _number(self.in_sql):
                if len(self.stream) <= self.history_max:
                    return
                self.dropped += 1
            del self.stream[0]
            if oldest.instance is not None and oldest.instance.state is State.ARCHIVED:
                self._forget(oldest.instance.id)

    def _forget(self, instance_id: str) -> None:
        if instance_id in self.kept and self.kept[instance_id].state is State.ARCHIVED:
            del self.kept[instance_id]
            self.beside.pop(instance_id, None)

    def _entry(self) -> str:
        self.entries += 1
        return f"{self.entries}-0"


def _number(entry: str) -> int:
    return int(entry.split("-")[0])
