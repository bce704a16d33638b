"""``vestibule load-test``: many people at once, and whether what must hold does."""

import argparse
import asyncio
import json
import logging
import math
import re
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from yarl import URL

from admission.domain import USER_ID
from infra import environment
from infra.addresses import asked_url, callable_url
from infra.errors import CommandError
from infra.load_test import plot, report
from infra.load_test.crowd import Coming, Crowd, Manners
from infra.load_test.rehearsal import Rehearsal, Target
from infra.load_test.table import Table
from infra.load_test.trace import read_trace
from infra.state import kept_key

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule load-test``."""
    parser.description = (
        "People who join, wait, confirm, chat through the gateway, and leave, vanish or press"
        " Stop. Exit code 1 when an invariant broke meanwhile. It stops by itself, and takes its"
        " people out of the queue."
    )
    crowds = parser.add_subparsers(title="who comes", metavar="WHO", dest="who", required=True)
    single = crowds.add_parser("single", help="one person")
    single.add_argument("user", type=_user, metavar="USER")
    group = crowds.add_parser("group", help="many at the same moment")
    group.add_argument("--size", type=_count, default=50, help="default: 50")
    load = crowds.add_parser("load", help="one batch after another")
    load.add_argument("--users", type=_count, default=200, help="default: 200")
    load.add_argument("--batch-size", type=_count, default=20, help="default: 20")
    load.add_argument("--delay", type=_seconds, default=5.0, help="between two; default: 5 s")
    replay = crowds.add_parser("replay", help="as in a trace of real requests")
    replay.add_argument("trace", metavar="TRACE", type=Path, help="CSV (docs/load-test.md)")
    replay.add_argument("--minutes", type=_above_0, default=10.0, help="of the trace; default: 10")
    replay.add_argument("--speed", type=_above_0, default=1.0, help="default: 1, as it was")
    replay.add_argument(
        "--each", type=_count, default=20, help="every N-th request is somebody new; default: 20"
    )
    single.set_defaults(vanish=0.0, stop=0.0, confirm=0.0)
    for one in (group, load, replay):
        one.set_defaults(vanish=0.05, stop=0.05, confirm=0.2)
    for one in (single, group, load, replay):
        _common(one)
    parser.set_defaults(run=run)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="default: VESTIBULE_HOST and VESTIBULE_PORT")
    where = "default: VESTIBULE_SERVICE_KEY, else keys.json of the state folder"
    parser.add_argument("--service-key", metavar="KEY", help=where)
    parser.add_argument("--pool", default="default")
    parser.add_argument("--model", help="default: the first that is served")
    parser.add_argument("--messages", type=_count, default=2, help="of each person; default: 2")
    parser.add_argument("--think", type=_seconds, default=2.0, help="before the next; default: 2 s")
    for name, what in (
        ("vanish", "who go without a word"),
        ("stop", "who press Stop"),
        ("confirm", "who are asked before they get the slot"),
    ):
        parser.add_argument(f"--{name}", type=_share, metavar="SHARE", help=f"{what}, 0 to 1")
    parser.add_argument("--seed", type=int, default=1, help="of who does what; default: 1")
    parser.add_argument(
        "--limit", type=_above_0, default=900.0, help="seconds until it stops; default: 900"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw slots.svg and waits.svg")
    parser.add_argument(
        "--yes-really",
        action="store_true",
        help="also a service that is not on this machine, and where people wait at this moment",
    )


def run(args: argparse.Namespace) -> int:
    """0 when every invariant held; 1 when one broke, or when the service went away for good; else,
    of who was told to stop, 128 and the number of the signal.

    Raises:
        CommandError: not this machine, nobody there, a wrong key, model or trace, people wait
            there, or the report could not be written.
    """
    if args.vanish + args.stop > 1:
        raise CommandError("--vanish and --stop are more than everybody together")
    target, plans = _target(args), _plans(args)
    # What a client would say of one turn, the report counts.
    logging.getLogger("admission.client_turn").disabled = True
    _check_writable(args.json, args.plots)
    rehearsal = Rehearsal(target, plans, args.limit)
    by = asyncio.run(_run(rehearsal, also_where_people_wait=args.yes_really))
    found = report.as_json(rehearsal)
    print("\n".join(report.told(found)))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if args.plots:
        plot.draw(found, args.plots)
    if not found["ok"] or rehearsal.cut == "away":
        return 1
    return 128 + by if by else 0


async def _run(rehearsal: Rehearsal, *, also_where_people_wait: bool) -> int:
    """Ctrl-C, SIGTERM and SIGHUP end it early, report and all; a second one at once. The number of
    the signal, or 0."""
    loop, table, came = asyncio.get_running_loop(), Table(sys.stderr), [0]

    heeded = [n for n in STOPS if signal.getsignal(n) != signal.SIG_IGN]  # nohup's stay ignored

    def stop(number: int) -> None:
        for each in heeded:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        came[0] = number
        rehearsal.told_to_stop.set()
        table.show(rehearsal)

    for number in heeded:
        loop.add_signal_handler(number, stop, number)
    await rehearsal.run(look_on=table.show, also_where_people_wait=also_where_people_wait)
    return came[0]


def _check_writable(file: Path | None, folder: Path | None) -> None:
    """Who waits ten minutes wants the report: what cannot be written is said before.

    Raises:
        CommandError: names the option and why.
    """
    for option, path in (("--json", file and file.parent), ("--plots", folder)):
        if not path:
            continue
        try:
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        except OSError as error:
            why = (error.strerror or "").lower()
            raise CommandError(f"{option}: {path} cannot be written: {why}") from error
    if file and file.is_dir():
        raise CommandError(f"--json: {file} is a folder; the report is one file")


def _target(args: argparse.Namespace) -> Target:
    settings = environment.settings()
    url = asked_url("--url", args.url or callable_url(settings.host, settings.port))
    host = URL(url).host or ""
    local = is_here(host)
    if not local and not args.yes_really:
        raise CommandError(f"--url: {host} is not this machine; who means it adds --yes-really")
    key = args.service_key or kept_key(settings, "service_key")
    if not key:
        where = "--service-key, VESTIBULE_SERVICE_KEY, or keys.json in VESTIBULE_STATE_DIR"
        raise CommandError(f"the service key is needed: {where}")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise CommandError("--service-key: not a key; keys are printable ASCII without spaces")
    return Target(url, key, args.pool, args.model, local=local)


def _plans(args: argparse.Namespace) -> list[Coming]:
    manners = Manners(args.messages, args.think, args.vanish, args.stop, args.confirm)
    crowd = Crowd(f"load-{secrets.token_hex(3)}", manners, args.seed)
    match args.who:
        case "single":
            return crowd.single(args.user)
        case "group":
            return crowd.group(args.size)
        case "load":
            return crowd.load(args.users, args.batch_size, args.delay)
        case _:
            asked = read_trace(args.trace, args.minutes, args.speed)
            return crowd.replay(asked, args.each)


def is_here(host: str) -> bool:
    """Whether every address of a host is loopback or one of this machine's own.

    Raises:
        CommandError: no such host.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise CommandError(f"--url: {host}: no such host") from error
    return all(_is_own(family, str(address[0])) for family, *_, address in found)


def _is_own(family: int, address: str) -> bool:
    """One can only listen on addresses one has."""
    if ip_address(address.partition("%")[0]).is_loopback:
        return True
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        try:
            listener.bind((address, 0))
        except OSError:
            return False
    return True


def _user(text: str) -> str:
    """As the service takes it."""
    if not USER_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 128 of A-Z a-z 0-9 . _ - @ : | +")
    return text


def _number(least: float, most: float, *, whole: bool = False) -> Callable[[str], float]:
    """Reads a number of an option."""

    def read(text: str) -> float:
        value = int(text) if whole else float(text)
        if not least <= value <= most:
            shown = f"from {least:g} to {most:g}" if math.isfinite(most) else f"{least:g} or more"
            raise argparse.ArgumentTypeError(f"{text} is not {shown}")
        return value

    read.__name__ = "whole number" if whole else "number"  # as argparse calls what it is not
    return read


_count = _number(1, 1_000_000, whole=True)
_seconds = _number(0, 86_400)
_above_0 = _number(0.001, 86_400)
_share = _number(0, 1)
