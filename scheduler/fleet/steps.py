"""What a scheduler has seen of an instance, and the steps that may follow from it.

The judge chooses one, the reconciler does it; neither knows how the other works.
"""

from collections.abc import Mapping

from msgspec import Struct

from admission.domain import Worker
from admission.instance import Volume
from scheduler.fleet.port import Gone, Machine
from scheduler.fleet.table import Made


class Blind(Struct, frozen=True):
    """It was asked, and there was no answer from which anything follows."""

    why: str


Found = Machine | Gone | Blind


class Answer(Struct, frozen=True):
    """What was found, and when it was asked: the answer may be older than its arrival."""

    found: Found
    at_ms: int


class Seen(Struct, frozen=True, kw_only=True):
    """What one scheduler knows of an instance beside its record; None: it has not asked yet.

    ``heard_ms``: when ``worker`` was read. ``watched_ms``: since when it has looked without a gap;
    ``unwell_ms``: since when it has seen, without a gap, that the worker was not well. ``asked``:
    action -> when it last did it. ``company``: some other worker is heard, or none could be.
    """

    heard_ms: int
    watched_ms: int
    worker: Worker | None = None
    machine: Answer | None = None
    volumes: tuple[Volume, ...] | Blind | None = None
    disks: Mapping[str, Volume | Gone | Blind] = {}
    asked: Mapping[str, int] = {}
    unwell_ms: int | None = None
    company: bool = True


# --- steps ----------------------------------------------------------------------------------------


class Launch(Struct, frozen=True):
    """Ask the provider to make it, or to give the one it made for this id."""


class Find(Struct, frozen=True):
    """Ask whether a machine was made for this id."""


class Look(Struct, frozen=True):
    """Ask how the machine is."""


class Advance(Struct, frozen=True):
    """Let the provider do its next bit of the installation."""

    machine: Machine


class Move(Struct, frozen=True):
    """Write the next version of the record."""

    made: Made


class Steer(Struct, frozen=True):
    """Tell the registry that its worker drains, or does no longer."""

    draining: bool


class Release(Struct, frozen=True):
    """Let the registry forget its worker."""


class Terminate(Struct, frozen=True):
    """Ask the provider to delete the machine."""


class ListVolumes(Struct, frozen=True):
    """Ask for its disks."""


class DeleteVolume(Struct, frozen=True):
    """Ask the provider to delete a disk."""

    volume_id: str


class LookVolume(Struct, frozen=True):
    """Ask whether a disk is still there."""

    volume_id: str


class Wait(Struct, frozen=True):
    """Nothing now. ``hold``: because something is not known."""

    why: str
    hold: bool = False


Step = (
    Launch
    | Find
    | Look
    | Advance
    | Move
    | Steer
    | Release
    | Terminate
    | ListVolumes
    | DeleteVolume
    | LookVolume
    | Wait
)
