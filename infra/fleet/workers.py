"""``vestibule workers``: the model servers, and what each is doing."""

import argparse
import json
import sys
from datetime import datetime
from typing import Any

from infra.fleet import columns, figures, service

HEAD = ("WORKER", "STATE", "POOL", "IN USE", "GPU", "HEARD", "MODELS", "ADDRESS", "WHY")
BELOW = 6


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule workers``."""
    parser.description = "Show the workers: who gets requests, how many, and why one gets none."
    parser.add_argument("--pool", help="only those that serve it")
    service.add_words(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0.

    Raises:
        CommandError: nobody answers.
    """
    ours = service.of(args)
    found = [
        one for one in ours.get("/admin/workers")["workers"] if args.pool in (None, one["pool"])
    ]
    if args.json:
        print(json.dumps({"workers": found}, indent=2))
        return 0
    rows = [_row(one, ours.now) for one in found]
    width = columns.width_of(sys.stdout)
    print("\n".join(columns.lines(HEAD, rows, width, BELOW)) if rows else "there are none")
    return 0


def _row(one: dict[str, Any], now: datetime) -> tuple[str, ...]:
    load = (one["load"] or {}).get("gpu_load")
    heard = figures.instant(one["last_seen"])
    return (
        one["worker_id"],
        state(one),
        one["pool"],
        f"{one['in_flight']} of {one['slots']}",
        "-" if load is None else f"{load:.0%}",
        "-" if heard is None else figures.span((now - heard).total_seconds()),
        " ".join(one["models"]) or "-",
        one["url"],
        "-" if one["ready"] else one["reason"] or "-",
    )


def state(one: dict[str, Any]) -> str:
    """In one word."""
    if one["draining"]:
        return "draining"
    return "ready" if one["ready"] else "unready"
