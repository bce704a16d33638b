"""What is lost when machines end, in lines, for who is asked before it."""

from collections.abc import Sequence
from typing import Any

from admission.attendance import pool_tick
from infra.fleet import figures
from infra.fleet.service import Service

Json = dict[str, Any]
KINDS = {"session": "sessions are in use", "request": "requests run"}


def facts(ours: Service, wanted: Sequence[Json], waits: str) -> list[str]:
    """A line for each machine, and what follows for their pools. ``waits``: for what runs."""
    workers = {one["worker_id"]: one for one in ours.get("/admin/workers")["workers"]}
    offered = ours.get("/admin/instances/offers")["providers"]
    endings = {
        each["provider"]: offer["ending"] for each in offered for offer in each["offers"][:1]
    }
    lines = [
        f"  {one['instance_id']}  {figures.place(one)}, {_state(one)}: "
        + "; ".join(filter(None, (*_lost(one, workers), endings.get(one["provider"], ""))))
        + _cost(one, ours)
        for one in wanted
    ]
    return [*lines, *_pools(ours, workers, wanted), waits]


def _state(one: Json) -> str:
    if one["pending"]:
        return "asked for"
    way = one["state"] in ("provisioning", "booting")
    return f"{one['state']} at {one['progress']} %" if way else str(one["state"])


def _lost(one: Json, workers: dict[str, Json]) -> list[str]:
    """What runs there, and its disks."""
    worker = workers.get(one["worker_id"])
    running = worker["in_flight"] if worker else 0
    kept = sum(not each["delete_on_terminate"] for each in one["volumes"])
    gone = len(one["volumes"]) - kept
    return [
        figures.count(running, "request runs", "requests run"),
        figures.count(gone, "disk is deleted", "disks are deleted") if gone else "",
        figures.count(kept, "disk stays", "disks stay") if kept else "",
    ]


def _cost(one: Json, ours: Service) -> str:
    spent = figures.cost(one, ours.now)
    return "" if spent == "-" else f" ({spent} so far, {figures.price(one)})"


def _pools(ours: Service, workers: dict[str, Json], wanted: Sequence[Json]) -> list[str]:
    """Pools without a ready worker then, and those that may order others."""
    # An agent under a name of its own is somebody else's, and goes on.
    ends = {one["instance_id"] for one in wanted}
    known = {one["pool"]: one for one in ours.get("/admin/pools")["pools"]}
    led = {tick["name"] for tick in ours.get("/admin/ticks")["ticks"] if tick["holder"]}
    found = []
    for name in sorted({one["pool"] for one in wanted}):
        left = any(w["ready"] and w["pool"] == name for n, w in workers.items() if n not in ends)
        pool = known.get(name)
        if pool is None:
            continue
        if not left:
            used = f"{pool['active']} {KINDS[pool['kind']]}"
            found.append(f"  No ready worker is left for {name}: {used}, {pool['waiting']} wait.")
        if pool["capacity_setting"] == "auto" and pool_tick(name) in led:
            found.append(f"  {name} follows its queue: its autoscaler may order others.")
    return found
