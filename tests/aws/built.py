"""The functions' package for the Python that runs the tests, made once and taken apart."""

import platform
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

from infra.aws import package
from infra.aws.runtime import MACHINES

PYTHON = "{}.{}".format(*sys.version_info)
ALONE = """
import runpy, sys
folder, script = sys.argv[1:]
assert not [path for path in sys.path if path.endswith("-packages")], sys.path
sys.path.insert(0, folder)
runpy.run_path(script, run_name="__main__")
"""
_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # removed when the tests end


@cache
def unpacked() -> Path:
    """The package, compiled, in a folder of its own."""
    architecture = {wheels: aws for aws, wheels in MACHINES.items()}[platform.machine()]
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="vst-package-"))
    folder = Path(_FOLDERS[-1].name)
    made = package.build(folder, PYTHON, architecture, lambda _: None, compiled=True)
    with zipfile.ZipFile(made.path) as archive:
        archive.extractall(folder / "task")
    return folder / "task"


def alone(script: Path) -> list[str]:
    """The words that run a script with the standard library and the package, and nothing else."""
    return [sys.executable, "-I", "-S", "-c", ALONE, str(unpacked()), str(script)]


def names(path: Path) -> list[str]:
    """The files in a zip, in its order."""
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
