"""What Python would write beside the code when it first runs, and in Lambda cannot: code lies in a
folder that is only read, so that every cold start compiles all that it imports.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from infra.aws.runtime import Runtime
from infra.errors import CommandError

LIES_IN = "/var/task"
"""Where Lambda unpacks a function: the path in a traceback."""


def must_be_of(runtime: Runtime) -> None:
    """
    Raises:
        CommandError: this Python writes bytecode that the runtime does not read.
    """
    here = "{}.{}".format(*sys.version_info)
    if here != runtime.python:
        raise CommandError(
            f"this is Python {here}, which cannot compile for {runtime.name}: run this command with"
            f" Python {runtime.python}, take --python {here}, or leave --compiled away"
        )


def of(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Name -> content of the bytecode of every module in ``files``.

    Python reads it without a look at the code (PEP 552, unchecked). A process of its own writes it,
    in the order of the names: so it is the same for the same files and the same Python.
    """
    with tempfile.TemporaryDirectory(prefix="vestibule-bytecode-") as name:
        folder = Path(name)
        for file, content in files.items():
            if file.endswith(".py"):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(content)
        subprocess.run(
            [
                *(sys.executable, "-I", "-S", "-m", "compileall", "-q", "-o", "0"),
                *("--invalidation-mode", "unchecked-hash", "-s", name, "-p", LIES_IN, name),
            ],
            check=True,
        )
        return {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.pyc")
        }
