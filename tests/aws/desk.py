"""An operator's desk: a folder, a keyboard, and a Terraform that writes down what it is told."""

import io
import os
from pathlib import Path

import pytest

from infra import cli

# A plan's file holds what was shown; `apply` writes down what it was given. Told to stop, it needs
# a moment, as Terraform does.
FAKE = """#!/bin/sh
echo "$*" >> "$LOG"
env | grep ^TF_CLI_ARGS >> "$LOG"
[ -z "$SAYS" ] || [ "$1" != "$FAILS" ] || { echo "$SAYS" >&2; exit 1; }
case $1 in
  version) echo "{\\"terraform_version\\": \\"${VERSION:-1.11.4}\\"}" ;;
  init) [ ! -e terraform.tfstate ] ;;
  output) cat "$OUTPUTS" ;;
  plan)
    echo "this is what would change: $$"
    for word; do case $word in -out=*) echo "$$" > "${word#-out=}" ;; esac; done
    exit ${CHANGES:-2} ;;
  apply)
    for word; do plan=$word; done
    echo "applied: $(cat "$plan")"
    [ -z "$SLOW" ] && exit 0
    trap 'echo interrupted >> "$LOG"' INT
    echo "began $$" >> "$LOG"
    for _ in $(seq 250); do [ -e "$SLOW" ] || sleep 0.02; done
    echo ended >> "$LOG"
    exit 1 ;;
esac
"""
VARS = 'domain = "chat.example.org"\n'
NEW = ("--region", "eu-central-1", "--local-state")


class Terminal(io.StringIO):
    """A person who has an answer."""

    def isatty(self) -> bool:
        return True


class Desk:
    """Where an operator sits: a folder, a Terraform, a keyboard."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.log, self._monkeypatch = path, path / "log", monkeypatch
        self.folder = path / "state" / "vestibule" / "aws" / "queue"
        program = path / "bin" / "terraform"
        program.parent.mkdir()
        program.write_text(FAKE)
        program.chmod(0o755)
        self.set(
            PATH=f"{program.parent}:{os.environ['PATH']}",
            LOG=str(self.log),
            XDG_STATE_HOME=str(path / "state"),
        )
        self.vars = path / "queue.tfvars"
        self.vars.write_text(VARS)

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def type(self, line: str | None) -> None:
        """What the person will type; None: nobody is there."""
        self._monkeypatch.setattr("sys.stdin", io.StringIO() if line is None else Terminal(line))

    def __call__(self, command: str, *words: str) -> int:
        return cli.main(["aws", command, "queue", *words])

    def deploy(self, *words: str) -> int:
        return self("deploy", *NEW, "--vars", str(self.vars), *words)

    @property
    def told(self) -> list[str]:
        """What Terraform was told, line by line, but for its version."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line != "version -json"]

    @property
    def verbs(self) -> list[str]:
        return [line.split()[0] for line in self.told]
