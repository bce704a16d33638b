"""The folder in which a provider of local workers keeps what it knows: one folder a machine.

``<id>/machine.json`` is the record and ``<id>/worker.log`` what its worker says. One that ended
becomes ``ended/<id>``, where its log stays for a week and says that this id had its machine.
"""

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from admission.instance import INSTANCE_ID
from infra.providers.locked import locked

ENDED_KEPT_S = 7 * 86_400.0
_LOG = "worker.log"


class Record(msgspec.Struct, frozen=True):
    """One machine. Instants are ms since 1970."""

    instance_id: str
    port: int
    launched_ms: int
    started: bool = False  # its worker was started; before, it may or may not have been
    ending_ms: int | None = None  # it is to end
    told: bool = False  # so was its worker


class MachineFolder:
    """Where one machine lives."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def log_file(self) -> Path:
        return self.path / _LOG

    def read(self) -> Record | None:
        """Raises ``OSError`` and ``msgspec.MsgspecError``: nothing follows from them."""
        try:
            return msgspec.json.decode((self.path / "machine.json").read_bytes(), type=Record)
        except FileNotFoundError:
            return None

    def write(self, record: Record) -> None:
        self.path.mkdir(mode=0o700, exist_ok=True)
        fresh = self.path / "machine.new"
        fresh.write_bytes(msgspec.json.encode(record))
        fresh.replace(self.path / "machine.json")

    def last_words(self, lines: int = 5) -> str:
        """What the worker said last, in one line. Who takes secrets out of it cuts it after that:
        half a secret is not found."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4_096))
                said = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return " | ".join(line.strip() for line in said[-lines:] if line.strip())


class Folder:
    """All machines of one provider, on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._ended = self.path / "ended"
        self._ended.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)

    def alone(self) -> AbstractContextManager[None]:
        """Raises ``BlockingIOError`` when another has it for seconds."""
        return locked(self.path / "lock")

    def machine(self, instance_id: str) -> MachineFolder:
        return MachineFolder(self.path / instance_id)

    def all(self) -> list[MachineFolder]:
        """Those that are there. Raises ``OSError``, also when the folder itself is away."""
        names = [name for name in os.listdir(self.path) if INSTANCE_ID.fullmatch(name)]
        return [self.machine(name) for name in sorted(names) if name not in {"ended", "lock"}]

    def has_ended(self, instance_id: str) -> bool:
        return (self._ended / instance_id).exists()

    def bury(self, machine: MachineFolder) -> None:
        """Its processes are gone: remove all but its log."""
        grave = self._ended / machine.path.name
        shutil.rmtree(grave, ignore_errors=True)  # half a burial
        machine.path.rename(grave)
        for left in grave.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            elif left.name != _LOG:
                left.unlink()
        os.utime(grave)

    def forget_old(self, now_ms: int) -> None:
        """Remove the logs of what ended long ago."""
        for grave in self._ended.iterdir():
            if now_ms / 1000 - grave.stat().st_mtime > ENDED_KEPT_S:
                shutil.rmtree(grave, ignore_errors=True)
