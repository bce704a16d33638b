"""The README cannot rot: its settings, commands and paths are those of the code."""

import re
import subprocess
from pathlib import Path

from pydantic.fields import FieldInfo

from admission.settings import Settings
from admission.store.names import FLEET_KEYS, POOL_KEYS
from worker_image import agent

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _row(field: FieldInfo) -> str:
    """A setting as the README's table shows it."""
    default = field.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    elif isinstance(default, tuple):
        default = ", ".join(map(str, default))
    shown = "none" if default in (None, "", {}) else f"`{default}`"
    return f"| `{field.alias}` | {shown} | {field.description} |"


def _rows(chapter: str) -> list[str]:
    """The rows of settings in one chapter of the README."""
    text = README.split(f"## {chapter}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `[A-Z0-9_]+` \|.*$", text, re.MULTILINE)


def test_the_settings_table_is_the_code() -> None:
    assert _rows("Settings") == [_row(field) for field in Settings.model_fields.values()]


def test_the_table_of_the_agents_settings_is_the_code() -> None:
    options = agent.OPTIONS.values()
    rows = [
        f"| `{name}` | {f'`{default}`' if default else 'none'} | {meaning} |"
        for name, _, default, meaning in options
    ]
    assert _rows("A GPU machine of your own") == rows


def test_every_make_target_of_the_readme_exists() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = set(re.findall(r"^  make ([\w-]+)", shown.stdout, re.MULTILINE))
    named = re.findall(r"(?:`|^|[A-Z]=\S+ )make ([a-z0-9-]+)", README, re.MULTILINE)
    assert set(named) <= targets
    assert {"run", "dev", "setup", "test", "e2e", "bench", "lint", "format"} <= targets


def test_every_path_of_the_readme_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def test_every_test_that_holds_an_invariant_exists() -> None:
    named = re.findall(r"`(tests/[^`]+)`", (ROOT / "docs" / "invariants.md").read_text())
    assert len(named) >= 10
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_lock_files_hold_names_versions_and_hashes_only() -> None:
    for lock in (ROOT / "infra" / "lock").glob("*.txt"):
        assert not re.search(r"https?://|file:", lock.read_text()), lock.name


def test_the_table_of_keys_is_the_code() -> None:
    table = (ROOT / "docs" / "redis.md").read_text()
    for key in (*POOL_KEYS, *FLEET_KEYS):
        assert f"| `{key.name}` | {key.type} | {key.meaning} |" in table
