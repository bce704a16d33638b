"""How the fleet is written down: records of instances, lines of their history.

A record is JSON after a head that scripts read: layout, version, state. A service does not write
over a record of a newer layout, whose fields it does not know: it would lose them. So
``RECORD_LAYOUT`` grows whenever a field is added that must outlive an older service's write, and
during an upgrade the older schedulers leave such instances to the newer ones.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple, TypeVar

import msgspec

from admission import logs
from admission.errors import Unavailable
from admission.instance import Event, Instance

RECORD_LAYOUT = 1
RECORD_BYTES_MAX = 65_536
"""Of one instance, most of it volumes: some 300 of them."""
EVENT_BYTES_MAX = 4_096
TEXT_MAX = 500  # characters of one text in an event that is too long as it is

T = TypeVar("T")

EVENT = msgspec.json.Decoder(Event)
_INSTANCE = msgspec.json.Decoder(Instance)

log = logging.getLogger(__name__)


class UnreadableRecord(Unavailable):
    """An instance cannot be read: nobody may conclude which machines are known."""

    code = "record_unreadable"


class Recorded(NamedTuple):
    """One entry of the history: its id in the stream, what happened, and the record after it
    (None where no instance of ours changed)."""

    entry: str
    event: Event
    instance: Instance | None


def record_of(instance: Instance, read_version: int) -> str:
    """As it is kept: what scripts read of it, and then all of it.

    Raises:
        ValueError: its version does not follow the one that was read, or it is too large.
    """
    if instance.version != read_version + 1:
        raise ValueError(f"version: {instance.version} does not follow {read_version}")
    text = msgspec.json.encode(instance)
    if len(text) > RECORD_BYTES_MAX:
        raise ValueError(f"{instance.id}: a record of more than {RECORD_BYTES_MAX} bytes")
    return f"{RECORD_LAYOUT} {instance.version} {instance.state} {text.decode()}"


def state_of(raw: bytes) -> str:
    """Its state, by the head alone; "" for what is no record."""
    head = raw.split(b" ", 3)
    return head[2].decode(errors="replace") if len(head) == 4 else ""


def read_instance(raw: bytes) -> Instance:
    """
    Raises:
        UnreadableRecord.
    """
    try:
        return _INSTANCE.decode(raw.split(b" ", 3)[3])
    except (IndexError, msgspec.MsgspecError) as error:
        logs.event(log, "record_unreadable", logging.ERROR, head=raw[:100].decode(errors="replace"))
        raise UnreadableRecord(
            "An instance's record cannot be read; a newer Vestibule may have written it.",
            retry_after_s=30,
        ) from error


def line_of(event: Event) -> str:
    """An event as JSON. Texts of a provider may be of any length: where it is too long they are
    cut, and the rest of the details left out."""
    text = msgspec.json.encode(event)
    if len(text) > EVENT_BYTES_MAX:
        event = msgspec.structs.replace(event, reason=event.reason[:TEXT_MAX], detail={"cut": True})
        text = msgspec.json.encode(event)
    return text.decode()


def read(decoder: msgspec.json.Decoder[T], raw: bytes, what: str, entry: bytes = b"") -> T | None:
    """What it holds; None, with a line in the log, for what cannot be read."""
    try:
        return decoder.decode(raw)
    except msgspec.MsgspecError:
        logs.event(log, "fleet_unreadable", logging.ERROR, what=what, entry=entry.decode())
        return None


def recorded(entry: bytes, fields: Mapping[bytes, bytes]) -> Recorded:
    """An entry of the history, also where it cannot be read."""
    event = read(EVENT, fields.get(b"e", b""), "event", entry)
    if event is None:
        about = fields.get(b"n", b"").decode(errors="replace")
        at_ms = int(entry.split(b"-")[0])
        event = Event(about, at_ms, 0, "unreadable", ok=False)
    instance = None
    if raw := fields.get(b"r"):
        with suppress(UnreadableRecord):
            instance = read_instance(raw)
    return Recorded(entry.decode(), event, instance)
