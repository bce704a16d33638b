"""Runs Terraform: finds it, shows what it says, and lets it end by itself.

Knows the program, its signals and its ways to fail; not what it is asked for (``deployment``).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from infra.errors import CommandError

VERSION_MIN = (1, 11)  # as infra/aws/terraform/versions.tf says, and why
TO_INSTALL = (
    "install Terraform 1.11 or newer (developer.hashicorp.com/terraform/install), or name it:"
    " --terraform PATH"
)
NOT_PASSED_ON = re.compile(r"TF_(CLI_ARGS|WORKSPACE$|DATA_DIR$)")
"""Variables with which Terraform would do something else than it is told here."""
CREDENTIALS = (
    "no credentials of AWS were found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY, or sign in (aws sso login)"
)
HINTS = {
    "No valid credential sources found": CREDENTIALS,
    "failed to refresh cached credentials": CREDENTIALS,
    "ExpiredToken": "the credentials of AWS have run out: sign in again",
    "InvalidClientTokenId": "AWS does not know these credentials",
    "Error acquiring the state lock": "somebody else changes this deployment at this moment",
}
"""What Terraform says -> what to do."""


class Stopped(Exception):
    """A signal came; Terraform was told once and has ended. ``code`` is the command's exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class Program:
    """Terraform in one folder."""

    def __init__(self, name: str, folder: Path) -> None:
        """
        Raises:
            CommandError: not there, or too old.
        """
        found = shutil.which(name)
        if found is None:
            raise CommandError(f"there is no {name}: {TO_INSTALL}")
        self._path, self._folder = os.path.abspath(found), folder  # it runs in another folder
        self._check_version()

    def run(self, *words: str, good: tuple[int, ...] = (0,)) -> int:
        """Run it in the foreground, its words shown as they come; its exit code.

        A signal is passed on once, as the interrupt which lets Terraform finish what it has begun
        and write its state; further ones are not heard until it has.

        Raises:
            CommandError: its exit code is not among ``good``.
            Stopped: a signal came.
        """
        said: list[str] = []
        with (
            _told_once() as told,
            subprocess.Popen(
                [self._path, *words],
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                process_group=0,  # so that a Ctrl-C of the terminal reaches it through us alone
            ) as process,
        ):
            told.begins(process)
            _show(process, said)
            code = process.wait()
        if told.came:
            raise Stopped(told.came[0])
        if code not in good:
            raise CommandError("\n".join([*_hints(said), f"terraform {words[0]} failed"]))
        return code

    def read(self, *words: str) -> str:
        """What it prints, unseen.

        Raises:
            CommandError: it failed; with its own words.
        """
        ended = subprocess.run(
            [self._path, *words],
            cwd=self._folder if self._folder.is_dir() else None,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            said = ended.stderr.splitlines()
            raise CommandError("\n".join([*said, *_hints(said), f"terraform {words[0]} failed"]))
        return ended.stdout

    def _check_version(self) -> None:
        told = self.read("version", "-json")
        try:
            version = str(json.loads(told)["terraform_version"])
            parts = tuple(int(part) for part in version.split("-")[0].split("."))
        except (ValueError, KeyError, TypeError) as error:
            raise CommandError(f"{self._path} tells no version: is it Terraform?") from error
        if parts[:2] < VERSION_MIN:
            raise CommandError(f"{self._path} is version {version}: {TO_INSTALL}")

    @staticmethod
    def _environment() -> dict[str, str]:
        kept = {name: at for name, at in os.environ.items() if not NOT_PASSED_ON.match(name)}
        return {**kept, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}


class _Told:
    """Passes the first signal on."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self._process: subprocess.Popen[str] | None = None

    def begins(self, process: subprocess.Popen[str]) -> None:
        """From now on ``process`` hears it; also one that came before."""
        self._process = process
        if self.came:
            process.send_signal(signal.SIGINT)

    def tell(self, number: int, _: FrameType | None) -> None:
        """Python's handler of a signal."""
        self.came.append(number)
        if len(self.came) > 1:
            return
        print("vestibule: waiting for terraform to end what it began", file=sys.stderr)
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)


@contextmanager
def _told_once() -> Iterator[_Told]:
    """While this is open, a signal ends nothing by itself."""
    told = _Told()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, told.tell) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(process: subprocess.Popen[str], said: list[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        sys.stderr.write(line)
        sys.stderr.flush()


def _hints(said: list[str]) -> list[str]:
    text = "".join(said)
    return list(dict.fromkeys(hint for words, hint in HINTS.items() if words in text))
