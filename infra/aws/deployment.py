"""One deployment in AWS, as Terraform keeps it: its folder, its state, what it would change.

Knows Terraform's words (``program`` runs them) and the files of ``terraform/``. No secret passes
through here: the keys are made in AWS (terraform/keys.tf), and variables only name secrets.
"""

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.aws import fleet
from infra.aws.program import Program, Stopped
from infra.errors import CommandError

SOURCE = Path(__file__).parent / "terraform"
OURS, YOURS, BACKEND, PLAN = "ours.tfvars.json", "yours.tfvars", "backend.tf.json", "plan"
FLEET = "fleet.toml"
CODE = "functions.zip"
LOCK_WAIT = "-lock-timeout=60s"


def add_words(parser: argparse.ArgumentParser) -> None:
    """The words that deploy, status and destroy share."""
    parser.add_argument("name", type=_name, help="of the deployment: 3 to 24 of a-z 0-9 -")
    parser.add_argument("--region", type=_region, help="such as eu-central-1")
    parser.add_argument(
        "--vars", type=Path, metavar="FILE", help="variables, *.tfvars (docs/aws.md)"
    )
    machines = parser.add_mutually_exclusive_group()
    machines.add_argument("--fleet", type=Path, metavar="FILE", help="of the fleet (docs/aws.md)")
    machines.add_argument("--no-fleet", action="store_true", help="forget the one given before")
    state = parser.add_mutually_exclusive_group()
    state.add_argument("--state-bucket", metavar="BUCKET", help="S3 bucket that keeps the state")
    state.add_argument(
        "--local-state", action="store_true", help="keep the state in the folder, on this machine"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="of this deployment on this machine; default: vestibule/aws/NAME in XDG_STATE_HOME",
    )
    parser.add_argument("--terraform", default="terraform", metavar="PATH", help="the program")
    parser.epilog = (
        "Region, variables, fleet and place of the state are remembered in the folder: they are"
        " needed the first time, and again on another machine."
    )


class Deployment:
    """A deployment and its folder, which nobody else on this machine can read."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Find Terraform, and what was said this time or before. Changes nothing.

        Raises:
            CommandError: something needed was never said, or Terraform is missing.
        """
        self.name: str = args.name
        self.folder: Path = (args.folder or _home() / self.name).resolve()
        before = _kept(self.folder / OURS)
        if before.get("name", self.name) != self.name:
            raise CommandError(f"--folder: {self.folder} is the deployment {before['name']}'s")
        self.region: str = args.region or before.get("region", "")
        if not self.region:
            raise CommandError("--region: needed the first time")
        if before and before["region"] != self.region:
            raise CommandError(f"--region: {self.name} is in {before['region']}")
        if args.vars and not args.vars.is_file():
            raise CommandError(f"--vars: there is no file {args.vars}")
        if not args.vars and not (self.folder / YOURS).exists():
            raise CommandError("--vars: needed the first time (docs/aws.md)")
        self._vars: Path | None = args.vars
        self._fleet: Path | None = args.fleet
        self._no_fleet: bool = args.no_fleet
        if self._fleet:
            fleet.check(self._fleet, self.name)
        self._backend = _backend(args, self.region) or _kept(self.folder / BACKEND)
        if not self._backend:
            raise CommandError("--state-bucket BUCKET, or --local-state: where is the state?")
        self._program = Program(args.terraform, self.folder)

    def prepare(self) -> None:
        """Lay the files, and let Terraform fetch its provider and find the state."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for left in (*self.folder.glob("*.tf"), *self.folder.glob("*.tftpl")):
            left.unlink()  # of another version
        for path in sorted(SOURCE.iterdir()):
            shutil.copyfile(path, self.folder / path.name)
        if self._vars:
            (self.folder / YOURS).write_bytes(self._vars.read_bytes())
        if self._fleet:
            (self.folder / FLEET).write_bytes(self._fleet.read_bytes())
        if self._no_fleet:
            (self.folder / FLEET).unlink(missing_ok=True)
        backend = self.folder / BACKEND
        before = _kept(backend)
        backend.write_text(json.dumps(self._backend, indent=2))
        try:
            self._program.run("init", "-input=false", "-no-color")
        except (CommandError, Stopped):
            if before:  # a place where no state can be had is not the one to remember
                backend.write_text(json.dumps(before, indent=2))
            raise

    @property
    def package(self) -> Path:
        """Where the functions' zip is to lie."""
        return self.folder / CODE

    def plan(self, package: Mapping[str, str], *, destroy: bool = False, save: bool = True) -> bool:
        """Show what would change, and with ``save`` keep it for `apply`; False: nothing would.

        Args:
            package: Terraform's variables of the functions' package.
            save: without it nobody is kept from changing something meanwhile.
        """
        ours = {"name": self.name, "region": self.region, "package": CODE, **package}
        if (self.folder / FLEET).exists():
            ours["fleet_file"] = FLEET
        (self.folder / OURS).write_text(json.dumps(ours, indent=2))
        words = ["plan", "-input=false", "-detailed-exitcode"]
        words += [f"-out={PLAN}", LOCK_WAIT] if save else ["-lock=false"]
        words += ["-destroy"] if destroy else []
        words += [] if sys.stdout.isatty() else ["-no-color"]
        words += [f"-var-file={YOURS}", f"-var-file={OURS}"]  # the last one wins
        return self._program.run(*words, good=(0, 2)) == 2

    def apply(self) -> None:
        """Do what the plan that was shown says, and nothing else."""
        colour = [] if sys.stdout.isatty() else ["-no-color"]
        self._program.run("apply", "-input=false", LOCK_WAIT, *colour, PLAN)

    def forget_plan(self) -> None:
        """It holds Redis' password, as the state does."""
        (self.folder / PLAN).unlink(missing_ok=True)

    def outputs(self) -> dict[str, Any]:
        """What the deployment tells of itself; empty when there is none."""
        told = json.loads(self._program.read("output", "-json"))
        return {name: output["value"] for name, output in sorted(told.items())}


def ask(question: str, answer: str) -> bool:
    """Whether a person at the terminal answers exactly that."""
    try:
        return input(f"{question} ") == answer
    except EOFError:
        return False


def must_be_asked(said: bool, option: str) -> None:
    """
    Raises:
        CommandError: nobody can be asked, and ``option`` does not say the answer.
    """
    if not said and not sys.stdin.isatty():
        raise CommandError(f"{option}: needed where nobody can be asked (no terminal)")


def _backend(args: argparse.Namespace, region: str) -> dict[str, Any]:
    """Where this command line says that the state is; empty when it says nothing."""
    if args.local_state:
        return {"terraform": {"backend": {"local": {}}}}
    if not args.state_bucket:
        return {}
    where = {
        "bucket": args.state_bucket,
        "key": f"vestibule/{args.name}.tfstate",
        "region": region,
        "encrypt": True,
        "use_lockfile": True,
    }
    return {"terraform": {"backend": {"s3": where}}}


def _kept(path: Path) -> dict[str, Any]:
    """What an earlier command wrote there; empty when none did.

    Raises:
        CommandError: it is damaged.
    """
    if not path.exists():
        return {}
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise CommandError(f"{path} is damaged: it is not JSON") from error
    return kept


def _home() -> Path:
    """XDG Base Directory Specification: what should outlive a restart and is not precious."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "vestibule" / "aws"


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,22}[a-z0-9]", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not 3 to 24 of a-z 0-9 -, beginning with a letter, not ending in -"
        )
    return text


def _region(text: str) -> str:
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no region such as eu-central-1")
    return text
