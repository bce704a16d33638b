"""The arrows of the life cycle (``table``): for each row a pure function of its name.

It is given the record as it was read and the time, and gives the next record and the line of its
history; where the table does not allow it, it raises `NotAllowed` and there is no next record.
Nobody else makes one.
"""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from admission.instance import Event, Instance, Order, State, Volume
from scheduler.fleet.codes import CODES
from scheduler.fleet.table import HEALTHY, REQUESTED, TABLE, Made, NotAllowed, make, must

WORDS_MAX = 500  # characters; a provider's own words may be of any length

# --- it begins ------------------------------------------------------------------------------------


def request(
    instance_id: str, order: Order, now_ms: int, *, asked_by: str = "", reason: str = ""
) -> Made:
    """A new instance, which nobody has ordered at its provider yet."""
    new = Instance(
        id=instance_id,
        order=order,
        state=State.PROVISIONING,
        version=1,
        progress=REQUESTED,
        requested_ms=now_ms,
        since_ms=now_ms,
        moved_ms=now_ms,
        asked_by=asked_by,
    )
    return new, _birth("request", new, now_ms, reason)


def adopt(
    instance_id: str,
    order: Order,
    provider_id: str,
    now_ms: int,
    *,
    launched_ms: int | None = None,
    volume: Volume | None = None,
) -> Made:
    """A record of a machine that only its provider knew, or of a ``volume`` that is left of one; it
    is ended from here on."""
    new = Instance(
        id=instance_id,
        order=order,
        state=State.TERMINATING,
        version=1,
        progress=0,
        requested_ms=now_ms,
        since_ms=now_ms,
        moved_ms=now_ms,
        asked_by="orphans",
        provider_id=provider_id,
        error_code="ORPHAN",
        error=CODES["ORPHAN"].words,
        tried_ms=launched_ms or now_ms,
        launched_ms=launched_ms or now_ms,
        ended_ms=now_ms if volume else None,
        volumes=with_volumes((), [volume]) if volume else (),
    )
    return new, _birth("adopt", new, now_ms, CODES["ORPHAN"].words)


def _birth(name: str, new: Instance, now_ms: int, reason: str) -> Event:
    return Event(
        instance_id=new.id,
        at_ms=now_ms,
        version=1,
        name=name,
        target=new.state,
        reason=reason or TABLE[name].doc,
        progress=new.progress,
    )


def try_launch(instance: Instance, now_ms: int) -> Made:
    """The intent: written before the provider is asked, each time."""
    return make("try_launch", instance, now_ms, "", tried_ms=now_ms)


def create(
    instance: Instance,
    now_ms: int,
    *,
    provider_id: str,
    launched_ms: int | None = None,
    worker_id: str = "",
) -> Made:
    """``launched_ms``: as the provider says; else it is billed from when it was tried."""
    must(bool(provider_id), "create", instance)
    began_ms = launched_ms or instance.tried_ms or now_ms
    changes: dict[str, Any] = {"provider_id": provider_id, "launched_ms": began_ms}
    changes |= {"worker_id": worker_id} if worker_id != instance.id else {}
    return make("create", instance, now_ms, "", {"provider_id": provider_id}, **changes)


# --- on the way to ready --------------------------------------------------------------------------


def _further(name: str, instance: Instance, now_ms: int, reason: str, **changes: Any) -> Made:
    must(instance.progress < (TABLE[name].progress or 0), name, instance)
    return make(name, instance, now_ms, reason, **changes)


def start(instance: Instance, now_ms: int, *, reason: str = "") -> Made:
    """It runs, in its provider's eyes."""
    return _further("start", instance, now_ms, reason)


def address(instance: Instance, now_ms: int, *, address: str, reason: str = "") -> Made:
    """The host of its agent is known."""
    return _further("address", instance, now_ms, reason, address=address)


def install(instance: Instance, now_ms: int, *, reason: str = "") -> Made:
    """Its agent was heard, or the provider started it."""
    return _further("install", instance, now_ms, reason)


def answer(instance: Instance, now_ms: int, *, reason: str = "") -> Made:
    """Its model server runs."""
    return _further("answer", instance, now_ms, reason)


def load(instance: Instance, now_ms: int, *, reason: str = "") -> Made:
    """Its model server lists the model."""
    return _further("load", instance, now_ms, reason)


def warm(instance: Instance, now_ms: int, *, reason: str = "") -> Made:
    """Its model answered the agent's own request."""
    return _further("warm", instance, now_ms, reason)


def pass_health(instance: Instance, now_ms: int, *, reason: str = "") -> Made:
    """What it says is young, and the scheduler has nothing against it."""
    return _further("pass_health", instance, now_ms, reason)


def become_ready(instance: Instance, now_ms: int, *, reason: str = "") -> Made:
    """The gateway may route to it."""
    first_ms = instance.ready_ms or now_ms
    return make("become_ready", instance, now_ms, reason, ready_ms=first_ms)


# --- it fails -------------------------------------------------------------------------------------


def _failing(name: str, instance: Instance, now_ms: int, code: str, words: str) -> Made:
    must(code in CODES, name, instance)
    words = (words or CODES[code].words)[:WORDS_MAX]
    changes: dict[str, Any] = {"error_code": code, "error": words}
    return make(name, instance, now_ms, words, {"code": code}, **changes)


def fail_provisioning(instance: Instance, now_ms: int, *, code: str, words: str = "") -> Made:
    """The provider refused it, or gave no answer for too long."""
    return _failing("fail_provisioning", instance, now_ms, code, words)


def fail_startup(instance: Instance, now_ms: int, *, code: str, words: str = "") -> Made:
    """It was made, and will not become ready, or not in time."""
    return _failing("fail_startup", instance, now_ms, code, words)


def rescue(instance: Instance, now_ms: int, *, progress: int, reason: str = "") -> Made:
    """A heartbeat came after the time-out and shows more ``progress`` than there was, or that all
    is well."""
    news = progress > instance.progress or progress >= HEALTHY
    must(news and instance.error_code == "STARTUP_TIMEOUT", "rescue", instance)
    further = min(progress, HEALTHY)
    changes: dict[str, Any] = {"error_code": "", "error": "", "progress": further}
    return make("rescue", instance, now_ms, reason, **changes)


def fail(instance: Instance, now_ms: int, *, code: str, words: str = "") -> Made:
    """It was ready, and is lost."""
    return _failing("fail", instance, now_ms, code, words)


# --- it is drained --------------------------------------------------------------------------------


def drain(instance: Instance, now_ms: int, *, by_ms: int, reason: str = "", code: str = "") -> Made:
    """``by_ms``: its requests are given until then. ``code``: what forced it, if anything did."""
    changes: dict[str, Any] = {"drain_by_ms": by_ms}
    if code:
        changes |= {"error_code": code, "error": CODES[code].words}
    return make("drain", instance, now_ms, reason, {"by_ms": by_ms}, **changes)


def redate(
    instance: Instance, now_ms: int, *, by_ms: int, reason: str = "", code: str = ""
) -> Made:
    """Another deadline, as when the provider takes it back sooner."""
    changes: dict[str, Any] = {"drain_by_ms": by_ms}
    if code:
        changes |= {"error_code": code, "error": CODES[code].words}
    must(by_ms != instance.drain_by_ms or code != instance.error_code, "redate", instance)
    return make("redate", instance, now_ms, reason, {"by_ms": by_ms}, **changes)


def resume(instance: Instance, now_ms: int, *, reason: str = "") -> Made:
    """The drain is taken back."""
    must(not instance.error_code, "resume", instance)
    return make("resume", instance, now_ms, reason, drain_by_ms=None)


# --- it ends --------------------------------------------------------------------------------------


def terminate(
    instance: Instance, now_ms: int, *, reason: str = "", code: str = "", words: str = ""
) -> Made:
    """From here there is no way back. A code that it has is kept."""
    changes: dict[str, Any] = {}
    if code and not instance.error_code:
        changes = {"error_code": code, "error": (words or CODES[code].words)[:WORDS_MAX]}
    return make("terminate", instance, now_ms, reason, **changes)


def find(
    instance: Instance, now_ms: int, *, provider_id: str, launched_ms: int | None = None
) -> Made:
    """The reply to its launch was lost, and it was ended before that was known."""
    must(not instance.provider_id and instance.ended_ms is None, "find", instance)
    began_ms = launched_ms or instance.tried_ms
    changes: dict[str, Any] = {"provider_id": provider_id, "launched_ms": began_ms}
    return make("find", instance, now_ms, "", {"provider_id": provider_id}, **changes)


def lose_machine(instance: Instance, now_ms: int, *, reason: str = "") -> Made:
    """It is billed no longer; its disks may be."""
    must(instance.ended_ms is None, "lose_machine", instance)
    return make("lose_machine", instance, now_ms, reason, ended_ms=now_ms)


def see_volumes(instance: Instance, now_ms: int, *, found: Sequence[Volume]) -> Made:
    """Remember its disks: new ones are added, and what is known of one is brought up to date.

    How far the deletion of one has come is ours to say, and is not taken from ``found``.
    """
    after = with_volumes(instance.volumes, found)
    must(after != instance.volumes, "see_volumes", instance)
    ids = ",".join(each.provider_volume_id for each in after)
    return make("see_volumes", instance, now_ms, "", {"volumes": ids}, volumes=after)


def with_volumes(known: tuple[Volume, ...], found: Sequence[Volume]) -> tuple[Volume, ...]:
    """What is known of disks after they were ``found``; data before boot, then by id."""
    by_id = {each.provider_volume_id: each for each in known}
    for each in found:
        before = by_id.get(each.provider_volume_id)
        if before is None:
            by_id[each.provider_volume_id] = replace(each, state="attached", deleted_ms=None)
        elif before.state == "attached":
            # A disk that lost its machine does not tell any more that it booted it.
            boots = each.is_boot or before.is_boot
            kept = replace(each, state="attached", deleted_ms=None, is_boot=boots)
            by_id[each.provider_volume_id] = kept
    return tuple(sorted(by_id.values(), key=lambda each: (each.is_boot, each.provider_volume_id)))


def volume_of(instance: Instance, volume_id: str) -> Volume:
    """Raises NotAllowed when it has no such disk."""
    for each in instance.volumes:
        if each.provider_volume_id == volume_id:
            return each
    raise NotAllowed(f"the instance {instance.id} has no volume {volume_id}")


def _settle(name: str, instance: Instance, now_ms: int, volume: Volume, reason: str = "") -> Made:
    volumes = tuple(
        volume if each.provider_volume_id == volume.provider_volume_id else each
        for each in instance.volumes
    )
    about = {"volume": volume.provider_volume_id, "boot": volume.is_boot, "gb": volume.size_gb}
    return make(name, instance, now_ms, reason, about, volumes=volumes)


def delete_volume(instance: Instance, now_ms: int, *, volume_id: str) -> Made:
    """The intent: written before the provider is asked."""
    volume = volume_of(instance, volume_id)
    ours = volume.delete_on_terminate and volume.state == "attached"
    must(ours and instance.ended_ms is not None, "delete_volume", instance)
    return _settle("delete_volume", instance, now_ms, replace(volume, state="deleting"))


def lose_volume(instance: Instance, now_ms: int, *, volume_id: str, reason: str = "") -> Made:
    """Only on the provider's own word."""
    volume = volume_of(instance, volume_id)
    must(volume.state == "deleting", "lose_volume", instance)
    after = replace(volume, state="deleted", deleted_ms=now_ms)
    return _settle("lose_volume", instance, now_ms, after, reason)


def keep_volume(instance: Instance, now_ms: int, *, volume_id: str) -> Made:
    """It is not ours to delete."""
    volume = volume_of(instance, volume_id)
    kept = not volume.delete_on_terminate and volume.state == "attached"
    must(kept, "keep_volume", instance)
    return _settle("keep_volume", instance, now_ms, replace(volume, state="kept"))


def pend(instance: Instance, now_ms: int, *, code: str) -> Made:
    """Show that it takes long; the code goes when it is over."""
    must(not instance.error_code, "pend", instance)
    words = CODES[code].words
    return make("pend", instance, now_ms, words, {"code": code}, error_code=code, error=words)


def end(instance: Instance, now_ms: int, *, reason: str = "") -> Made:
    """Nothing of it is billed any more, but for what is kept."""
    done = all(each.state in {"deleted", "kept"} for each in instance.volumes)
    must(done and instance.ended_ms is not None, "end", instance)
    changes: dict[str, Any] = {}
    if instance.error_code in {"VOLUMES_DELETE_PENDING", "TERMINATE_PENDING"}:
        changes = {"error_code": "", "error": ""}
    return make("end", instance, now_ms, reason, **changes)


def reappear(instance: Instance, now_ms: int, *, provider_id: str) -> Made:
    """As when a scheduler that had slept asked for it after its end was proven."""
    changes: dict[str, Any] = {
        "provider_id": provider_id,
        "ended_ms": None,
        "tried_ms": now_ms,
        "launched_ms": instance.launched_ms or now_ms,
        "error_code": instance.error_code or "ORPHAN",
        "error": instance.error or CODES["ORPHAN"].words,
    }
    return make("reappear", instance, now_ms, "", {"provider_id": provider_id}, **changes)


def reopen(instance: Instance, now_ms: int, *, volume: Volume) -> Made:
    """The machine stays gone, as it was."""
    left = replace(volume, state="attached", deleted_ms=None)
    others = [
        each for each in instance.volumes if each.provider_volume_id != volume.provider_volume_id
    ]
    detail = {"volume": volume.provider_volume_id}
    changes: dict[str, Any] = {
        "volumes": (*others, left),
        "tried_ms": instance.tried_ms or now_ms,
        "ended_ms": instance.ended_ms or instance.since_ms,
    }
    return make("reopen", instance, now_ms, "", detail, **changes)


def archive(instance: Instance, now_ms: int, *, reason: str = "") -> Made:
    """Its history stays."""
    return make("archive", instance, now_ms, reason)
