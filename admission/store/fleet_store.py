"""The fleet on Redis: its instances, what is asked of it, and what became of that.

Every change of an instance is one script: it compares the version that was read and the epoch of
the tick's lease (`Fence`), keeps the new record and appends the lines of its history; or it does
nothing. Called again after a lost reply it gives the same answer and adds nothing.

The history is a stream of at most ``history_max`` entries. The newest ``history_kept`` are there
for who follows it, also once they are in SQL; older ones only until they are. Should nobody drain,
the oldest are dropped, counted (``lost``) and logged: the queue's Redis must not fill up.
"""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from redis.asyncio import Redis

from admission import logs
from admission.clock import Clock
from admission.decided import Decided
from admission.errors import Unavailable
from admission.instance import COMMAND_INSTANCES_MAX, Command, Event, Instance, Offer, State
from admission.store import names
from admission.store.connection import answering
from admission.store.fence import Fence
from admission.store.fleet_records import (
    EVENT,
    Recorded,
    line_of,
    read,
    read_instance,
    record_of,
    recorded,
    state_of,
)
from admission.store.fleet_scripts import FleetScripts

LINES_BYTES_MAX = 16_384
"""Of the newest lines of one instance's history, beside its record: about 80."""
HISTORY_KEPT = 1_000
"""Of about 1 kB each. A page that comes back after an hour finds where it was."""
HISTORY_MAX = 20_000
"""About 20 MB: what a fleet of 50 machines does in two weeks without SQL."""
WAITING_MAX = 1_000
"""Commands that no scheduler has taken."""
KNOWN_MS = 24 * 3_600_000
KNOWN_MAX = 100_000
"""Of the commands of so long, some 200 bytes each."""
MEMORY_BYTES_MAX = 262_144
OFFERS_BYTES_MAX = 1_048_576
LINES_AT_ONCE = 100  # of one change; the script drops as many of the oldest
PAGE = 100

log = logging.getLogger(__name__)


class NewerRecord(Exception):
    """A newer service wrote this instance; this one must leave it alone."""


class OtherWords(Exception):
    """Another command had this id within the last 24 hours."""


class CommandsFull(Unavailable):
    """Too many commands wait, or were given within 24 hours."""

    code = "too_many_commands"


class Offered(NamedTuple):
    """What a provider offered when it was last asked."""

    at_ms: int
    offers: tuple[Offer, ...]


class FleetStore:
    """Everything of the fleet that is live. Any number of processes may serve one Redis.

    Every method raises StoreUnavailable when Redis does not answer; repeating it is safe. Those
    that take a fence raise Fenced, and change nothing, when another holds the tick's lease by now.
    """

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        *,
        history_kept: int = HISTORY_KEPT,
        history_max: int = HISTORY_MAX,
    ) -> None:
        self._redis, self._clock = redis, clock
        self._scripts = FleetScripts(redis, clock)
        self._bounds = {"history_kept": history_kept, "history_max": history_max}

    # --- instances -------------------------------------------------------------------------------

    async def instances(self, *, archived: bool = False) -> list[Instance]:
        """All that are not archived, by id; with ``archived`` also those that are, as long as they
        are not only in SQL.

        Raises:
            UnreadableRecord: not all of them can be told.
        """
        with answering():
            found: Any = await self._redis.hgetall(_key("instances"))
        wanted = [
            raw for _, raw in sorted(found.items()) if archived or state_of(raw) != State.ARCHIVED
        ]
        return [read_instance(raw) for raw in wanted]

    async def instance(self, instance_id: str) -> Instance | None:
        """One of them, archived or not.

        Raises:
            UnreadableRecord.
        """
        with answering():
            raw: Any = await self._redis.hget(_key("instances"), instance_id)
        return None if raw is None else read_instance(raw)

    async def lines(self, instance_id: str) -> list[Event]:
        """The newest lines of an instance's history, the oldest first: those that fit into
        ``LINES_BYTES_MAX``. All of them are in SQL."""
        with answering():
            raw: Any = await self._redis.hget(_key("lines"), instance_id)
        found = (read(EVENT, line, "event") for line in (raw or b"").splitlines())
        return [event for event in found if event is not None]

    async def write(
        self, fence: Fence, instance: Instance, read_version: int, events: Sequence[Event]
    ) -> bool:
        """Keep the next version of an instance, with what happened; False when it is stale:
        somebody changed it since ``read_version`` (0: it was not there) was read.

        Raises:
            Fenced, NewerRecord: nothing was changed.
            ValueError: the version is not the next one, or the record is too large.
        """
        tag = await self._change("write", fence, [(instance, read_version)], events)
        return tag == "written"

    async def note(self, fence: Fence, events: Sequence[Event]) -> None:
        """Append to the history what changed no instance: an action, or something of a machine
        that only the provider knows. The same words twice in a row are one.

        Raises:
            Fenced.
        """
        await self._change("note", fence, [], events)

    async def tell(self, fence: Fence, name: str, mark: str, event: Event) -> None:
        """Append to the history what changed no instance, unless ``mark`` is what was last told
        under this name: after a lost reply it may be said again.

        Raises:
            Fenced.
        """
        await self._scripts.run(
            "tell", fence, name=name, mark=mark, line=line_of(event), **self._bounds
        )

    # --- commands --------------------------------------------------------------------------------

    async def ask(self, command: Command, said: bytes | None = None) -> bool:
        """Append a command to those that wait; False when it was, within 24 hours.

        Args:
            said: what makes it the same command when its id comes again, where that is not all
                of it but its time: as a price that was looked up for it.

        Raises:
            OtherWords: the one of this id said something else.
            CommandsFull: try again later.
            ValueError: none or too many instances, or no order.
        """
        if not 1 <= len(command.instances) <= COMMAND_INSTANCES_MAX:
            raise ValueError(f"instances: 1 to {COMMAND_INSTANCES_MAX}")
        if (command.order is not None) != (command.kind == "provision"):
            raise ValueError("order: of a provision, and of nothing else")
        tag, *_ = await self._scripts.run(
            "ask",
            now_ms=self._clock.now_ms(),
            id=command.id,
            words=_digest(words_of(command) if said is None else said),
            command=msgspec.json.encode(command),
            waiting_max=WAITING_MAX,
            known_max=KNOWN_MAX,
            known_ms=KNOWN_MS,
        )
        if tag == "other":
            raise OtherWords(command.id)
        if tag == "full":
            raise CommandsFull("Too many commands wait for a scheduler.", retry_after_s=30)
        return tag == "asked"

    async def knows(self, command_id: str, said: bytes) -> bool:
        """Whether this was asked already, so that asking again would change nothing.

        Raises:
            OtherWords: the command of this id said something else.
        """
        tag, *known = await self._scripts.run("known", id=command_id, known_ms=KNOWN_MS)
        if known and known[0] != _digest(said):
            raise OtherWords(command_id)
        return tag == "known"

    async def commands(self, count: int = PAGE) -> list[tuple[str, Command]]:
        """Up to so many commands that wait, the oldest first, each with its entry. One that cannot
        be read waits for a newer scheduler, and holds up no other."""
        found: list[tuple[str, Command]] = []
        after = "-"
        while len(found) < count:
            with answering():
                page: Any = await self._redis.xrange(_key("commands"), min=after, count=PAGE)
            for entry, fields in page:
                command = read(_COMMAND, fields.get(b"c", b""), "command", entry)
                if command is not None:
                    found.append((entry.decode(), command))
            if len(page) < PAGE:
                break
            after = "(" + page[-1][0].decode()
        return found[:count]

    async def take(
        self,
        fence: Fence,
        entry: str,
        changes: Sequence[tuple[Instance, int]],
        events: Sequence[Event],
    ) -> Literal["taken", "gone", "stale"]:
        """Take a command together with all that it changes, or nothing of it.

        Args:
            entry: of the command, as ``commands`` told it.
            changes: each instance's next version, and the one that was read (0: a new one). None
                where the command is refused, which ``events`` then say.

        Returns:
            "gone": it was taken before. "stale": one of the instances was changed since.

        Raises:
            Fenced, NewerRecord: nothing was changed.
            ValueError: as ``write``.
        """
        match await self._change("take", fence, changes, events, entry=entry):
            case "taken" | "gone" | "stale" as tag:
                return tag
            case tag:
                raise AssertionError(tag)

    # --- the history -----------------------------------------------------------------------------

    async def history(self, after: str = "0-0", count: int = PAGE) -> list[Recorded]:
        """Up to so many entries of the stream after that one, the oldest first.

        One that cannot be read has an event of the name "unreadable".
        """
        with answering():
            found: Any = await self._redis.xrange(
                _key("history"), min=f"({after}", max="+", count=count
            )
        return [recorded(entry, fields) for entry, fields in found]

    async def ends(self) -> tuple[str, str]:
        """The first entry that the stream still holds, and the last it ever got: both "0-0" before
        there was any."""
        _, first, last = await self._scripts.run("ends")
        return first, last

    async def drained(self) -> str:
        """The last entry that is in SQL; "0-0" before any is."""
        with answering():
            entry: Any = await self._redis.hget(_key("drained"), "entry")
        return "0-0" if entry is None else str(entry.decode())

    async def drain(self, entry: str) -> None:
        """All entries up to this one are in SQL. Said of an older one it changes nothing."""
        await self._scripts.run("drain", entry=entry)

    async def lost(self) -> int:
        """How many entries were dropped before they were in SQL, ever."""
        with answering():
            count: Any = await self._redis.hget(_key("drained"), "lost")
        return int(count or 0)

    # --- what the scheduler leaves for others, and for itself ------------------------------------

    async def remember(self, fence: Fence, name: str, value: bytes) -> None:
        """Keep something for the next tick, whoever runs it.

        Raises:
            Fenced.
            ValueError: more than MEMORY_BYTES_MAX.
        """
        await self._scripts.run("remember", fence, name=name, value=_bounded(name, value))

    async def memory(self, name: str) -> bytes | None:
        """What was last remembered under this name."""
        with answering():
            value: Any = await self._redis.hget(_key("memory"), name)
        return None if value is None else bytes(value)

    async def decide(
        self,
        fence: Fence,
        name: str,
        memory: bytes,
        pool: str,
        decided: Decided,
        event: Event | None = None,
    ) -> None:
        """``remember`` something under ``name`` together with what was decided of a pool, and with
        a line of history where it is news.

        Raises:
            Fenced, ValueError: as ``remember``.
        """
        await self._scripts.run(
            "decide",
            fence,
            name=name,
            memory=_bounded(name, memory),
            pool=pool,
            decided=msgspec.json.encode(decided),
            line="" if event is None else line_of(event),
            **self._bounds,
        )

    async def decisions(self) -> dict[str, Decided]:
        """The last decision of each pool that an autoscaler ever looked after, by name."""
        with answering():
            found: Any = await self._redis.hgetall(_key("decided"))
        read_all = {name: read(_DECIDED, raw, "decision", name) for name, raw in found.items()}
        return {name.decode(): each for name, each in sorted(read_all.items()) if each is not None}

    async def decision(self, pool: str) -> Decided | None:
        """That of one pool."""
        with answering():
            raw: Any = await self._redis.hget(_key("decided"), pool)
        return None if raw is None else read(_DECIDED, raw, "decision", pool.encode())

    async def forget_decision(self, pool: str) -> None:
        """Of a pool that is closed."""
        with answering():
            done: Any = self._redis.hdel(_key("decided"), pool)
            await done

    async def offer(self, fence: Fence, provider: str, offers: Sequence[Offer] | None) -> None:
        """Publish what a provider offers: nothing now, or (None) that there is no such provider.

        Raises:
            Fenced.
            ValueError: more than OFFERS_BYTES_MAX.
        """
        value = b"" if offers is None else msgspec.json.encode(tuple(offers))
        if len(value) > OFFERS_BYTES_MAX:
            raise ValueError(f"{provider}: more than {OFFERS_BYTES_MAX} bytes of offers")
        await self._scripts.run("offer", fence, provider=provider, offers=value)

    async def offers(self) -> dict[str, Offered]:
        """What each provider offered last."""
        with answering():
            found: Any = await self._redis.hgetall(_key("offers"))
        known = {}
        for name, raw in sorted(found.items()):
            at_ms, _, text = raw.partition(b" ")
            offers = read(_OFFERS, text, "offers", name)
            if offers is not None:
                known[name.decode()] = Offered(int(at_ms), offers)
        return known

    async def now_ms(self) -> int:
        """The time by which deadlines are measured: Redis', or that of the tests."""
        return int((await self._scripts.run("now"))[1])

    # --- calls -----------------------------------------------------------------------------------

    async def _change(
        self,
        script: str,
        fence: Fence,
        changes: Sequence[tuple[Instance, int]],
        events: Sequence[Event],
        **given: str,
    ) -> str:
        if len(events) > LINES_AT_ONCE:
            raise ValueError(f"events: {LINES_AT_ONCE} at most")
        records = {instance.id: record_of(instance, read) for instance, read in changes}
        # The record goes with the last of its lines: what SQL reads of it then is how it ended.
        last = {event.instance_id: index for index, event in enumerate(events)}
        lines = [
            (
                event.instance_id,
                line_of(event),
                records.get(event.instance_id, "") if last[event.instance_id] == index else "",
            )
            for index, event in enumerate(events)
        ]
        if unsaid := records.keys() - last.keys():
            raise ValueError(f"events: none of {', '.join(sorted(unsaid))}")
        tag, *dropped = await self._scripts.run(
            script,
            fence,
            changes=msgspec.json.encode(
                [(instance.id, read, records[instance.id]) for instance, read in changes]
            ),
            lines=msgspec.json.encode(lines),
            lines_max=LINES_BYTES_MAX,
            **self._bounds,
            **given,
        )
        if tag == "newer":
            raise NewerRecord(", ".join(records))
        if dropped and int(dropped[0]):
            logs.event(log, "fleet_history_lost", logging.WARNING, entries=int(dropped[0]))
        return tag


def words_of(command: Command) -> bytes:
    """All that it says but its time."""
    return msgspec.json.encode(msgspec.structs.replace(command, at_ms=0))


def _bounded(name: str, memory: bytes) -> bytes:
    if len(memory) > MEMORY_BYTES_MAX:
        raise ValueError(f"{name}: more than {MEMORY_BYTES_MAX} bytes")
    return memory


def _digest(words: bytes) -> str:
    return hashlib.sha256(words).hexdigest()[:16]


def _key(name: str) -> str:
    return names.fleet_key(name)


_COMMAND = msgspec.json.Decoder(Command)
_DECIDED = msgspec.json.Decoder(Decided)
_OFFERS = msgspec.json.Decoder(tuple[Offer, ...])
