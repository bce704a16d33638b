"""``vestibule aws``: the functions as a package, and a deployment of them."""

import argparse

from infra.aws import deploy, destroy, package, status

COMMANDS = {
    "package": (package, "write the functions' zip"),
    "deploy": (deploy, "make a deployment, or bring it up to this version"),
    "status": (status, "show a deployment, what differs, and whether it answers"),
    "destroy": (destroy, "destroy a deployment"),
}
"""Name -> its module, which has ``configure(parser)`` and sets ``run``; and its line of help."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule aws``."""
    parser.description = "Vestibule in AWS: docs/aws.md, docs/functions.md."
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (module, line) in COMMANDS.items():
        module.configure(commands.add_parser(name, help=line))
