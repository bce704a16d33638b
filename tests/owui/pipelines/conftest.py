"""Loads the Pipelines filter as the Pipelines server does, beside a stand-in for Open WebUI."""

import importlib.util
import sys
import traceback
import types
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web

from owui_pipeline import assemble
from tests.owui.conftest import WebUI, _count_streams
from tests.owui.pipelines.server import ADMIN_KEY, Above, PipelinesServer

NAME = "vestibule"


class Watch:
    """Says which modules the filter looked for that its server may have but must not load."""

    def __init__(self) -> None:
        self.wanted: list[str] = []

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        """As an import does."""
        frames = (frame for frame, _ in traceback.walk_stack(None))
        by_the_filter = any(frame.f_globals.get("__name__") == NAME for frame in frames)
        if name.startswith("open_webui") and by_the_filter:
            self.wanted.append(name)


@pytest.fixture(autouse=True)
def open_webui_is_not_imported() -> Iterator[None]:
    """Where both are installed into one environment, that would start a second Open WebUI."""
    watch = Watch()
    sys.meta_path.insert(0, watch)
    yield
    sys.meta_path.remove(watch)
    assert watch.wanted == []


@pytest.fixture(scope="module")
def pipelines_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an administrator gives to the server."""
    path = tmp_path_factory.mktemp("pipelines") / "vestibule.py"
    path.write_text(assemble.pipeline(), "utf-8")
    return path


@pytest.fixture
def pipelines_plugin(monkeypatch: pytest.MonkeyPatch, pipelines_file: Path) -> types.ModuleType:
    """The filter's module, loaded as the server does (main.py), with shorter pauses."""
    spec = importlib.util.spec_from_file_location(NAME, pipelines_file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pauses = {"BEAT_S": 0.05, "LOOK_S": 0.05, "TASKS_S": 0.02, "PEOPLE_S": 0.02}
    pauses |= {"STATUS_EVERY_S": 0.02, "KEPT_EVERY_S": 0.02, "PLACES_A_S": 1e6}
    for name, pause_s in pauses.items():
        monkeypatch.setattr(module, name, pause_s)
    monkeypatch.setattr(module, "AGAIN_S", (0.05, 0.1))
    _count_streams(module)
    return module


@pytest.fixture
async def above() -> AsyncIterator[Above]:
    """Open WebUI, with one administrator's key."""
    above = Above()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", above.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    above.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield above
    await runner.cleanup()


@pytest.fixture
async def server(
    pipelines_plugin: types.ModuleType, above: Above, webui: WebUI
) -> AsyncIterator[PipelinesServer]:
    """The Pipelines server before a service with one slot."""
    server = PipelinesServer(pipelines_plugin, above, webui)
    url, key = webui.service.url, webui.service.service_key
    await server.set(admission_url=url, service_key=key, away_grace_s=0)
    await server.set(open_webui_url=above.url, open_webui_key=ADMIN_KEY)
    await server.pipeline.on_startup()
    yield server
    await server.close()
