"""``vestibule terminate``: end machines, with their disks."""

import argparse
import json
from typing import Any

from infra.fleet import consent, figures, service
from infra.fleet.service import Service

OVER = frozenset({"terminating", "terminated", "archived"})


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule terminate``."""
    parser.description = (
        "End machines with their disks. What runs there is given its time to finish, unless"
        " --force ends it."
    )
    parser.add_argument("instances", metavar="ID", nargs="+")
    parser.add_argument("--force", action="store_true", help="at once, whatever runs")
    parser.add_argument("--reason", default="", help="as it will stand in the history")
    service.add_words(parser)
    consent.add_words(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when all of them are ending, 1 when it was not agreed to.

    Raises:
        CommandError: nobody answers, there is no such machine, or there is nobody to ask.
    """
    ours = service.of(args)
    named = dict.fromkeys(args.instances)
    found = [ours.get(f"/admin/instances/{one}") for one in named]  # all, before any is ended
    wanted = [one for one in found if one["state"] not in OVER]
    if wanted and not consent.given(args, _question(ours, wanted, force=args.force)):
        return 1
    force = {"force": "true"} if args.force else {}
    said = [
        ours.delete(f"/admin/instances/{one['instance_id']}", reason=args.reason, **force)
        for one in wanted
    ]
    if args.json:
        print(json.dumps({"commands": said}, indent=2))
        return 0
    for one in found:
        words = f"is {one['state']} already"
        if one in wanted:
            words = "ends now" if args.force or one["state"] != "ready" else "drains, then it ends"
        print(f"{one['instance_id']} {words}")
    return 0


def _question(ours: Service, wanted: list[dict[str, Any]], *, force: bool) -> str:
    """What would be lost, in numbers."""
    workers = {one["worker_id"]: one for one in ours.get("/admin/workers")["workers"]}
    ids = [one["instance_id"] for one in wanted]
    running = sum(workers[each]["in_flight"] for each in ids if each in workers)
    kept = [v for one in wanted for v in one["volumes"] if not v["delete_on_terminate"]]
    disks = sum(len(one["volumes"]) for one in wanted) - len(kept)
    named = ", ".join(f"{one['instance_id']} ({figures.place(one)})" for one in wanted)
    rest = f"requests that run there now: {running}"
    rest += ", which are cut off" if force and running else ""
    if disks:
        rest += f"; disks that are deleted: {disks}"
    return f"End {named}; {rest}" + _pools_left(workers, ids, wanted)


def _pools_left(workers: dict[str, Any], ids: list[str], wanted: list[dict[str, Any]]) -> str:
    """The pools that would have no worker left."""
    bare = [
        pool
        for pool in sorted({one["pool"] for one in wanted})
        if not any(
            one["ready"] and one["pool"] == pool and name not in ids
            for name, one in workers.items()
        )
    ]
    return f"; no ready worker is left for {', '.join(bare)}" if bare else ""
