"""Asks before anything that costs money, ends what runs or takes it away."""

import argparse
import sys
from collections.abc import Sequence

from infra.errors import CommandError


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


def given(args: argparse.Namespace, what: str, facts: Sequence[str] = ()) -> bool:
    """Whether somebody agreed to ``what``, a question without its mark, knowing the ``facts``.

    Raises:
        CommandError: there is nobody to ask.
    """
    if args.yes:
        return True
    if not sys.stdin.isatty():
        nobody = f"{what}? Nobody can be asked here: who means it adds --yes"
        raise CommandError("\n".join((*facts, nobody)))
    for fact in facts:
        print(fact, file=sys.stderr)
    print(f"{what}? [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        print("\nnothing was changed", file=sys.stderr)
        raise
    if answer.strip().lower() in ("y", "yes"):
        return True
    print("nothing was changed" if answer else "\nnothing was changed", file=sys.stderr)
    return False
