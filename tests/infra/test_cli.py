"""The command line before anything runs: its words, its errors, what it needs installed."""

import subprocess
import sys
import tomllib

import pytest

from infra import cli
from tests.infra.conftest import ROOT, clean_environment

BLOCKED = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from infra.cli import main
sys.exit(main({words!r}))
"""
EXTRAS = {  # of commands that have none of their own
    **{name: "admission" for name in ("gateway", "doctor", "load-test")},
    "aws": "functions",
    "provision": "fleet",
}
IMPORTED_AS = {"pyjwt": "jwt", "nvidia-ml-py": "pynvml"}


def _modules(extra: str) -> set[str]:
    """The modules that an extra of pyproject.toml brings."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    for line in extras["optional-dependencies"][extra]:
        if line.startswith("vestibule["):
            for other in line.removeprefix("vestibule[").rstrip("]").split(","):
                found |= _modules(other)
        else:
            name = line.split(">")[0].split("[")[0]
            found.add(IMPORTED_AS.get(name, name))
    return found


@pytest.mark.parametrize(
    "command",
    [
        *("admission", "gateway", "worker", "scheduler", "owui", "doctor", "load-test", "aws"),
        "provision",  # and with it the others for machines
    ],
)
def test_a_command_runs_with_nothing_but_its_own_extra(command: str) -> None:
    missing = _modules("up") - _modules(EXTRAS.get(command, command))
    assert missing
    code = BLOCKED.format(missing=missing, words=[command, "--help"])
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=clean_environment(),
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert f"vestibule {command}" in run.stdout


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    for name, (_, line) in cli.COMMANDS.items():
        assert name in shown
        assert line in shown


@pytest.mark.parametrize("words", [[], ["upp"], ["up", "--prot", "1"]])
def test_wrong_words_are_exit_code_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2


def test_every_problem_of_the_scheduler_has_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SESSION_DURATION", "soon")
    monkeypatch.setenv("VESTIBULE_PROT", "1")
    assert cli.main(["scheduler"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["vestibule", "VESTIBULE_PROT"],
        ["vestibule", "SESSION_DURATION"],
    ]


def test_a_scheduler_without_redis_url_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("REDIS_URL", "REDIS_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["scheduler"]) == 2
    assert capsys.readouterr().err.startswith("vestibule: REDIS_URL: needed")
