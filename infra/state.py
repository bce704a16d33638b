"""The state folder of ``vestibule up``: its lock and its keys.

Knows files; not what runs on them.
"""

import fcntl
import json
import os
import re
import secrets
from pathlib import Path
from typing import IO

from pydantic import SecretStr

from admission.settings import Settings
from infra.errors import CommandError

KEY_NAMES = ("service_key", "admin_key", "worker_token")
SOCKET_BYTES_MAX = 103  # sun_path is 104 bytes on macOS and 108 on Linux, with its final zero


class StateFolder:
    """A folder that belongs to one running ``vestibule up``, mode 0700."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock: IO[str] | None = None

    @property
    def socket(self) -> Path:
        """Where the embedded server listens."""
        return self.path / "valkey.sock"

    @property
    def keys_file(self) -> Path:
        return self.path / "keys.json"

    def claim(self) -> None:
        """Make the folder and take its lock, which ends with this process.

        Raises:
            CommandError: not writable, in use by another, or too long for a unix socket.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_ours()
            self.path.chmod(0o700)
            self._lock = (self.path / "up.lock").open("w")
        except OSError as error:
            raise CommandError(
                f"the state folder {self.path} cannot be written: {error.strerror}"
                " (choose another with VESTIBULE_STATE_DIR)"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CommandError(
                f"another vestibule already runs on the state folder {self.path}"
            ) from error
        if len(os.fsencode(self.socket)) > SOCKET_BYTES_MAX:
            raise CommandError(
                f"the state folder {self.path} has too long a name for the server's socket"
                " (choose another with VESTIBULE_STATE_DIR)"
            )

    def _check_ours(self) -> None:
        """A folder of other things is left alone: closing it to all others could do harm."""
        if any(self.path.iterdir()) and not (self.path / "up.lock").exists():
            raise CommandError(
                f"{self.path} holds other things and is no state folder"
                " (choose another with VESTIBULE_STATE_DIR)"
            )

    def release(self) -> None:
        """Let the next one in."""
        if self._lock:
            self._lock.close()

    def keys(self) -> dict[str, str]:
        """The keys of ``keys.json``, mode 0600; made when they are not there.

        Raises:
            CommandError: the file is damaged.
        """
        kept = read_keys(self.keys_file) if self.keys_file.exists() else {}
        if kept:
            self.keys_file.chmod(0o600)
        missing = [name for name in KEY_NAMES if name not in kept]
        if missing:
            kept |= {name: f"vst-{secrets.token_urlsafe(32)}" for name in missing}
            self._write_keys(kept)
        return kept

    def _write_keys(self, keys: dict[str, str]) -> None:
        fresh = self.keys_file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(keys, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.keys_file)


def read_keys(path: Path) -> dict[str, str]:
    """The keys in a ``keys.json``.

    Raises:
        CommandError: not there, not readable, or not what ``vestibule up`` wrote.
    """
    try:
        keys = json.loads(path.read_text())
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{path} is damaged: it is not JSON") from error
    if not isinstance(keys, dict) or not all(map(_is_key, keys.values())):
        raise CommandError(f"{path} is damaged: it does not hold keys")
    return keys


def _is_key(text: object) -> bool:
    """What can stand in an Authorization header."""
    return isinstance(text, str) and re.fullmatch(r"[\x21-\x7e]+", text) is not None


def kept_key(settings: Settings, name: str) -> str | None:
    """A key, by its name in ``keys.json``: of the settings, else of the state folder.

    Raises:
        CommandError: the file is damaged.
    """
    given: SecretStr | None = getattr(settings, name)
    if given is not None:
        return given.get_secret_value()
    path = settings.state_dir / "keys.json"
    return read_keys(path).get(name) if path.exists() else None
