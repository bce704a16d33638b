"""``vestibule aws destroy``: what would be gone, the deployment's name typed, and it is gone."""

import argparse

from infra.aws import deployment
from infra.aws.deployment import Deployment
from infra.aws.program import Stopped
from infra.errors import CommandError

# Needed by the plan and read by nobody: what is destroyed has no package.
NO_PACKAGE = {"package_hash": ""}


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule aws destroy``."""
    parser.description = (
        "Destroy a deployment: the queue, the keys, everything that was made for it. Shows what"
        " would be destroyed and asks for the deployment's name first."
    )
    deployment.add_words(parser)
    parser.add_argument("--confirm", metavar="NAME", help="the name, where nobody can be asked")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when nothing of it is left, 1 when the answer was no.

    Raises:
        CommandError: something is missing or wrong, or Terraform failed.
    """
    if args.confirm not in (None, args.name):
        raise CommandError(f"--confirm: {args.confirm} is not {args.name}")
    deployment.must_be_asked(args.confirm is not None, "--confirm NAME")
    try:
        return _destroy(Deployment(args), args.confirm)
    except Stopped as stopped:
        return stopped.code


def _destroy(ours: Deployment, confirmed: str | None) -> int:
    ours.prepare()
    try:
        if not ours.plan(NO_PACKAGE, destroy=True):
            print(f"{ours.name} is not deployed in {ours.region}")
            return 0
        question = f"Type the deployment's name to destroy all of this in {ours.region}:"
        if not (confirmed or deployment.ask(question, ours.name)):
            print("nothing was changed")
            return 1
        ours.apply()
    finally:
        ours.forget_plan()
    print(f"{ours.name} is destroyed")
    return 0
