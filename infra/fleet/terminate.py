"""``vestibule terminate``: end machines, with their disks."""

import argparse
import json
from typing import Any

from infra import consent
from infra.fleet import ending, figures, numbers, service
from infra.fleet.service import Refused, Service

OVER = frozenset({"terminating", "terminated", "archived"})


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule terminate``."""
    parser.description = (
        "End machines with their disks: those named, or all of a pool. What runs on a ready one is"
        " given its time to finish, unless --force ends it. Exit code 1 when one could not be."
    )
    parser.add_argument("instances", metavar="ID", nargs="*")
    parser.add_argument("--pool", help="all machines of this pool, whoever ordered them")
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--force", action="store_true", help="at once, whatever runs")
    when.add_argument(
        "--deadline",
        type=numbers.seconds,
        metavar="SECONDS",
        help="what runs is given so long; default: what the settings say",
    )
    parser.add_argument("--reason", default="", help="as it will stand in the history")
    service.add_words(parser)
    consent.add_words(parser)
    parser.set_defaults(run=run, wrong=parser.error)


def run(args: argparse.Namespace) -> int:
    """0 when all of them are ending, 1 when one is not, or it was not agreed to.

    Raises:
        CommandError: nobody answers, there is no such machine, or there is nobody to ask.
    """
    if bool(args.instances) == (args.pool is not None):
        args.wrong("name machines, or a pool: ID … or --pool POOL")
    ours = service.of(args)
    found = _named(ours, args)  # all, before any is ended
    wanted = [one for one in found if one["state"] not in OVER]
    what = f"End {figures.count(len(wanted), 'machine', 'machines')}"
    facts = ending.facts(ours, wanted, _waits(args, wanted)) if wanted and not args.yes else []
    if wanted and not consent.given(args, what, facts):
        return 1
    said: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for one in wanted:
        try:
            said[one["instance_id"]] = _end(ours, one["instance_id"], args)
        except Refused as error:  # as when it came to its end meanwhile; the others go on
            failed[one["instance_id"]] = str(error)
    if args.json:
        print(json.dumps({"commands": list(said.values()), "failed": failed}, indent=2))
    else:
        for one in found:
            print(f"{one['instance_id']} {_became(one, args, failed)}")
        if not found:
            print(f"the pool {args.pool} has no machines")
    return 1 if failed else 0


def _named(ours: Service, args: argparse.Namespace) -> list[dict[str, Any]]:
    if args.pool is None:
        return [ours.instance(one) for one in dict.fromkeys(args.instances)]
    found = ours.get("/admin/instances", pool=args.pool)["instances"]
    return [one for one in found if one["state"] not in OVER]


def _end(ours: Service, name: str, args: argparse.Namespace) -> dict[str, Any]:
    how: dict[str, str | int] = {"force": "true"} if args.force else {}
    if args.deadline is not None:
        how = {"drain": args.deadline}
    return ours.delete(f"/admin/instances/{name}", reason=args.reason, **how)


def _waits(args: argparse.Namespace, wanted: list[dict[str, Any]]) -> str:
    if args.force or args.deadline == 0:
        return "  What runs is not waited for."
    if args.deadline is not None:
        return f"  What runs is given {args.deadline} s to finish."
    if any(one["state"] == "draining" for one in wanted):
        return "  What runs is given its time to finish, but not where it drains already."
    return "  What runs is given its time to finish."


def _became(one: dict[str, Any], args: argparse.Namespace, failed: dict[str, str]) -> str:
    if one["state"] in OVER:
        return f"is {one['state']} already"
    if why := failed.get(one["instance_id"]):
        return f"does not end: {why}"
    waits = one["state"] == "ready" or (one["state"] == "draining" and args.deadline)
    return "drains, then it ends" if waits and not args.force and args.deadline != 0 else "ends now"
