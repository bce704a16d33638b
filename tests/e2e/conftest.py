"""Knows what the cases share: the components, the servers, the people and their screenshots.

A component that cannot be built or started fails the cases that need it, and says why.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.e2e import build
from tests.e2e.server import Server
from tests.e2e.stack import OpenWebUI, Vestibule, VllmServer
from tests.ports import free_port

if TYPE_CHECKING:
    # Playwright is there in this tier only; the fast suite collects these files without it.
    from playwright.async_api import Browser

    from tests.e2e.browser import ChatPage

SCREENSHOTS = Path(__file__).parent / "screenshots"


class StartVestibule(Protocol):
    """Start an empty Vestibule with sessions of so many seconds and other settings by name."""

    def __call__(self, session_duration_s: int, **settings: object) -> Vestibule: ...


class SignIn(Protocol):
    """Make a user of that name and sign in, in a browser of that language."""

    async def __call__(self, name: str, locale: str = "en-US") -> "ChatPage": ...


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Nothing of ours runs in this process; Playwright is made for Python's own loop."""
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def components(request: pytest.FixtureRequest) -> build.Components:
    """The real things, built if need be; the minutes that takes are not silent."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        return build.build()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what runs for the whole session."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def vllm(components: build.Components, servers: Path) -> Iterator[VllmServer]:
    """One vLLM for all cases."""
    with VllmServer(servers, components) as server:
        yield server


@pytest.fixture(scope="session")
def open_webui(components: build.Components, servers: Path) -> Iterator[OpenWebUI]:
    """One Open WebUI for all cases; each points it at its own Vestibule."""
    with OpenWebUI(servers, components) as server:
        yield server


@pytest.fixture(scope="session")
def gateway_port() -> int:
    """The one address Vestibule has in all cases, so that Open WebUI keeps a single connection."""
    return free_port()


@pytest.fixture
def start_vestibule(
    vllm: VllmServer, open_webui: OpenWebUI, gateway_port: int, tmp_path: Path
) -> Iterator[StartVestibule]:
    """As `StartVestibule`, and install it into an Open WebUI that knows none."""
    with ExitStack() as running:

        def start(session_duration_s: int, **settings: object) -> Vestibule:
            settings |= {"SESSION_DURATION": session_duration_s}
            server = Vestibule(tmp_path, gateway_port, vllm.url, **settings)
            running.enter_context(server)
            running.callback(_show_logs, server, open_webui, vllm)
            open_webui.forget()
            server.install_into(open_webui)
            return server

        yield start


def _show_logs(*servers: Server) -> None:
    """Write what pytest shows of a case that failed."""
    for server in servers:
        sys.stderr.write(f"{server.log_tail(60)}\n")


@pytest.fixture
async def browser(components: build.Components) -> AsyncIterator["Browser"]:
    """One Chromium for a case; each person has a context of their own in it."""
    from tests.e2e.browser import chromium

    async with chromium(components.chromium) as running:
        yield running


@pytest.fixture
async def sign_in(
    browser: "Browser", open_webui: OpenWebUI, tmp_path: Path
) -> AsyncIterator[SignIn]:
    """As `SignIn`, in a browser context of their own."""
    from tests.e2e.browser import ChatPage

    people: list[ChatPage] = []

    async def arrive(name: str, locale: str = "en-US") -> ChatPage:
        user = open_webui.add_user(name)
        person = await ChatPage.sign_in(browser, open_webui.url, user, locale)
        people.append(person)
        return person

    yield arrive
    for person in people:  # for whoever looks for the reason of a failure
        await person.screenshot(tmp_path / f"{person.user.name}-at-the-end.png")


@pytest.fixture
def shots(request: pytest.FixtureRequest) -> "Shots":
    """The screenshots of this case, in a folder of its name."""
    return Shots(SCREENSHOTS / request.node.name.removeprefix("test_"))


class Shots:
    """Numbered screenshots: what each person sees after each step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken = 0
        for old in folder.glob("*.png"):
            old.unlink()

    async def take(self, page: "ChatPage", what: str) -> None:
        """Write `NN-who-what.png`."""
        self._taken += 1
        words = f"{self._taken:02} {page.user.name} {what}".lower()
        await page.screenshot(self._folder / f"{words.replace(' ', '-')}.png")
