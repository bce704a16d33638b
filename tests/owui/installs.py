"""What an administrator may expect of `vestibule owui`, whichever Open WebUI it is.

Knows the commands and what they print; `test_install.py` runs it on a fake, `tests/e2e` on a real
Open WebUI 0.12.4.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from infra.owui import function

OLDER = """

class Filter(Filter):
    class Valves(Filter.Valves):
        of_old: int = 5
        old_key: str = ""
        max_wait_s: str = "an hour"
"""
"""What makes the Function an older version: two valves that are gone, one of another type."""


class Printed(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def changed(self) -> list[str]:
        """The diff: what is new, changed or removed, with its lines."""
        kept, keeping = [], False
        for line in self.out.splitlines():
            if not line.startswith(" "):
                keeping = line.endswith((": new", ": changed", ": removed"))
            if keeping:
                kept.append(line)
        return kept


class Site(ABC):
    """One Open WebUI, and a Vestibule or two that its server reaches."""

    gateways: tuple[str, str]
    keys: tuple[str, str]

    @abstractmethod
    def owui(self, *words: str) -> Printed:
        """Run `vestibule owui` with these words, as its administrator."""

    @abstractmethod
    def snapshot(self) -> Any:
        """Everything an administrator could tell a difference by."""

    @abstractmethod
    def put_older(self, text: str, valves: dict[str, Any]) -> None:
        """Bring the installed Function to this text and these valves."""

    @abstractmethod
    def stored_valves(self) -> dict[str, Any]:
        """The valves as they are stored."""

    def install(self, *words: str) -> Printed:
        """Install for the first gateway, which must succeed."""
        where = () if "--gateway-url" in words else ("--admission-url", self.gateways[0])
        keys = () if "--service-key" in words else ("--service-key", self.keys[0])
        done = self.owui("install", *where, *keys, *words)
        assert done.code == 0, done.err
        assert not [key for key in self.keys if key in done.out]
        return done

    def both(self) -> tuple[str, ...]:
        """The words for both gateways."""
        named = [("--gateway-url", url) for url in self.gateways]
        keyed = [("--service-key", key) for key in self.keys]
        prefixed = [("--prefix-id", name) for name in ("a", "b")]
        return tuple(word for pair in (*named, *keyed, *prefixed) for word in pair)


def comes_and_goes(site: Site) -> None:
    """Dry run, install, again, status, uninstall: nothing is left, nothing else is touched."""
    before = site.snapshot()
    planned = site.install("--dry-run")
    assert site.snapshot() == before
    done = site.install()
    assert done.changed() == planned.changed()
    assert "connection" in done.out
    assert "warning" not in done.out
    after = site.snapshot()
    assert after != before
    again = site.install()
    assert again.changed() == []
    assert again.out.count("unchanged") == 3
    assert site.snapshot() == after
    status = site.owui("status")
    assert (status.code, status.out.splitlines()[-1]) == (0, "All is well.")
    assert site.keys[0] not in status.out
    assert site.owui("uninstall").code == 1
    planned = site.owui("uninstall", "--dry-run")
    assert site.snapshot() == after
    done = site.owui("uninstall", "--yes")
    assert done.changed() == planned.changed()
    assert site.snapshot() == before
    assert site.owui("uninstall", "--yes").out == "nothing to remove\n"
    status = site.owui("status")
    assert status.code == 1
    assert "the Function is not installed" in status.out


def several_gateways_stand_side_by_side(site: Site) -> None:
    """Each has its connection; one can go alone; what is not named stays."""
    before = site.snapshot()
    site.install(*site.both())
    assert site.install(*site.both()).changed() == []
    after = site.snapshot()
    first, second = (f"connection {url}/v1" for url in site.gateways)
    assert f"{first}: unchanged\n{second}: unchanged" in site.install().out
    assert site.snapshot() == after
    gone = site.owui("uninstall", "--yes", "--gateway-url", site.gateways[1])
    assert (f"{second}: removed" in gone.out, first in gone.out) == (True, False)
    assert site.owui("status").code == 0
    site.owui("uninstall", "--yes")
    assert site.snapshot() == before


def users_are_named_by_jwt_or_by_header(site: Site) -> None:
    """One or the other, and what Open WebUI needs for it is said."""
    header = "header X-OpenWebUI-User-Id = {{USER_ID}}"
    assert f"  + {header}" in site.install().out
    by_jwt = site.install("--jwt", "--for", "pip")
    assert f"  - {header}" in by_jwt.out
    assert "export ENABLE_FORWARD_USER_INFO_HEADERS=true" in by_jwt.out
    assert 'HEADER_JWT_SECRET="$VESTIBULE_OWUI_JWT_SECRET"' in by_jwt.out
    assert "does not know who chats: " in by_jwt.out  # this Open WebUI sends none
    assert site.install("--jwt").changed() == []
    plain = site.install()
    assert f"  + {header}" in plain.out
    assert "does not know" not in plain.out
    site.owui("uninstall", "--yes")


def an_upgrade_keeps_the_valves(site: Site) -> None:
    """All but those that the new version cannot take, and these are named."""
    site.install()
    text = function.source().replace("version: ", "version: 0.0.1-", 1) + OLDER
    mine = {"show_waited": False, "of_old": 7, "old_key": "hush", "max_wait_s": "two hours"}
    site.put_older(text, {**site.stored_valves(), **mine})
    assert "show_waited = no" in (found := site.owui("status")).out
    assert (found.code, "0.0.1-" in found.out, "hush" in found.out) == (1, True, False)
    planned = site.install("--dry-run")
    done = site.install()
    assert done.changed() == planned.changed()
    lines = done.changed()
    assert f"  - version = 0.0.1-{function.version(function.source())}" in lines
    assert {"  - of_old = 7", "  - old_key = (set)", "  - max_wait_s = two hours"} <= set(lines)
    for name, why in (("of_old", "unknown"), ("old_key", "unknown"), ("max_wait_s", "Input")):
        assert f"warning: the valve {name} could not be kept: {why}" in done.out
    assert "hush" not in done.out
    stored = site.stored_valves()
    assert stored == {
        "admission_url": site.gateways[0],
        "service_key": site.keys[0],
        "show_waited": False,
    }
    assert site.install().changed() == []
    site.owui("uninstall", "--yes")


EXPECTATIONS = (
    comes_and_goes,
    several_gateways_stand_side_by_side,
    users_are_named_by_jwt_or_by_header,
    an_upgrade_keeps_the_valves,
)
