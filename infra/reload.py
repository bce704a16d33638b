"""Restarts a command at each change of the project's code, for development."""

import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from watchfiles import Change, watch

PROJECT = Path(__file__).parent.parent
FOLDERS = ("admission", "scheduler", "infra", "worker_image", "owui_pipeline")


def run(command: Sequence[str]) -> int:
    """Run ``command`` until SIGINT or SIGTERM, anew after each change; its last exit code.

    A command that ended by itself is started again at the next change.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    process = subprocess.Popen(command, start_new_session=True)
    folders = [PROJECT / name for name in FOLDERS]
    for changes in watch(*folders, watch_filter=_is_code, stop_event=stop, raise_interrupt=False):
        names = ", ".join(sorted({Path(path).name for _, path in changes}))
        print(f"changed: {names}; restarting", flush=True)
        process.terminate()
        process.wait()
        process = subprocess.Popen(command, start_new_session=True)
    process.terminate()
    return process.wait()


def _is_code(_: Change, path: str) -> bool:
    return path.endswith((".py", ".lua"))
