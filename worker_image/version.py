"""The agent's version: shows its checksum, raises its version, and says when it was forgotten.

    python worker_image/version.py checksum
    python worker_image/version.py bump [--level patch|minor|major]
    python worker_image/version.py check [--base COMMIT]

Reads `agent.py` as text and never runs it, so that any Python does. Knows git, and works without it
by saying what it could not look at. Exit code 1 when there is something to mend.
"""

import argparse
import hashlib
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

AGENT = Path(__file__).with_name("agent.py")
LEVELS = ("major", "minor", "patch")
MAIN = ("origin/main", "main")
VERSION = re.compile(r'^AGENT_VERSION = "(\d+)\.(\d+)\.(\d+)"$', re.MULTILINE)
BUILD_DATE = re.compile(r'^AGENT_BUILD_DATE = "(\d{4}-\d\d-\d\d)"$', re.MULTILINE)


class VersionError(Exception):
    """Why this cannot be done, in words for the one who called."""


class CannotCompare(Exception):
    """Nothing to compare with is at hand; that is no fault of the agent."""


class Version(NamedTuple):
    """Three numbers, compared from the left."""

    major: int
    minor: int
    patch: int

    def raised(self, level: str) -> "Version":
        """The next one: what stands right of ``level`` starts again at 0."""
        place = LEVELS.index(level)
        numbers = [*self[:place], self[place] + 1, 0, 0]
        return Version(*numbers[:3])

    def __str__(self) -> str:
        return ".".join(map(str, self))


def version_of(text: str) -> Version:
    """The version an agent's text names. Raises `VersionError` when there is not exactly one."""
    found = VERSION.findall(text)
    if len(found) != 1:
        raise VersionError('agent.py must hold one line AGENT_VERSION = "X.Y.Z"')
    return Version(*map(int, found[0]))


def bumped(text: str, level: str, today: date) -> str:
    """The agent's text with its version raised, built today. Raises `VersionError`."""
    if len(BUILD_DATE.findall(text)) != 1:
        raise VersionError('agent.py must hold one line AGENT_BUILD_DATE = "YYYY-MM-DD"')
    text = VERSION.sub(f'AGENT_VERSION = "{version_of(text).raised(level)}"', text)
    return BUILD_DATE.sub(f'AGENT_BUILD_DATE = "{today.isoformat()}"', text)


class Repository:
    """The git repository that holds the agent, as it was at other commits."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def base(self) -> str:
        """The commit to compare with when none is given. Raises `CannotCompare`.

        On a branch it is where the branch left main. On main itself it is the last commit when
        the agent is being changed just now, else the one before.
        """
        head = self._commit("HEAD")
        if not head:
            raise CannotCompare("this is no git repository with a commit in it")
        for main in MAIN:
            if self._commit(main):
                left = self._git("merge-base", main, "HEAD")
                if left and left != head:
                    return left
        if self._git("status", "--porcelain", "--", self._file.name):
            return head
        if before := self._commit("HEAD^"):
            return before
        if self._git("rev-parse", "--is-shallow-repository") == "true":
            raise CannotCompare("this clone is shallow and ends at its newest commit")
        raise CannotCompare("there is only one commit")

    def text(self, commit: str) -> str | None:
        """The agent at that commit; None when it had none. Raises `VersionError`."""
        if not self._commit(commit):
            raise VersionError(f"git knows no commit {commit!r}")
        return self._git("show", f"{commit}:./{self._file.name}")

    def _commit(self, name: str) -> str | None:
        return self._git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")

    def _git(self, *words: str) -> str | None:
        """What git writes; None when it refuses. Raises `CannotCompare` where there is no git."""
        try:
            done = subprocess.run(
                ["git", *words],
                cwd=self._file.parent,
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise CannotCompare("there is no git on this machine") from error
        return done.stdout.strip() if done.returncode == 0 else None


def check(file: Path, base: str | None) -> str:
    """One line that says why all is well. Raises `VersionError` and `CannotCompare`."""
    repository, text = Repository(file), file.read_text()
    commit = base or repository.base()
    before, now = repository.text(commit), version_of(text)
    short = commit[:12]
    if before is None:
        return f"agent.py {now} is new since {short}"
    if before == text.strip():
        return f"agent.py {now} is unchanged since {short}"
    if now > (then := version_of(before)):
        return f"agent.py changed since {short}, and its version rose from {then} to {now}"
    raise VersionError(
        f"agent.py changed since {short}, but its version is {now} and was {then}:"
        " raise it with `make agent-version-bump` (LEVEL=minor or LEVEL=major for more)"
    )


def main(words: Sequence[str]) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(prog="version.py", description="The worker agent's version.")
    parser.add_argument("command", choices=("checksum", "bump", "check"))
    parser.add_argument("--level", choices=LEVELS, default="patch", help="what bump raises (patch)")
    parser.add_argument("--base", help="what check compares with (where the branch left main)")
    args = parser.parse_args(words)
    try:
        if args.command == "checksum":
            said = hashlib.sha256(AGENT.read_bytes()).hexdigest()
        elif args.command == "bump":
            text = bumped(AGENT.read_text(), args.level, datetime.now(UTC).date())
            AGENT.write_text(text)
            said = f"agent.py is now {version_of(text)}"
        else:
            said = check(AGENT, args.base)
    except CannotCompare as error:
        said = f"agent.py's version was not checked: {error} (name a commit: BASE=...)"
    except (VersionError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
