"""``vestibule provision``: order machines, and watch them until they are ready."""

import argparse
import json
import sys
import time
from contextlib import closing
from typing import Any

from infra import consent
from infra.errors import CommandError
from infra.fleet import figures, numbers, service
from infra.fleet.bars import Bars, Way
from infra.fleet.service import Refused, Service, Unanswered

DRAW_S = 1.0
LOOK_S = 15.0  # also while the stream tells everything
AWAY_S = 120.0  # a service that is started again is waited for


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule provision``."""
    parser.description = (
        "Order machines from a provider of the fleet's file, and show how far they are until all"
        " are ready. What is left out is that of the cheapest offer. Exit code 1 when one failed."
    )
    parser.add_argument("--provider", help="a name among [providers.NAME]; default: the only one")
    parser.add_argument("--type", default="", help="the provider's name of a machine type")
    parser.add_argument("--zone", default="", help="the provider's name of a zone")
    parser.add_argument(
        "--market", default="on-demand", choices=("on-demand", "spot"), help="default: on-demand"
    )
    parser.add_argument("--pool", default="default", help="the pool it serves; default: default")
    parser.add_argument("--model", default="", help="default: what the provider's settings say")
    count = "so many; default: 1"
    parser.add_argument("--count", type=numbers.machines, default=1, metavar="N", help=count)
    parser.add_argument("--reason", default="", help="as it will stand in the history")
    parser.add_argument("--no-wait", action="store_true", help="order, and do not watch")
    service.add_words(parser)
    consent.add_words(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when all are ready (or ordered, with ``--no-wait``), else 1; 130 after Ctrl-C.

    Raises:
        CommandError: nobody answers, the order makes no sense, or there is nobody to ask.
    """
    ours = service.of(args)
    offer = _offer(ours, args)
    if offer["price_per_hour"] and not consent.given(args, _question(offer, args.count)):
        return 1
    body = {
        **{name: offer[name] for name in ("provider", "type", "zone", "market")},
        **{name: getattr(args, name) for name in ("pool", "model", "count", "reason")},
    }
    try:
        ordered = ours.post("/admin/instances", body)
    except KeyboardInterrupt:
        print("\nit may be ordered or not: vestibule instances shows it", file=sys.stderr)
        return 130
    ways = [Way(instance_id) for instance_id in ordered["instances"]]
    if not args.no_wait:
        try:
            _watch(ours, ways, Bars(sys.stderr))
        except KeyboardInterrupt:
            print(_how_to_follow(ways), file=sys.stderr)
            return 130
    return _tell(ordered, ways, args)


def _offer(ours: Service, args: argparse.Namespace) -> dict[str, Any]:
    """The cheapest that fits, with its provider's name.

    Raises:
        CommandError: there is none, or several providers could be meant.
    """
    known = {each["provider"]: each for each in ours.get("/admin/instances/offers")["providers"]}
    if not known:
        raise CommandError(
            "no scheduler has published what can be ordered: set VESTIBULE_FLEET for"
            " `vestibule up` or `vestibule scheduler`"
        )
    name = args.provider or (next(iter(known)) if len(known) == 1 else "")
    if name not in known:
        raise CommandError(f"--provider: one of {', '.join(known)}")
    fits = known[name]["offers"]
    if not fits:
        raise CommandError(f"{name} has nothing to offer now")
    for word in ("type", "zone", "market"):
        wanted, there = getattr(args, word), sorted({each[word] for each in fits})
        fits = [each for each in fits if wanted in ("", each[word])]
        if not fits:
            raise CommandError(f"--{word}: {name} offers {', '.join(there)}, not {wanted}")
    return {**min(fits, key=lambda each: each["price_per_hour"] or 0), "provider": name}


def _question(offer: dict[str, Any], count: int) -> str:
    total = figures.money(offer["price_per_hour"] * count, offer["currency"])
    in_all = f", {total} in all" if count > 1 else ""
    source = f" (price: {offer['source']})" if offer["source"] else ""
    return f"Order {count} × {figures.place(offer)} at {figures.price(offer)}{in_all}{source}"


def _watch(ours: Service, ways: list[Way], bars: Bars) -> None:
    """Until each is ready or has failed.

    Raises:
        CommandError: the service is away, and did not come back.
    """
    began, looked, seen = time.monotonic(), 0.0, 0.0
    by_id = {way.instance_id: way for way in ways}
    with closing(ours.follow(DRAW_S)) as told:
        for news in told:
            seconds = time.monotonic() - began
            event = news.event if news else None
            if event is not None and event["instance_id"] in by_id:
                _heard(by_id[event["instance_id"]], event)
            if (news and event is None) or seconds - looked > LOOK_S:
                looked = seconds
                try:
                    for way in ways:
                        _look(ours, way)
                    seen = seconds
                except Unanswered:
                    if seconds - seen > AWAY_S:
                        raise
            bars.show(ways, seconds)
            if all(way.is_over for way in ways):
                return


def _heard(way: Way, event: dict[str, Any]) -> None:
    if event["instance"] is not None:
        way.view = event["instance"]
    elif event["name"] == "provision" and not event["ok"]:
        way.refusal = event["reason"]


def _look(ours: Service, way: Way) -> None:
    try:
        found = ours.get(f"/admin/instances/{way.instance_id}")
    except Refused as error:
        if error.status != 404:
            raise
        way.refusal = way.refusal or "a scheduler refused it"
        return
    way.view = found


def _tell(ordered: dict[str, Any], ways: list[Way], args: argparse.Namespace) -> int:
    good = args.no_wait or all(way.is_up for way in ways)
    if args.json:
        views = [way.view or {"instance_id": way.instance_id} for way in ways]
        print(json.dumps({**ordered, "ok": good, "instances": views}, indent=2))
    elif args.no_wait:
        print("\n".join(way.instance_id for way in ways))
    for way in ways:
        if way.is_down:
            print("\n".join(way.obituary()), file=sys.stderr)
    return 0 if good else 1


def _how_to_follow(ways: list[Way]) -> str:
    left = [way.instance_id for way in ways if not way.is_over]
    words = " ".join(left)
    one, more = "machine is still on its way", "machines are still on their way"
    return (
        f"\nNothing was ended: {figures.count(len(left), one, more)}.\n"
        f"  Follow:   vestibule instances {words}\n"
        f"  End them: vestibule terminate {words}"
    )
