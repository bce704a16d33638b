"""The agent's version rules, in a scratch git repository with the script as it ships."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from tests.worker.processes import AGENT, ROOT
from worker_image import version

SCRIPT = ROOT / "worker_image" / "version.py"
OLD = 'AGENT_VERSION = "1.2.3"\nAGENT_BUILD_DATE = "2026-01-31"\nWORK = 1\n'


class Scratch:
    """A repository with one commit on main: the script, and an agent of version 1.2.3."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agent = folder / "agent.py"
        folder.mkdir()
        shutil.copy(SCRIPT, folder)
        self.agent.write_text(OLD)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("first")

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        done = subprocess.run(
            ["git", *who, *words],
            cwd=self.folder,
            env=_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", f"--message={message}")
        return self.git("rev-parse", "HEAD")

    def change(self, text: str) -> None:
        self.agent.write_text(self.agent.read_text() + text)


def _environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **more}


def _run(folder: Path, *words: str, **environment: str) -> tuple[int, str]:
    """The exit code of the script in that folder, and what it said."""
    done = subprocess.run(
        [sys.executable, "version.py", *words],
        cwd=folder,
        env=_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.strip()


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / "scratch")


def test_on_a_branch_a_change_needs_a_higher_version(scratch: Scratch) -> None:
    scratch.git("checkout", "--quiet", "-b", "work")
    scratch.change("WORK = 2\n")
    scratch.commit("changed")
    status, said = _run(scratch.folder, "check")
    assert status == 1
    assert "its version is 1.2.3 and was 1.2.3: raise it with `make agent-version-bump`" in said

    assert _run(scratch.folder, "bump") == (0, "agent.py is now 1.2.4")
    scratch.commit("bumped")
    (scratch.folder / "other").write_text("later")
    scratch.commit("something else")
    status, said = _run(scratch.folder, "check")
    assert status == 0
    assert "rose from 1.2.3 to 1.2.4" in said


def test_on_main_the_last_commit_counts(scratch: Scratch) -> None:
    assert _run(scratch.folder, "check")[1].endswith(
        "there is only one commit (name a commit: BASE=...)"
    )
    scratch.change("WORK = 2\n")
    assert _run(scratch.folder, "check")[0] == 1  # not yet committed
    scratch.commit("changed and not bumped")
    assert _run(scratch.folder, "check")[0] == 1
    (scratch.folder / "other").write_text("later")
    scratch.commit("something else")
    status, said = _run(scratch.folder, "check")
    assert (status, "unchanged" in said) == (0, True)


def test_a_base_can_be_named(scratch: Scratch) -> None:
    first = scratch.git("rev-parse", "HEAD")
    scratch.change("WORK = 2\n")
    scratch.commit("changed")
    assert _run(scratch.folder, "check", "--base", first)[0] == 1
    assert _run(scratch.folder, "check", "--base", "HEAD")[0] == 0
    assert _run(scratch.folder, "check", "--base", "nowhere") == (
        1,
        "git knows no commit 'nowhere'",
    )


def test_a_lower_version_is_no_rise(scratch: Scratch) -> None:
    scratch.agent.write_text(OLD.replace("1.2.3", "1.1.9"))
    status, said = _run(scratch.folder, "check")
    assert status == 1
    assert "is 1.1.9 and was 1.2.3" in said


def test_ten_comes_after_nine(scratch: Scratch) -> None:
    scratch.agent.write_text(OLD.replace("1.2.3", "1.10.0"))
    scratch.commit("ten")
    assert _run(scratch.folder, "check")[0] == 0


def test_an_agent_that_is_new_needs_nothing(scratch: Scratch) -> None:
    scratch.git("rm", "--quiet", "--cached", "agent.py")
    scratch.git("commit", "--quiet", "--message=without")
    status, said = _run(scratch.folder, "check")
    assert status == 0
    assert "agent.py 1.2.3 is new since" in said


def test_a_shallow_clone_says_that_nothing_was_checked(scratch: Scratch, tmp_path: Path) -> None:
    scratch.change("WORK = 2\n")
    scratch.commit("changed")
    scratch.git(
        "clone", "--quiet", "--depth=1", f"file://{scratch.folder}", str(tmp_path / "clone")
    )
    status, said = _run(tmp_path / "clone", "check")
    assert status == 0
    assert "was not checked: this clone is shallow" in said


def test_without_git_it_says_so(scratch: Scratch, tmp_path: Path) -> None:
    status, said = _run(scratch.folder, "check", PATH=str(tmp_path))
    assert status == 0
    assert "was not checked: there is no git on this machine" in said


def test_outside_a_repository_it_says_so(scratch: Scratch) -> None:
    shutil.rmtree(scratch.folder / ".git")
    ceiling = str(scratch.folder.parent)
    status, said = _run(scratch.folder, "check", GIT_CEILING_DIRECTORIES=ceiling)
    assert status == 0
    assert "was not checked: this is no git repository" in said


@pytest.mark.parametrize(
    ("level", "now"), [("patch", "1.2.4"), ("minor", "1.3.0"), ("major", "2.0.0")]
)
def test_a_bump_raises_one_number_and_sets_the_date(level: str, now: str) -> None:
    text = version.bumped(OLD, level, date(2026, 11, 21))
    assert text == f'AGENT_VERSION = "{now}"\nAGENT_BUILD_DATE = "2026-11-21"\nWORK = 1\n'


def test_an_agent_without_a_version_is_not_touched(scratch: Scratch) -> None:
    broken = OLD.replace("1.2.3", "1.2")
    scratch.agent.write_text(broken)
    status, said = _run(scratch.folder, "bump")
    assert status == 1
    assert said == 'agent.py must hold one line AGENT_VERSION = "X.Y.Z"'
    assert scratch.agent.read_text() == broken


def test_the_agent_can_be_bumped_and_its_checksum_is_the_files() -> None:
    text = AGENT.read_text()
    now = version.version_of(text)
    assert version.version_of(version.bumped(text, "patch", date(2026, 11, 21))) > now
    shown = subprocess.run(
        ["make", "--no-print-directory", "agent-checksum"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == hashlib.sha256(AGENT.read_bytes()).hexdigest()


def test_lint_and_the_workflow_check_the_version() -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "lint"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "worker_image/version.py check" in planned.stdout
    workflow = (ROOT / ".github" / "workflows" / "agent-version.yml").read_text()
    named = set(re.findall(r"make (agent-[\w-]+)", workflow))
    assert named == {"agent-version-check", "agent-version-bump"}
    assert named <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_main_and_pull_requests_are_checked_and_not_mended() -> None:
    workflow = (ROOT / ".github" / "workflows" / "agent-version.yml").read_text()
    checking, _, mending = workflow.partition("\n  bump:")
    assert "  pull_request:" in checking
    assert "github.ref == 'refs/heads/main'" in checking
    assert "make agent-version-check BASE=" in checking
    assert "agent-version-bump" not in checking
    assert "github.ref != 'refs/heads/main'" in mending
