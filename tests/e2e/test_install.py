"""Knows what an administrator may expect of `vestibule owui` at a real Open WebUI 0.12.4.

The expectations are those of the fast tests (`tests/owui/installs.py`); no browser and no vLLM.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.e2e.server import Server
from tests.owui import installs
from tests.owui.installs import Printed, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.e2e.build import Components
    from tests.e2e.stack import OpenWebUI

# Long, because the first case of a first run builds the components.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1700)]

COMMAND_TIMEOUT_S = 60
VESTIBULE = Path(sys.executable).with_name("vestibule")


class DemoVestibule(Server):
    """`vestibule up` with its own demo model."""

    name = "vestibule-demo"
    ready_path = "/readyz"
    ready_within_s = 30

    def command(self) -> Sequence[str | Path]:
        return (VESTIBULE, "up")

    def environment(self) -> Mapping[str, str]:
        return {
            "VESTIBULE_STATE_DIR": str(self.folder / "state"),
            "VESTIBULE_PORT": str(self.port),
        }

    def _answers(self) -> bool:
        """Ready as its welcome means it: with a worker, so that Open WebUI is told its model."""
        if not super()._answers():
            return False
        ready: int = requests.get(f"{self.url}/readyz", timeout=5).json()["workers"]["ready"]
        return ready > 0

    def service_key(self) -> str:
        """What it accepts."""
        key: str = json.loads((self.folder / "state" / "keys.json").read_text())["service_key"]
        return key


class RealSite(Site):
    """The Open WebUI of the session, and the commands as processes."""

    def __init__(self, webui: OpenWebUI, first: DemoVestibule, second: DemoVestibule) -> None:
        self._webui, self._folder = webui, first.folder
        self.gateways = first.url, second.url
        self.keys = first.service_key(), second.service_key()
        credentials = {"email": webui.admin_email, "password": webui.admin_password}
        self._token = webui.call("POST", "/api/v1/auths/signin", body=credentials)["token"]

    def owui(self, *words: str) -> Printed:
        action, *rest = words
        done = subprocess.run(
            (VESTIBULE, "owui", action, "--url", self._webui.url, *rest),
            cwd=self._folder,
            # Sign-ins are limited to some a minute; what a browser carries is taken as well.
            env={"PATH": os.environ["PATH"], "OWUI_API_KEY": self._token},
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return Printed(done.returncode, done.stdout, done.stderr)

    def snapshot(self) -> Any:
        functions = self._call("GET", "/api/v1/functions/export?include_valves=true")
        changing = ("updated_at", "created_at", "version_id")
        return {
            "connections": self._call("GET", "/openai/config"),
            "functions": [{k: v for k, v in one.items() if k not in changing} for one in functions],
        }

    def put_older(self, text: str, valves: dict[str, Any]) -> None:
        path = "/api/v1/functions/id/vestibule"
        form = {**self._call("GET", path), "content": text}
        kept = {name: form[name] for name in ("id", "name", "content", "meta")}
        self._call("POST", f"{path}/update", kept)
        self._call("POST", f"{path}/valves/update", valves)

    def stored_valves(self) -> dict[str, Any]:
        found: dict[str, Any] = self._call("GET", "/api/v1/functions/id/vestibule/valves")
        return found

    def _call(self, method: str, path: str, body: object = None) -> Any:
        return self._webui.call(method, path, key=self._token, body=body)


@pytest.fixture(scope="module")
def site(open_webui: OpenWebUI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSite]:
    with (
        DemoVestibule(tmp_path_factory.mktemp("first")) as first,
        DemoVestibule(tmp_path_factory.mktemp("second")) as second,
    ):
        real = RealSite(open_webui, first, second)
        real.owui("uninstall", "--yes")  # what other cases of the session left
        yield real


@pytest.mark.parametrize("expectation", installs.EXPECTATIONS, ids=lambda one: one.__name__)
def test_what_an_administrator_expects(
    components: Components, site: RealSite, expectation: Callable[[Site], None]
) -> None:
    expectation(site)
