"""``vestibule doctor``: check a deployment, and say what is wrong with it."""

import argparse
import asyncio
import json
import re
import signal

from infra import environment
from infra.addresses import asked_url
from infra.doctor import report
from infra.doctor.deployment import Unreachable, deployment
from infra.doctor.examination import Examination, Verdict, examine, waiting
from infra.doctor.rule import Broken, Rule
from infra.doctor.rules import RULES
from infra.errors import CommandError
from infra.state import kept_key

KEYS = ("admin_key", "service_key")


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule doctor``."""
    parser.description = (
        "Check that a running deployment keeps Vestibule's HTTP contract, rule by rule, from the"
        " outside. It works in pools, keys and users of its own and takes all of them away again."
        " Exit code 1 when a rule does not hold."
    )
    parser.add_argument(
        "--contract", metavar="URL", required=True, help="the deployment (http://127.0.0.1:8600)"
    )
    for name in KEYS:
        option, setting = f"--{name.replace('_', '-')}", f"VESTIBULE_{name.upper()}"
        where = f"default: {setting}, else keys.json of the state folder"
        parser.add_argument(option, metavar="KEY", help=where)
    parser.add_argument(
        "--origin", help="one of its VESTIBULE_ALLOWED_ORIGINS, whose pages may call"
    )
    parser.add_argument("--only", metavar="WORDS", help="rules whose name holds these words")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--yes-really", action="store_true", help="also where people wait at this moment"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when all rules hold, else 1; 143 or 129 when it was told to stop.

    Raises:
        CommandError: nobody to examine, a key is missing or wrong, or people wait there.
    """
    keys = _keys(args)
    args.contract = asked_url("--contract", args.contract)
    if args.only and not _chosen(args.only):
        raise CommandError(f"--only: no rule's name holds {args.only!r}")
    return asyncio.run(_until_told_to_stop(args, keys))


def _keys(args: argparse.Namespace) -> dict[str, str]:
    settings = environment.settings()
    keys = {name: getattr(args, name) or kept_key(settings, name) for name in KEYS}
    for name, key in keys.items():
        option = f"--{name.replace('_', '-')}"
        if not key:
            where = f"{option}, VESTIBULE_{name.upper()}, or keys.json in VESTIBULE_STATE_DIR"
            raise CommandError(f"the {name.replace('_', ' ')} is needed: {where}")
        if not re.fullmatch(r"[\x21-\x7e]+", key):
            raise CommandError(f"{option}: not a key; keys are printable ASCII without spaces")
    return {name: key for name, key in keys.items() if key}


def _chosen(words: str | None) -> list[Rule]:
    return [rule for rule in RULES if not words or words in rule.name]


async def _until_told_to_stop(args: argparse.Namespace, keys: dict[str, str]) -> int:
    """As ``examined``; SIGTERM and SIGHUP end it like Ctrl-C does, once all is taken away."""
    told: list[int] = []
    task = asyncio.ensure_future(examined(args, keys))

    def stop(number: int) -> None:
        told.append(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if told:
            return 128 + told[0]
        raise


async def examined(args: argparse.Namespace, keys: dict[str, str]) -> int:
    """As ``run``, whoever ends it."""
    async with deployment(args.contract, **keys) as target:
        target.origin = args.origin
        try:
            people = waiting(await target.look())
        except Unreachable as error:
            raise CommandError(str(error)) from error
        if people and not args.yes_really:
            raise CommandError(
                f"{people} wait at {target.url}: the checks would make them wait longer."
                " Come back when nobody does, or add --yes-really."
            )
        try:
            done = await examine(target, _chosen(args.only), _nothing if args.json else _print)
        except Broken as broken:  # there is no pool to ask in
            raise CommandError(f"{target.url}: {broken}") from broken
    _tell(done, as_json=args.json)
    return 0 if done.good else 1


def _nothing(_: Verdict) -> None:
    pass


def _print(verdict: Verdict) -> None:
    for line in report.told(verdict):
        print(line, flush=True)


def _tell(done: Examination, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.as_json(done), indent=2, ensure_ascii=False))
    else:
        print("\n".join(report.summed(done)))
