"""``vestibule costs``: what machines cost, for whom, how fast, and how the budgets stand."""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from admission.accounting.cost import BY, OF_MACHINES
from infra.fleet import columns, figures, service

BURN = ("POOL", "RUNNING", "PER HOUR", "TODAY", "BY MIDNIGHT", "THIS MONTH", "BY ITS END")
BUDGETS = ("BUDGET", "SPENT", "", "", "", "", "", "")
BELOW = 3
NOBODY = "(unused)"
PERCENT_MAX = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule costs``."""
    parser.description = (
        "Show what machines cost: how fast now, and how the budgets stand; then, of the last 30"
        " days or as --from and --to say, whose it was. Shares follow the tokens (docs/costs.md)."
    )
    parser.add_argument("--by", choices=BY, default=BY[0], help=f"default: {BY[0]}")
    when = "an instant like 2026-11-21T08:00:00Z, or a day, in UTC"
    parser.add_argument("--from", dest="since", metavar="WHEN", help=when)
    parser.add_argument("--to", dest="until", metavar="WHEN")
    service.add_words(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0.

    Raises:
        CommandError: nobody answers, or a word is wrong.
    """
    ours = service.of(args)
    given = {"by": args.by, "from": args.since, "to": args.until}
    query = {name: word for name, word in given.items() if word is not None}
    spent = ours.get("/admin/costs", **query)
    now = ours.get("/admin/costs/now")
    if args.json:
        print(json.dumps({**spent, "now": now}, indent=2))
        return 0
    parts = (_burn(now), _budgets(now, ours.now), _costs(spent))
    print("\n\n".join("\n".join(part) for part in parts if part))
    return 0


def _burn(now: dict[str, Any]) -> list[str]:
    """How fast money is spent."""
    rows = [
        (
            one["pool"],
            f"{one['instances']}" + (f" ({one['unpriced']} unpriced)" if one["unpriced"] else ""),
            *(
                figures.money(one[name], one["currency"])
                for name in ("per_hour", "today", "today_expected", "month", "month_expected")
            ),
        )
        for one in now["burn"]
    ]
    return _table(BURN, rows, len(BURN)) if rows else ["no machine was billed this month"]


def _budgets(now: dict[str, Any], at: datetime) -> list[str]:
    """A line for each budget, with a bar."""
    rows = []
    for one in now["budgets"]:
        percent = round(one["share"] * 100)
        bar = figures.bar(min(percent, PERCENT_MAX), plain=columns.is_plain(sys.stdout))
        over = f" ({percent} %)" if percent > PERCENT_MAX else ""
        rows.append(
            (
                one["budget"],
                f"{one['spent']:.2f} of {one['amount']:g} {one['currency']}",
                bar + over,
                *_notes(one, at),
            )
        )
    return _table(BUDGETS, rows, BELOW) if rows else []


def _notes(one: dict[str, Any], now: datetime) -> tuple[str, ...]:
    """What is to be said of it, each "" where there is nothing to say."""
    told = " ".join(f"{alarm['share']:.0%}" for alarm in one["alarms"])
    return (
        f"used up {_until(one['used_up_at'], now)}" if one["used_up_at"] else "",
        f"ends {_until(one['end'], now)} with {figures.money(one['expected'], one['currency'])}",
        f"alarmed at {told}" if told else "",
        f"pool {one['pool']}" if one["pool"] else "",
        f"{_machines(one['uncounted'])} not counted" if one["uncounted"] else "",
    )


def _until(text: str, now: datetime) -> str:
    """An instant, and how far off it is."""
    at = datetime.fromisoformat(text)
    return f"{at:%Y-%m-%d %H:%M}Z (in {figures.span((at - now).total_seconds())})"


def _costs(spent: dict[str, Any]) -> list[str]:
    """What the time cost, part by part, and in all."""
    by = spent["by"]
    title = f"{spent['from'][:16]}Z to {spent['to'][:16]}Z, by {by}"
    head = (by.upper(), "COST", "USED", "UNUSED", "PROMPT", "COMPLETION")
    rows = [
        (
            _name(one, by),
            *(figures.money(one[name], one["currency"]) for name in ("cost", "used", "unused")),
            f"{one['prompt_tokens']:,}",
            f"{one['completion_tokens']:,}",
        )
        for one in spent["costs"]
    ]
    rows += [
        (
            "in all",
            *(figures.money(one[name], one["currency"]) for name in ("cost", "used", "unused")),
            "",
            "",
        )
        for one in spent["totals"]
    ]
    found = [title, *(_table(head, rows, len(head)) if rows else ["nothing was billed"])]
    return [*found, *_unpriced(spent["unpriced"])]


def _name(one: dict[str, Any], by: str) -> str:
    if one["begin"] is not None:
        return str(one["begin"][: 10 if by == "day" else 16])
    name = one[by]
    if name is None:
        return NOBODY
    return str(name) or ("(none)" if by not in OF_MACHINES else "-")


def _unpriced(one: dict[str, Any]) -> list[str]:
    found = []
    if one["instances"]:
        found.append(
            f"not known: what {_machines(one['instances'])} without a price cost in"
            f" {one['hours']:g} h"
        )
    tokens = one["prompt_tokens"] + one["completion_tokens"]
    if tokens:
        found.append(f"not known: what {tokens:,} tokens of workers without a price cost")
    return found


def _machines(number: int) -> str:
    return figures.count(number, "machine", "machines")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], least: int) -> list[str]:
    return columns.lines(head, rows, columns.width_of(sys.stdout), least)
