"""``vestibule drain``: a machine gets nothing new, finishes what runs, and is ended."""

import argparse
import json
from typing import Any

from infra.fleet import service
from infra.fleet.service import Refused, Service


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule drain``."""
    parser.description = (
        "Let a machine finish what runs on it and get nothing new; when it is empty, or its time is"
        " over, it is ended. A worker that no provider made is drained too, and goes on running."
    )
    parser.add_argument("instance", metavar="ID", help="an instance, or a worker")
    parser.add_argument(
        "--deadline",
        type=int,
        metavar="SECONDS",
        help="what runs is given so long; default: what the settings say",
    )
    parser.add_argument("--reason", default="", help="as it will stand in the history")
    service.add_words(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0.

    Raises:
        CommandError: nobody answers, there is no such machine, or it is in no state for it.
    """
    ours = service.of(args)
    body = {"reason": args.reason, "drain": args.deadline}
    try:
        said = ours.post(f"/admin/instances/{args.instance}/drain", body)
        words = "drains, and is ended then"
    except Refused as refusal:
        said = _drain_worker(ours, args.instance, refusal)
        words = "drains; nobody ends it, as no provider made it"
    if args.json:
        print(json.dumps(said, indent=2))
    else:
        print(f"{args.instance} {words}. Follow: vestibule instances {args.instance}")
    return 0


def _drain_worker(ours: Service, name: str, refusal: Refused) -> dict[str, Any]:
    """A worker without an instance.

    Raises:
        Refused: there is none of this name either.
    """
    if refusal.status not in (404, 422):
        raise refusal
    for worker in ours.get("/admin/workers")["workers"]:
        if worker["worker_id"] == name:
            return ours.post(f"/admin/workers/{name}/drain?pool={worker['pool']}", {})
    raise refusal
