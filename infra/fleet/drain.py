"""``vestibule drain``: a machine gets nothing new, finishes what runs, and is ended."""

import argparse
import json
from typing import Any

from infra import consent
from infra.errors import CommandError
from infra.fleet import ending, numbers, service
from infra.fleet.service import Refused, Service

DRAINS = ("ready", "draining")


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule drain``."""
    parser.description = (
        "Let a machine finish what runs on it and get nothing new; when it is empty, or its time is"
        " over, it is ended. A worker that no provider made is drained too, and goes on running."
    )
    parser.add_argument("instance", metavar="ID", help="an instance, or a worker")
    parser.add_argument(
        "--deadline",
        type=numbers.seconds,
        metavar="SECONDS",
        help="what runs is given so long; default: what the settings say",
    )
    parser.add_argument("--reason", default="", help="as it will stand in the history")
    service.add_words(parser)
    consent.add_words(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0, or 1 when it was not agreed to.

    Raises:
        CommandError: nobody answers, there is no such machine, it is in no state for it, or there
            is nobody to ask.
    """
    ours = service.of(args)
    one = _instance(ours, args.instance)
    if isinstance(one, Refused):
        said = _drain_worker(ours, args.instance, one)
        words = f"{args.instance} drains; nobody ends it, as no provider made it"
        words += ". Follow: vestibule workers"
    else:
        name = one["instance_id"]
        if one["state"] not in DRAINS:
            raise CommandError(f"{name} is {one['state']}: only a machine that is ready is drained")
        given = "its time" if args.deadline is None else f"{args.deadline} s"
        waits = f"  What runs is given {given} to finish."
        facts = [] if args.yes else ending.facts(ours, [one], waits)
        if not consent.given(args, f"Drain {name}, and end it then", facts):
            return 1
        body = {"reason": args.reason, "drain": args.deadline}
        said = ours.post(f"/admin/instances/{name}/drain", body)
        words = f"{name} drains, and is ended then. Follow: vestibule instances {name}"
    print(json.dumps(said, indent=2) if args.json else words)
    return 0


def _instance(ours: Service, name: str) -> dict[str, Any] | Refused:
    """The machine of this name, or whose worker has it; else what is said to the name.

    Raises:
        Refused: something else is wrong.
    """
    try:
        return ours.instance(name)
    except Refused as refusal:
        if refusal.status not in (404, 422):
            raise
        for one in ours.get("/admin/instances")["instances"]:
            if one["worker_id"] == name and one["state"] in DRAINS:
                found: dict[str, Any] = one
                return found
        return refusal


def _drain_worker(ours: Service, name: str, refusal: Refused) -> dict[str, Any]:
    """A worker without an instance.

    Raises:
        Refused: there is none of this name either.
    """
    for worker in ours.get("/admin/workers")["workers"]:
        if worker["worker_id"] == name:
            return ours.post(f"/admin/workers/{name}/drain?pool={worker['pool']}", {})
    raise refusal
