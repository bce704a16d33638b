"""Asks before anything that costs money or ends what runs."""

import argparse
import sys

from infra.errors import CommandError


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


def given(args: argparse.Namespace, what: str) -> bool:
    """Whether somebody agreed to ``what``, a question without its mark.

    Raises:
        CommandError: there is nobody to ask.
    """
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise CommandError(f"{what}? Nobody can be asked here: who means it adds --yes")
    print(f"{what}? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip().lower()
    if answer in ("y", "yes"):
        return True
    print("nothing was changed", file=sys.stderr)
    return False
