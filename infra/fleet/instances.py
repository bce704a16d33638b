"""``vestibule instances``: the machines there are, or one of them with all that happened to it."""

import argparse
import json
import sys
from datetime import datetime
from typing import Any

from admission.instance import State
from infra.fleet import columns, decisions, figures, service
from infra.fleet.service import Service
from scheduler.fleet.codes import CODES

HEAD = ("INSTANCE", "STATE", "PROGRESS", "AGE", "COST", "WHERE", "ADDRESS", "POOL", "ERROR")
BELOW = 5  # columns that stand in the first line where they do not all fit


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule instances``."""
    parser.description = (
        "Show the machines of the fleet: how far they are, where, what they cost so far, and why"
        " there are no more of them. With ids: their disks and their history."
    )
    parser.add_argument("instances", metavar="ID", nargs="*", help="show these whole")
    parser.add_argument("--all", action="store_true", help="those that are archived, too")
    parser.add_argument("--pool", help="only those of this pool")
    parser.add_argument("--provider", help="only those of this provider")
    states = [state.value for state in State]
    words = f"one of {', '.join(states)}"
    parser.add_argument("--state", metavar="STATE", choices=states, help=words)
    service.add_words(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0.

    Raises:
        CommandError: nobody answers, or there is no such instance.
    """
    ours = service.of(args)
    found = [ours.instance(one) for one in args.instances] or _list(ours, args)
    pools = [] if args.instances else _pools(ours, args.pool)
    if args.json:
        more = {} if args.instances else {"pools": pools}
        print(json.dumps({"instances": found, **more}, indent=2))
    elif args.instances:
        print("\n\n".join("\n".join(_whole(one, ours.now)) for one in found))
    else:
        lines = _table(found, ours.now) if found else ["there are none"]
        lines += _unattended(found)
        lines += [f"\n{decisions.line(one, ours.now)}" for one in pools]
        print("\n".join(lines))
    return 0


def _unattended(found: list[dict[str, Any]]) -> list[str]:
    """What somebody should know who does not look at each: it costs on, and nobody ends it."""
    why: dict[str, list[str]] = {}
    for one in found:
        if one["unattended"]:
            why.setdefault(one["unattended"], []).append(one["instance_id"])
    return [f"\nUNATTENDED: {words}: {' '.join(names)}" for words, names in why.items()]


def _pools(ours: Service, pool: str | None) -> list[dict[str, Any]]:
    """What the autoscaler decided last."""
    found = ours.get("/admin/fleet")["pools"]
    return [one for one in found if pool in (None, one["pool"])]


def _list(ours: Service, args: argparse.Namespace) -> list[dict[str, Any]]:
    given = {"pool": args.pool, "provider": args.provider, "state": args.state}
    query = {name: value for name, value in given.items() if value}
    found: list[dict[str, Any]] = ours.get("/admin/instances", **query)["instances"]
    if args.all and not args.state:
        found += ours.get("/admin/instances", **query, state="archived")["instances"]
    return found


def _table(found: list[dict[str, Any]], now: datetime) -> list[str]:
    plain = columns.is_plain(sys.stdout)
    rows = [
        (
            one["instance_id"],
            "asked" if one["pending"] else one["state"],
            figures.bar(one["progress"], plain=plain),
            figures.age(one, now),
            figures.cost(one, now),
            figures.place(one),
            one["address"] or "-",
            one["pool"],
            one["error_code"] or ("UNATTENDED" if one["unattended"] else "-"),
        )
        for one in found
    ]
    return columns.lines(HEAD, rows, columns.width_of(sys.stdout), BELOW)


def _whole(one: dict[str, Any], now: datetime) -> list[str]:
    """One instance with its disks and its history, the oldest line first."""
    facts = {
        "state": "asked" if one["pending"] else one["state"],
        "progress": figures.bar(one["progress"], plain=columns.is_plain(sys.stdout)),
        "where": figures.place(one),
        "provider's id": one["provider_id"],
        "address": one["address"],
        "worker": one["worker_id"] if one["worker_id"] != one["instance_id"] else "",
        "pool": one["pool"],
        "model": one["model"],
        "asked by": one["asked_by"],
        "age": figures.age(one, now),
        "price": figures.price(one),
        "cost": figures.cost(one, now),
        "error": " ".join(filter(None, (one["error_code"], one["error"]))),
    }
    if one["unattended"]:
        facts["unattended"] = one["unattended"]
    if code := CODES.get(one["error_code"] or ""):
        facts["what to do"] = code.remedy
    found = [one["instance_id"]]
    found += [f"  {name:<14} {value}" for name, value in facts.items() if value]
    found += [f"  {'disk':<14} {_disk(each)}" for each in one["volumes"]]
    return found + ["  history", *(f"    {_line(each)}" for each in one["history"])]


def _disk(volume: dict[str, Any]) -> str:
    words = (
        volume["provider_volume_id"],
        volume["volume_type"],
        f"{volume['size_gb']} GB",
        "boot" if volume["is_boot"] else "",
        volume["state"],
        volume["deleted_at"] or "",
        "" if volume["delete_on_terminate"] else "(it stays when the machine ends)",
    )
    return " ".join(filter(None, words))


def _line(event: dict[str, Any]) -> str:
    """A transition with where it led, or an action and how it went."""
    led = f"{event['source'] or 'new'} → {event['target']}" if event["target"] else ""
    words = (
        event["at"][:19].replace("T", " "),
        f"{event['progress']:3d} %",
        event["name"],
        "" if event["ok"] else "FAILED",
        f"({led})" if led else "",
        event["reason"],
    )
    return " ".join(filter(None, words))
