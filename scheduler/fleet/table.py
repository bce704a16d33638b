"""The life cycle of an instance as one table, and how a row of it makes the next record.

The states are those of ``DESIGN.md`` section 10; a progress is a percentage of the way to
``ready``, and a failure leaves it where it was.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from admission.instance import Event, Instance, State

Made = tuple[Instance, Event]

WANTED = frozenset({State.PROVISIONING, State.BOOTING, State.READY, State.DRAINING})
FAILED = frozenset({State.PROVISIONING_FAILED, State.STARTUP_FAILED, State.FAILED})
OVER = frozenset({State.TERMINATED, State.ARCHIVED})

REQUESTED, CREATED, STARTED, ADDRESSED, INSTALLED = 5, 20, 30, 40, 50
ANSWERING, LOADED, WARM, HEALTHY, READY = 60, 75, 90, 95, 100


class NotAllowed(Exception):
    """The table has no such arrow from where the instance is, or the guard says no."""


class Transition(Struct, frozen=True):
    """A row. ``sources`` empty: it makes the record; ``target`` or ``progress`` None: as it was."""

    name: str
    sources: frozenset[State]
    target: State | None
    progress: int | None
    guard: str  # in words; the function of this name enforces it
    doc: str


def _row(
    name: str,
    sources: Sequence[State] | frozenset[State],
    target: State | None,
    doc: str,
    *,
    progress: int | None = None,
    guard: str = "",
) -> Transition:
    return Transition(name, frozenset(sources), target, progress, guard, doc)


_P, _B, _R, _D = State.PROVISIONING, State.BOOTING, State.READY, State.DRAINING
_T, _TD, _PF, _SF = (
    State.TERMINATING,
    State.TERMINATED,
    State.PROVISIONING_FAILED,
    State.STARTUP_FAILED,
)
_FURTHER = "the progress grows"

TABLE: dict[str, Transition] = {
    row.name: row
    for row in (
        _row("request", (), _P, "It is wanted.", progress=REQUESTED),
        _row("adopt", (), _T, "The provider has it, and no record was known: it is ended."),
        _row("try_launch", (_P,), None, "From now on it may exist at the provider."),
        _row("create", (_P,), _B, "The provider made it.", progress=CREATED, guard="it is named"),
        _row("start", (_B,), None, "It runs.", progress=STARTED, guard=_FURTHER),
        _row("address", (_B,), None, "It has an address.", progress=ADDRESSED, guard=_FURTHER),
        _row(
            "install",
            (_B,),
            None,
            "Agent and model server run.",
            progress=INSTALLED,
            guard=_FURTHER,
        ),
        _row(
            "answer",
            (_B,),
            None,
            "The model is there, vLLM starts.",
            progress=ANSWERING,
            guard=_FURTHER,
        ),
        _row("load", (_B,), None, "vLLM lists the model.", progress=LOADED, guard=_FURTHER),
        _row("warm", (_B,), None, "The model answered.", progress=WARM, guard=_FURTHER),
        _row(
            "pass_health",
            (_B,),
            None,
            "A fresh heartbeat says ready, and nothing speaks against it.",
            progress=HEALTHY,
            guard=_FURTHER,
        ),
        _row("become_ready", (_B,), _R, "It gets requests.", progress=READY),
        _row(
            "fail_provisioning", (_P,), _PF, "The provider did not make it.", guard="a known code"
        ),
        _row("fail_startup", (_B,), _SF, "It did not become ready.", guard="a known code"),
        _row(
            "rescue",
            (_SF,),
            _B,
            "News of it came late.",
            guard="STARTUP_TIMEOUT, and the progress grows or it is well",
        ),
        _row("fail", (_R, _D), State.FAILED, "It was ready, and is lost.", guard="a known code"),
        _row("drain", (_R,), _D, "It gets nothing new, and finishes what runs."),
        _row("redate", (_D,), None, "Its requests are given another time.", guard="another time"),
        _row(
            "resume",
            (_D,),
            _R,
            "It gets requests again.",
            guard="the provider does not take it back",
        ),
        _row("terminate", WANTED | FAILED, _T, "It is to be gone, with its volumes."),
        _row("find", (_T,), None, "Its launch had worked.", guard="no other one was known"),
        _row(
            "lose_machine",
            (_T,),
            None,
            "The provider says that the machine is gone.",
            guard="for the first time",
        ),
        _row(
            "see_volumes",
            frozenset(State) - OVER,
            None,
            "Its disks, as they were found.",
            guard="one is new or changed",
        ),
        _row(
            "delete_volume",
            (_T,),
            None,
            "A disk is to be deleted.",
            guard="the machine is gone; not one that is kept",
        ),
        _row(
            "lose_volume",
            (_T,),
            None,
            "The provider says that the disk is gone.",
            guard="it was to be deleted",
        ),
        _row(
            "keep_volume",
            (_T,),
            None,
            "A disk stays, as its owner wishes.",
            guard="delete_on_terminate is false",
        ),
        _row("pend", (_T,), None, "Its end takes long.", guard="it has no other code"),
        _row(
            "end",
            (_T,),
            _TD,
            "Proven gone, and every disk deleted or kept.",
            guard="the machine is gone; no disk is left",
        ),
        _row("reappear", OVER, _T, "The provider has it nevertheless: it is ended again."),
        _row("reopen", OVER, _T, "A disk of it was found: it is deleted."),
        _row("archive", (_TD,), State.ARCHIVED, "Out of sight."),
    )
}


def make(
    name: str,
    instance: Instance,
    now_ms: int,
    reason: str,
    detail: dict[str, Any] | None = None,
    **changes: Any,
) -> Made:
    """The next version by the row ``name``: what the table says, and ``changes``.

    Its history gives ``reason``, else what the row means.
    """
    row = TABLE[name]
    if instance.state not in row.sources:
        raise NotAllowed(f"{name}: the instance {instance.id} is {instance.state}")
    if row.target is not None:
        changes |= {"state": row.target, "since_ms": now_ms}
    progress = changes.get("progress", row.progress)
    if progress is not None and progress != instance.progress:
        changes |= {"progress": progress, "moved_ms": now_ms}
    after = replace(instance, version=instance.version + 1, **changes)
    source, target = (instance.state, after.state) if row.target is not None else ("", "")
    return after, Event(
        instance_id=after.id,
        at_ms=now_ms,
        version=after.version,
        name=name,
        source=source,
        target=target,
        reason=reason or row.doc,
        progress=after.progress,
        ok=row.target not in FAILED,
        detail=detail or {},
    )


def must(allowed: bool, name: str, instance: Instance) -> None:
    if not allowed:
        raise NotAllowed(f"{name}: {TABLE[name].guard} (the instance {instance.id})")
