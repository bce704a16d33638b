"""One host over SSH: its key is checked, one step is said to it, and its answer is read.

Whether a host could not be reached, did not let us in, or gave no answer that can be believed are
three things: what follows from each is the provider's to say.
"""

import asyncio
import shlex
from collections.abc import Mapping
from pathlib import Path

import asyncssh
from msgspec import Struct

from infra.providers import fields
from infra.providers.bare_metal.parcel import SCRIPT
from infra.providers.bare_metal.settings import Host, Settings

WORDS_MAX = 300
asyncssh.set_log_level("WARNING")  # below that it writes down each command, which is our script


class Silent(Exception):
    """It could not be reached, or gave no whole answer: nothing follows."""


class Barred(Exception):
    """It was reached, and does not let us in, or is not the host that it was."""


class Seen(Struct, frozen=True):
    """What a host says of itself."""

    deployment: str = ""  # whose it is, by its claim
    instance_id: str = ""
    launched_ms: int | None = None
    phase: str = ""
    failure: str = ""  # "CODE words"
    said: str = ""  # the last lines of a log, where something went wrong, with what is secret
    trouble: str = ""  # why a step was not done
    ending: bool = False
    started: bool = False  # the agent was
    installing: bool = False  # now
    running: bool = False  # the agent is
    admission: str = ""  # how it stands with it, in its agent's words

    @property
    def claimed(self) -> bool:
        return bool(self.instance_id)


class Entrance:
    """How all hosts of an inventory are entered. Raises ``ValueError("field: why")``."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.known_hosts = fields.placed(folder, settings.known_hosts or "~/.ssh/known_hosts")
        self.keys: asyncssh.SSHKey | None = None
        if settings.key:
            try:
                self.keys = asyncssh.read_private_key(fields.placed(folder, settings.key))
            except (OSError, asyncssh.KeyImportError) as error:
                raise ValueError(f"key: {settings.key} cannot be used: {error}") from error

    def known(self) -> asyncssh.SSHKnownHosts:
        """Read anew each time: a person mends it while the scheduler runs."""
        if not self.known_hosts.exists():
            return asyncssh.import_known_hosts("")
        return asyncssh.read_known_hosts(str(self.known_hosts))

    def note(self, host: Host, key: asyncssh.SSHKey) -> None:
        """Add a key to known_hosts."""
        name = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
        self.known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.known_hosts.open("ab") as file:
            file.write(f"{name} ".encode() + key.export_public_key("openssh").strip() + b"\n")


class _Watch(asyncssh.SSHClient):
    """Is asked about each host key that known_hosts does not name."""

    def __init__(self, entrance: Entrance, host: Host) -> None:
        self._entrance, self._host, self.why = entrance, host, ""

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        found = key.get_fingerprint("sha256")
        if self._host.host_key:
            if found != self._host.host_key:
                self.why = f"its host key is {found}, not {self._host.host_key} as configured"
            return found == self._host.host_key
        match = self._entrance.known().match(host, addr, port)
        if any(match[:2]):
            self.why = f"its host key has changed to {found}: known_hosts names another"
            return False
        if not self._entrance.settings.trust_on_first_use:
            self.why = f"its host key {found} is not in {self._entrance.known_hosts}"
            return False
        self._entrance.note(self._host, key)
        return True


class Door:
    """The way to one host. Each step is a connection of its own: nothing is kept that may break."""

    def __init__(self, host: Host, entrance: Entrance) -> None:
        self.host, self._entrance = host, entrance
        self._settings = entrance.settings

    async def step(self, command: str, *words: str, parcel: bytes = b"") -> Seen:
        """Say one command of ``host.sh``. Raises `Silent` and `Barred`."""
        folder = self.host.folder or self._settings.folder
        said = shlex.join(["exec", "sh", "-c", SCRIPT, "host.sh", folder, command, *words])
        watch = _Watch(self._entrance, self.host)
        try:
            async with asyncio.timeout(self._settings.connect):
                connection = await self._connect(watch)
        except asyncssh.HostKeyNotVerifiable as error:
            raise Barred(f"{self.host.name}: {watch.why or error.reason}") from error
        except asyncssh.PermissionDenied as error:
            who = self._user() or "the scheduler's user"
            raise Barred(f"{self.host.name}: {who} may not enter: {error.reason}") from error
        # A TimeoutError is an OSError; a ValueError says that known_hosts or a name cannot be read.
        except (OSError, ValueError, asyncssh.Error) as error:
            why = str(error) or f"no answer within {self._settings.connect:g} s"
            raise Silent(f"{self.host.name}: {why}") from error
        try:
            async with asyncio.timeout(self._settings.answer):
                given = {"input": parcel} if parcel else {"stdin": asyncssh.DEVNULL}
                done = await connection.run(said, encoding=None, **given)
        except (OSError, asyncssh.Error) as error:
            raise Silent(f"{self.host.name}: {str(error) or 'no answer in time'}") from error
        finally:
            connection.abort()
        return self._read(done)

    async def _connect(self, watch: _Watch) -> asyncssh.SSHClientConnection:
        keys = {} if self._entrance.keys is None else {"client_keys": [self._entrance.keys]}
        known = self._entrance.known()
        user = {} if not self._user() else {"username": self._user()}
        options = asyncssh.SSHClientConnectionOptions(
            # Only what the fleet file says: no ~/.ssh/config, no password.
            config=None,
            known_hosts=asyncssh.import_known_hosts("") if self.host.host_key else known,
            preferred_auth="publickey",
            client_factory=lambda: watch,
            **keys,
            **user,
        )
        return await asyncssh.connect(self.host.address, self.host.port, options=options)

    def _user(self) -> str:
        return self.host.user or self._settings.user

    def _read(self, done: asyncssh.SSHCompletedProcess) -> Seen:
        lines = _text(done.stdout).splitlines()
        if done.exit_status != 0 or not lines or lines[-1] != "end":
            why = (_text(done.stderr).strip().splitlines() or ["it broke off"])[-1]
            raise Silent(f"{self.host.name}: {why[:WORDS_MAX]}")
        found: dict[str, str] = {}
        for line in lines[:-1]:
            name, _, value = line.partition(" ")
            found[name] = f"{found[name]} | {value}" if name in found else value
        return _seen(found)


def _seen(found: Mapping[str, str]) -> Seen:
    deployment, _, rest = found.get("claim", "").partition(" ")
    instance_id, _, launched = rest.partition(" ")
    return Seen(
        deployment=deployment,
        instance_id=instance_id,
        launched_ms=int(launched) if launched.isdecimal() else None,
        phase=found.get("phase", "")[:WORDS_MAX],
        failure=found.get("failure", "")[:WORDS_MAX],
        said=found.get("said", ""),
        trouble=found.get("trouble", "")[:WORDS_MAX],
        ending="ending" in found,
        started="started" in found,
        installing="installing" in found,
        running="running" in found,
        admission=found.get("admission", "")[:WORDS_MAX],
    )


def _text(output: object) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else str(output or "")
