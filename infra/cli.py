"""The ``vestibule`` command: reads the words, hands over, and shows what went wrong.

Only the command that was named is imported, so that each runs with the dependencies of its own
extra (pyproject.toml).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from admission.settings import SettingsError
from infra.errors import CommandError

COMMANDS = {
    "up": ("infra.up", "run everything on this machine"),
    "worker": ("infra.worker", "run vLLM and its agent on this machine"),
    "image": ("infra.image", "show how a worker's image is built and run, by kind of machine"),
    "admission": ("infra.admission", "run REST and gateway alone, over a Redis of yours"),
    "gateway": ("infra.gateway", "run the gateway alone, over the same Redis"),
    "scheduler": ("infra.scheduler", "run the clockwork alone, beside others"),
    "provision": ("infra.fleet.provision", "order machines, and watch them become ready"),
    "instances": ("infra.fleet.instances", "show the machines, how far they are, what they cost"),
    "workers": ("infra.fleet.workers", "show the workers, and what each is doing"),
    "costs": ("infra.fleet.costs", "show what machines cost, for whom, and the budgets"),
    "drain": ("infra.fleet.drain", "let a machine finish what runs, and then end it"),
    "terminate": ("infra.fleet.terminate", "end machines with their disks"),
    "doctor": ("infra.doctor.command", "check that a deployment keeps the HTTP contract"),
    "load-test": ("infra.load_test.command", "let many people use the queue, and watch it"),
    "owui": ("infra.owui.command", "put the plugin into a running Open WebUI"),
    "aws": ("infra.aws.command", "Vestibule in AWS: the functions' package, a deployment"),
}
"""Name -> its module, which has ``configure(parser)`` and sets ``run``; and its line of help."""


def parser(named: str | None) -> argparse.ArgumentParser:
    """The command line; of the commands only ``named`` knows its own words."""
    top = argparse.ArgumentParser(
        prog="vestibule",
        description="A fair, visible turn for every Open WebUI user on a limited pool of GPUs.",
    )
    top.add_argument("--version", action="version", version=f"vestibule {version('vestibule')}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (module, line) in COMMANDS.items():
        one = commands.add_parser(name, help=line)
        if name == named:
            import_module(module).configure(one)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 1 when it cannot go on, 2 for wrong words or settings."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser(words[0] if words else None).parse_args(words)
    try:
        code: int = args.run(args)
    except SettingsError as error:
        return _complain(error, 2)
    except BrokenPipeError:  # who read has enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell says of who died of it
    except (CommandError, OSError) as error:  # of the system: names the file or the program
        return _complain(error, 1)
    except KeyboardInterrupt:
        return 130
    return code


def _complain(error: Exception, code: int) -> int:
    for line in str(error).splitlines():
        print(f"vestibule: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
