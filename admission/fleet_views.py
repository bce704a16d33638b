"""JSON out: instances, their disks, what happened to them, what may be ordered."""

from typing import Any

from admission.decision_views import pool_event_view
from admission.instance import BUDGET_ALARM, Command, Event, Instance, Kind, State, Volume
from admission.store.fleet_records import Recorded
from admission.store.fleet_store import Offered
from admission.views import iso


def instance_view(one: Instance, *, pending: bool = False) -> dict[str, Any]:
    """One instance of ``/admin/instances``. ``pending``: no scheduler has taken its command."""
    order = one.order
    return {
        "instance_id": one.id,
        "state": one.state.value,
        "pending": pending,
        "progress": one.progress,
        "version": one.version,
        "provider": order.provider,
        "pool": order.pool,
        "type": order.type,
        "zone": order.zone,
        "market": order.market,
        "model": order.model,
        "options": order.options,
        "price_per_hour": order.price_per_hour,
        "currency": order.currency,
        "asked_by": one.asked_by,
        "provider_id": one.provider_id,
        "worker_id": one.worker_id or one.id,
        "address": one.address,
        "error_code": one.error_code or None,
        "error": one.error or None,
        "requested_at": iso(one.requested_ms),
        "since": iso(one.since_ms),
        "moved_at": iso(one.moved_ms),
        "launched_at": iso(one.launched_ms),
        "ready_at": iso(one.ready_ms),
        "drain_by": iso(one.drain_by_ms),
        "ended_at": iso(one.ended_ms),
        "volumes": [volume_view(volume) for volume in one.volumes],
    }


def pending_instances(command: Command) -> list[Instance]:
    """The machines of a provision that no scheduler has taken, as they will begin."""
    if command.kind is not Kind.PROVISION or command.order is None:
        return []
    at_ms = command.at_ms
    return [
        Instance(
            instance_id,
            command.order,
            State.PROVISIONING,
            version=0,
            progress=0,
            requested_ms=at_ms,
            since_ms=at_ms,
            moved_ms=at_ms,
            asked_by=command.asked_by,
        )
        for instance_id in command.instances
    ]


def volume_view(volume: Volume) -> dict[str, Any]:
    return {
        "provider_volume_id": volume.provider_volume_id,
        "volume_type": volume.volume_type,
        "size_gb": volume.size_gb,
        "is_boot": volume.is_boot,
        "delete_on_terminate": volume.delete_on_terminate,
        "state": volume.state,
        "deleted_at": iso(volume.deleted_ms),
    }


def event_view(event: Event) -> dict[str, Any]:
    """One line of an instance's history; of a transition with the states it led from and to."""
    return {
        "instance_id": event.instance_id,
        "at": iso(event.at_ms),
        "version": event.version,
        "name": event.name,
        "source": event.source or None,
        "target": event.target or None,
        "reason": event.reason,
        "progress": event.progress,
        "ok": event.ok,
        "detail": event.detail,
    }


def kind_of(event: Event) -> str:
    """What it is called on ``/admin/events``."""
    if event.name == BUDGET_ALARM:
        return "budget"
    return "fleet" if event.instance_id else "pool"


def recorded_view(recorded: Recorded) -> dict[str, Any]:
    """One event of ``/admin/events``, with the instance after it where it changed."""
    event, one = recorded.event, recorded.instance
    if kind_of(event) == "budget":
        return {"at": iso(event.at_ms), "reason": event.reason, **event.detail}
    if kind_of(event) == "pool":
        return pool_event_view(event)
    return {**event_view(event), "instance": None if one is None else instance_view(one)}


def offers_view(known: dict[str, Offered]) -> dict[str, Any]:
    """``GET /admin/instances/offers``."""
    return {
        "providers": [
            {
                "provider": name,
                "asked_at": iso(offered.at_ms),
                "offers": [
                    {each: getattr(offer, each) for each in offer.__struct_fields__}
                    for offer in offered.offers
                ],
            }
            for name, offered in known.items()
        ]
    }
