"""Restarts a command at each change of the project's code, for development."""

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from watchfiles import Change, watch

PROJECT = Path(__file__).parent.parent
FOLDERS = ("admission", "scheduler", "infra", "worker_image", "owui_pipeline")


def run(command: Sequence[str]) -> int:
    """Run ``command`` until it is interrupted; its last exit code."""
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM))
    # Ctrl-C reaches the command as well, being in the same foreground group.
    for changes in watch(*(PROJECT / name for name in FOLDERS), watch_filter=_is_code):
        names = ", ".join(sorted({Path(path).name for _, path in changes}))
        print(f"changed: {names}; restarting", flush=True)
        process.terminate()
        process.wait()
        process = subprocess.Popen(command)
    return process.wait()


def _is_code(_: Change, path: str) -> bool:
    return path.endswith((".py", ".lua"))
