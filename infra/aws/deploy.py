"""``vestibule aws deploy``: the package, the plan, a question, and exactly that plan."""

import argparse

from infra.aws import deployment, package
from infra.aws.deployment import Deployment
from infra.aws.program import Stopped
from infra.aws.runtime import ARCHITECTURE, MACHINES, PYTHON, PYTHONS


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule aws deploy``."""
    parser.description = (
        "Make a deployment, or bring it up to this version: build the functions' package, show what"
        " Terraform would change, ask, and change exactly that."
    )
    deployment.add_words(parser)
    parser.add_argument("--python", choices=[*PYTHONS], default=PYTHON, help="of the functions")
    parser.add_argument("--architecture", choices=[*MACHINES], default=ARCHITECTURE)
    parser.add_argument(
        "--compiled", action="store_true", help="package with bytecode (vestibule aws package)"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when it is deployed, 1 when the answer was no.

    Raises:
        CommandError: something is missing or wrong, or Terraform failed.
    """
    deployment.must_be_asked(args.yes, "--yes")
    try:
        return _deploy(Deployment(args), args)
    except Stopped as stopped:
        return stopped.code


def _deploy(ours: Deployment, args: argparse.Namespace) -> int:
    ours.prepare()
    built = package.build(ours.package, args.python, args.architecture, compiled=args.compiled)
    variables = {
        "package_hash": built.code_sha256,
        "runtime": f"python{args.python}",
        "architecture": args.architecture,
    }
    try:
        if not ours.plan(variables):
            print(f"{ours.name} is as it should be: nothing to change")
            return 0
        question = f"Make these changes to {ours.name} in {ours.region}? Only 'yes' does:"
        if not (args.yes or deployment.ask(question, "yes")):
            print("nothing was changed")
            return 1
        ours.apply()
    finally:
        ours.forget_plan()
    print(f"{ours.name} is deployed: vestibule aws status {ours.name}")
    return 0
