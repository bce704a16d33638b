"""The ``vestibule`` command: reads the words and hands over."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from infra import owui, schedule, up, worker

COMMANDS = (up, worker, schedule, owui)


def parser() -> argparse.ArgumentParser:
    """The command line, with one subcommand per module."""
    top = argparse.ArgumentParser(
        prog="vestibule",
        description="A fair, visible turn for every Open WebUI user on a limited pool of GPUs.",
    )
    top.add_argument("--version", action="version", version=f"vestibule {version('vestibule')}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.register(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
