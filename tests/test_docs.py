"""The README cannot rot: its settings, commands and paths are those of the code."""

import re
import subprocess
from pathlib import Path

from admission.settings import Settings
from admission.store.names import POOL_KEYS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_settings_table_is_the_code() -> None:
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \|", README, re.MULTILINE))
    fields = {str(field.alias): field for field in Settings.model_fields.values()}
    assert list(rows) == list(fields)


def test_every_make_target_of_the_readme_exists() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = set(re.findall(r"^  make (\w+)", shown.stdout, re.MULTILINE))
    assert set(re.findall(r"make ([a-z0-9]+)", README)) <= targets
    assert {"run", "dev", "setup", "test", "e2e", "bench", "lint", "format"} <= targets


def test_every_path_of_the_readme_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def test_the_lock_files_hold_names_versions_and_hashes_only() -> None:
    for lock in (ROOT / "infra" / "lock").glob("*.txt"):
        assert not re.search(r"https?://|file:", lock.read_text()), lock.name


def test_the_table_of_keys_is_the_code() -> None:
    table = (ROOT / "docs" / "redis.md").read_text()
    for key in POOL_KEYS:
        assert f"| `{key.name}` | {key.type} | {key.meaning} |" in table
