"""Processes that outlive who started them, and are known again by a mark in their environment.

A pid may be somebody else's tomorrow, and a process may have died whose children live on. The mark
is inherited by all that a worker starts, and by nothing else; no file need be right for it.
"""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "MACHINE_OF_VESTIBULE"
START_S = 10.0  # for a shell to start one program in the background
# The shell ends at once, so that the worker belongs to no scheduler and leaves none a zombie.
_DETACH = '"$@" </dev/null >>"$0" 2>&1 &'


def start(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log_file: Path
) -> None:
    """Start a command in a session of its own, in ``folder``, which is also its mark.

    Raises:
        OSError: there is no shell, or no room for a process.
        subprocess.SubprocessError: the same, said by the shell.
    """
    subprocess.run(
        ["/bin/sh", "-c", _DETACH, str(log_file), *command],
        env={**environment, MARK: str(folder)},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=True,
        timeout=START_S,
    )


def of(folder: Path) -> list[psutil.Process]:
    """The processes that carry the mark and are not dead."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if _is_marked(process, folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _is_marked(process: psutil.Process, folder: Path) -> bool:
    """One in the midst of an exec shows no environment for a moment; where it works stays."""
    environment = process.environ()
    return environment.get(MARK) == str(folder) if environment else process.cwd() == str(folder)


def ask_to_end(processes: Sequence[psutil.Process]) -> None:
    """SIGTERM for those that nobody among them started: they see to the others."""
    pids = {process.pid for process in processes}
    for process in processes:
        with suppress(psutil.Error):
            if process.ppid() not in pids:
                process.terminate()


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL for all."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
