"""A real sshd on loopback, with host keys of its own, that lets in whoever runs the tests.

Nothing of the machine's own sshd is read or changed.
"""

import asyncio
import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from tests.ports import free_port

DEADLINE_S = 10.0
# What a client asks for is done; where a file says so, its answer is not sent, or no file can be
# written: a limit of 0 bytes fails where a full disk does, and an empty file can be made.
GATE = """#!/bin/sh
if [ -e "{folder}/full" ]; then trap '' XFSZ; ulimit -f 0; fi
if [ -e "{folder}/lose" ]; then
  sh -c "$SSH_ORIGINAL_COMMAND" > /dev/null 2>&1
  kill -KILL "$PPID"
fi
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
ForceCommand {folder}/gate
SetEnv HOME={folder}/home PATH={folder}/bin:/usr/local/bin:/usr/bin:/bin
"""


def program() -> str:
    """Where sshd is; without it the test is skipped."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    if not (found := shutil.which("sshd", path=path)):
        pytest.skip("there is no sshd here (Debian: apt-get install openssh-server)")
    return found


class Sshd:
    """It listens until it is stopped; ``key`` opens it, ``host_key`` is its fingerprint."""

    def __init__(self, folder: Path) -> None:
        self._program = program()
        folder.mkdir()
        self.folder, self.port, self.user = folder, free_port(), getpass.getuser()
        self.key, self.known_hosts = folder / "key", folder / "known_hosts"
        self.home = folder / "home"  # of whoever enters: no profile of a real user is read
        self.home.mkdir()
        (folder / "bin").mkdir()  # programs that its shells find first
        self._process: asyncio.subprocess.Process | None = None
        ours = asyncssh.generate_private_key("ssh-ed25519")
        ours.write_private_key(self.key)
        ours.write_public_key(folder / "authorized_keys")
        gate = folder / "gate"
        gate.write_text(GATE.format(folder=folder))
        gate.chmod(0o700)
        self.new_host_key()
        self.know()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it when it runs as root
        (folder / "config").write_text(CONFIG.format(folder=folder, port=self.port))

    def new_host_key(self) -> None:
        """As of a machine that was set up anew, or of one that only claims to be it."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(self.folder / "host_key")
        (self.folder / "host_key").chmod(0o600)
        self.public = key.export_public_key("openssh").decode().strip()
        self.host_key = key.get_fingerprint("sha256")

    def know(self) -> None:
        """Write its key into known_hosts."""
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {self.public}\n")

    @property
    def losing(self) -> Path:
        """While this file exists, replies are lost."""
        return self.folder / "lose"

    @property
    def full(self) -> Path:
        """While this file exists, its disk is full for whatever is begun."""
        return self.folder / "full"

    async def start(self) -> None:
        words = (self._program, "-D", "-e", "-f", str(self.folder / "config"))
        with (self.folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *words, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        async with asyncio.timeout(DEADLINE_S):
            while not await asyncio.to_thread(self._listens):
                assert self._process.returncode is None, (self.folder / "log").read_text()
                await asyncio.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def pause(self) -> None:
        """It accepts connections, and says nothing."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        if self._process and self._process.returncode is None:
            self.go_on()
            self._process.terminate()
            await asyncio.wait_for(self._process.wait(), DEADLINE_S)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Sshd]:
    """A fresh one in a folder of its own."""
    server = Sshd(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
