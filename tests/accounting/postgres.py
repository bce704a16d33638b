"""A real PostgreSQL for one test: a cluster of its own in a folder, on a loopback port."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 60


def programs() -> Path | None:
    """Where its programs are; Debian keeps them off the PATH."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Postgres:
    """A server that is stopped and started; what was committed stays."""

    def __init__(self, folder: Path, bin_: Path) -> None:
        self._folder, self._bin = folder, bin_
        # It refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._data = folder / "data"
        if os.geteuid() == 0:
            shutil.chown(folder, self._user)
        self._run("initdb", "-D", str(self._data), "-U", "vestibule", "--auth=trust", "-E", "UTF8")

    @property
    def url(self) -> str:
        return f"postgresql://vestibule@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        words = f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", log, "-o", words, "start")

    def stop(self, how: str = "immediate") -> None:
        """``immediate``: as a crash, with the connections cut."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", how, "stop")

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [self._bin / program, *words],
            user=self._user if os.geteuid() == 0 else None,
            cwd=self._folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=DEADLINE_S,
        )


@contextmanager
def running(bin_: Path) -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="vst-pg-"))  # short: its socket lies there
    postgres = Postgres(folder, bin_)
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()
        shutil.rmtree(folder)
