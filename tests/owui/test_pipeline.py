"""What chats live through at the Pipelines filter, against the real admission service.

The filter is loaded and called as the Pipelines server does; what it asks of Open WebUI is answered
by a small server that keeps what it was told (``Above``). The real ones: tests/e2e.
"""

import asyncio
import importlib.util
import json
import sys
import time
import types
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import ValidationError

from admission.domain import DEFAULT_POOL
from owui_pipeline import assemble
from tests.owui.conftest import MODEL, WebUI, _count_streams, until
from tests.owui.pipelines import ADMIN_KEY, Above, PipelinesServer

FIRST = "You are 1st in line"
SECOND = "You are 2nd in line"
NOWHERE = "http://127.0.0.1:1"
LONG_AGO_S = 3600


class Watch:
    """Says which modules were looked for that the Pipelines server may have but must not load."""

    def __init__(self) -> None:
        self.wanted: list[str] = []

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        """As an import does."""
        if name.startswith("open_webui"):
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
    spec = importlib.util.spec_from_file_location("vestibule", pipelines_file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pauses = {"BEAT_S": 0.05, "API_POLL_S": 0.05, "LOOK_S": 0.05, "TASKS_S": 0.02, "PEOPLE_S": 0.02}
    pauses |= {"STATUS_EVERY_S": 0.02, "KEPT_EVERY_S": 0.02, "SETTINGS_S": 0.02}
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


async def test_who_need_not_wait_sees_nothing(server: PipelinesServer) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    assert (await server.admission.ticket("ann"))["status"] == "active"
    assert ann.told == []


async def test_who_waits_is_told_the_place_and_answered_when_the_slot_is_free(
    server: PipelinesServer,
) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob")
    await bob.sees(FIRST)
    cid = server.message("cid")
    await cid.sees(SECOND)
    await server.session_ends(ann)
    await bob.is_answered()
    assert [status["done"] for status in bob.statuses] == [False, True]
    assert bob.words[-1].startswith("Your turn. Waited ")
    await server.admission.service.tick()
    await cid.sees(FIRST)
    assert not cid.call.done()


async def test_places_that_change_fast_are_told_every_few_seconds(
    server: PipelinesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.plugin, "STATUS_EVERY_S", 0.5)
    ids = {"chat_id": "chat", "message_id": "message", "user_id": "ann"}
    pipeline = server.pipeline
    screen = server.plugin.RemoteScreen(pipeline._webui, ids, pipeline._lobby.attendance)
    for place in range(9, 0, -1):
        await screen.show(f"{place}")
        await asyncio.sleep(0.02)
    await until(lambda: "1" in server.above.words)
    assert server.above.words == ["9", "8", "1"]
    await screen.show("2")
    await screen.close("Your turn.")
    await asyncio.sleep(0.6)  # nothing old comes after the last words
    assert server.above.words == ["9", "8", "1", "Your turn."]


async def test_stop_is_noticed_and_leaves_the_queue(server: PipelinesServer) -> None:
    await server.message("ann").is_answered()
    bob = server.message("bob")
    await bob.sees(FIRST)
    bob.stop()
    await bob.refusal()
    ticket = await server.admission.ticket("bob")
    assert (ticket["status"], ticket["reason"]) == ("disconnected", "left")
    assert bob.statuses[-1] == {
        "description": "You left the line.",
        "done": True,
        "hidden": False,
    }


async def test_a_task_that_nobody_ever_listed_is_not_taken_for_a_stopped_one(
    server: PipelinesServer,
) -> None:
    """Another replica of Open WebUI may answer, which does not know it."""
    await server.message("ann").is_answered()
    server.above.is_another_replica = True
    bob = server.message("bob")
    await bob.sees(FIRST)
    await asyncio.sleep(0.2)  # ten looks
    assert not bob.call.done()


@pytest.mark.parametrize("what", ["task", "internal", "direct"])
async def test_what_needs_no_turn_passes(server: PipelinesServer, what: str) -> None:
    await server.message("ann", **{what: "title_generation"}).is_answered()
    assert (await server.admission.metrics())["active"] == 0


async def test_after_the_longest_wait_the_place_is_kept_and_the_chat_says_so(
    server: PipelinesServer,
) -> None:
    await server.set(max_wait_s=1)
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob")
    assert "Your place is kept" in await bob.refusal()
    assert bob.words[-1].endswith("Your place is kept.")
    assert bob.statuses[-1]["done"] is True
    assert "Your place is kept" in bob.error
    assert bob.is_stopped  # so that Open WebUI shows no error of its own in its place
    ticket = await server.admission.ticket("bob")
    assert (ticket["status"], ticket["position"]) == ("waiting", 1)
    await server.session_ends(ann)
    await bob.sees("It is your turn")
    await until(lambda: bob.told[-1]["type"] == "notification")  # comes after the status
    again = server.message("bob")
    await again.is_answered()
    assert again.told == []


async def test_a_kept_place_that_moves_is_told_rarely(
    server: PipelinesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.set(max_wait_s=1)
    await server.message("ann").is_answered()
    monkeypatch.setattr(server.plugin, "KEPT_EVERY_S", 60.0)
    server.message("bob")
    await server.admission.has_in_line("bob")
    server.message("cid")
    await server.admission.has_in_line("cid")
    dan = server.message("dan")
    await dan.refusal()
    for name in ("bob", "cid"):
        await server.admission.elsewhere.leave(name)
        await server.admission.service.tick()
    await asyncio.sleep(0.1)
    assert len([status for status in dan.statuses if status["done"]]) <= 2


async def test_refusals_are_shown_although_open_webui_does_not_show_what_is_raised(
    server: PipelinesServer,
) -> None:
    await server.admission.service.store.configure(DEFAULT_POOL, {"paused": True})
    ann = server.message("ann")
    assert "takes no new chats" in await ann.refusal()
    assert "takes no new chats" in ann.words[-1]
    assert "takes no new chats" in ann.error
    assert ann.is_stopped


@pytest.mark.parametrize("chat_id", ["temporary:sid", "local:sid", "channel:general"])
async def test_a_chat_that_is_not_saved_can_only_wait(
    server: PipelinesServer, chat_id: str
) -> None:
    await server.message("ann").is_answered()
    bob = server.message("bob", chat_id=chat_id)
    await server.admission.has_in_line("bob")
    await server.admission.service.store.cancel(DEFAULT_POOL, "bob")
    assert "took you out of the line" in await bob.refusal()
    assert server.above.events == []
    assert not bob.is_stopped


async def test_an_api_call_waits_only_shortly_and_without_statuses(server: PipelinesServer) -> None:
    await server.set(api_max_wait_s=1)
    await server.message("ann").is_answered()
    bob = server.api_call("bob")
    assert "No turn came up within 1 s" in await bob.refusal()
    assert server.above.events == []
    assert (await server.admission.ticket("bob"))["status"] == "disconnected"


async def test_an_api_call_is_answered_when_the_slot_is_free(server: PipelinesServer) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.api_call("bob")
    await server.admission.has_in_line("bob")
    await server.session_ends(ann)
    await bob.is_answered()


async def test_of_who_closed_the_page_the_model_is_not_asked(server: PipelinesServer) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob")
    await bob.sees(FIRST)
    server.above.last_active["bob"] = time.time() - LONG_AGO_S
    await server.is_taken_for_absent("bob")
    await server.session_ends(ann)  # within admission's grace: the slot is bob's
    await server.admission.becomes("bob", "active")
    assert not bob.call.done()
    del server.above.last_active["bob"]
    await bob.is_answered()


@pytest.mark.parametrize("how", ["broken", "absent", "wrong key", "no key"])
async def test_an_open_webui_that_does_not_help_costs_no_turn(
    server: PipelinesServer, how: str
) -> None:
    match how:
        case "broken":
            server.above.is_broken = True
        case "absent":
            await server.set(open_webui_url=NOWHERE)
        case "wrong key":
            await server.set(open_webui_key="sk-other")
        case "no key":
            await server.set(open_webui_key="")
    ann = server.message("ann")
    await ann.is_answered()
    bob = server.message("bob")
    await server.admission.has_in_line("bob")
    await server.session_ends(ann)
    await bob.is_answered()
    assert server.above.events == []


async def test_admission_away_refuses_and_says_so_or_passes(server: PipelinesServer) -> None:
    await server.set(admission_url=NOWHERE)
    ann = server.message("ann")
    assert "cannot be reached" in await ann.refusal()
    assert "cannot be reached" in ann.words[-1]
    await server.set(when_admission_is_away="pass")
    await server.message("ann").is_answered()


async def test_it_answers_before_open_webui_goes_on_without_it(
    server: PipelinesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = server.plugin
    # Close, note, error, stop; and a call under way, then one leave for each of two names.
    called_s = module.WEBUI_CALL_S * 4 + module.STOP_WITHIN_S * 3
    assert module.MAX_WAIT_S < module.GIVE_UP_S < module.OPEN_AFTER_S - called_s
    monkeypatch.setattr(module, "GIVE_UP_S", 0.5)
    await server.set(away_grace_s=1000)
    await server.message("ann").is_answered()
    bob = server.message("bob")
    await bob.refusal()
    assert (await server.admission.ticket("bob"))["status"] == "disconnected"
    assert bob.is_stopped


async def test_a_model_that_is_not_served_passes(server: PipelinesServer) -> None:
    await server.message("ann", "elsewhere").is_answered()
    assert (await server.admission.metrics())["active"] == 0


@pytest.mark.parametrize("facts", [{"urlIdx": 0}, {"owned_by": "ollama"}, {"pipe": {}}, {}])
async def test_a_model_of_another_server_passes_although_its_name_is_ours(
    server: PipelinesServer, facts: dict[str, object]
) -> None:
    ours = ("http://gateway/v1", {"headers": {"X-Vestibule-Message": "{{MESSAGE_ID}}"}})
    server.above.connections = [("http://elsewhere/v1", {}), ours]
    known = {"id": MODEL, **(facts or {"urlIdx": 1})}
    if facts.get("pipe") is not None:
        known["pipe"] = {"type": "pipe"}
    await server.message("ann", model=known).is_answered()
    assert (await server.admission.metrics())["active"] == (0 if facts else 1)


async def test_a_request_pool_is_the_gateways_to_keep(server: PipelinesServer) -> None:
    await server.admission.service.store.configure(DEFAULT_POOL, {"kind": "request"})
    await server.message("ann").is_answered()
    assert (await server.admission.metrics())["active"] == 0


@pytest.mark.parametrize(
    ("name", "known"),
    [
        (f"gpu.{MODEL}", {"id": f"gpu.{MODEL}", "urlIdx": 0}),
        ("teacher", {"id": "teacher", "info": {"base_model_id": f"gpu.{MODEL}"}}),
        ("teacher", {"id": "another", "urlIdx": 0}),  # the second of two side by side
    ],
)
async def test_presets_and_prefixes_are_known_by_their_models(
    server: PipelinesServer, name: str, known: dict[str, object]
) -> None:
    server.above.connections = [("http://gateway/v1", {"prefix_id": "gpu"})]
    server.above.presets["teacher"] = f"gpu.{MODEL}"
    await server.message("ann", name, model=known).is_answered()
    assert (await server.admission.ticket("ann"))["status"] == "active"


async def test_an_answer_is_renewed_until_its_end(server: PipelinesServer) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    client = ann.metadata["message_id"]
    assert server.pipeline._answers.of(client) is not None
    await ann.ends()
    await until(lambda: server.pipeline._answers.of(client) is None)
    assert (await server.admission.ticket("ann"))["status"] == "active"


async def test_an_answer_that_was_stopped_is_renewed_no_more(server: PipelinesServer) -> None:
    ann = server.message("ann")
    await ann.is_answered()
    await asyncio.sleep(0.1)  # its task was seen
    ann.stop()
    client = ann.metadata["message_id"]
    await until(lambda: server.pipeline._answers.of(client) is None)


async def test_an_answer_whose_end_nobody_tells_is_renewed_for_a_while(
    server: PipelinesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.plugin, "UNSEEN_ANSWER_S", 0.3)
    await server.api_call("ann").is_answered()
    assert len(server.pipeline._answers._running) == 1
    await until(lambda: not server.pipeline._answers._running)


async def test_classes_come_from_groups_too(server: PipelinesServer) -> None:
    await server.admission.service.store.configure(
        DEFAULT_POOL, {"priorities": {"teachers": {"head_start_ms": 60_000, "weight": 1}}}
    )
    server.above.groups["eve"] = ["Teachers"]
    await server.set(priorities="group:Teachers=teachers")
    await server.message("ann").is_answered()
    bob = server.message("bob")
    await bob.sees(FIRST)
    eve = server.message("eve")
    await eve.sees(FIRST)
    assert (await server.admission.ticket("bob"))["position"] == 2


def test_the_server_finds_what_it_looks_for(pipelines_plugin: types.ModuleType) -> None:
    pipeline = pipelines_plugin.Pipeline()
    assert (pipeline.type, pipeline.id, pipeline.name) == ("filter", "vestibule", "Vestibule")
    assert (pipeline.valves.pipelines, pipeline.valves.priority) == (["*"], 100)
    assert json.dumps(pipeline.valves.model_dump())


def test_a_valve_set_to_none_is_its_default(pipelines_plugin: types.ModuleType) -> None:
    valves = pipelines_plugin.Pipeline.Valves(service_key=None, max_wait_s="100", texts=None)
    assert (valves.service_key, valves.max_wait_s, valves.texts) == ("", 100, "")


@pytest.mark.parametrize(
    ("name", "value"), [("max_wait_s", 271), ("texts", "{"), ("priorities", "x"), ("language", "x")]
)
def test_a_bad_valve_is_named(pipelines_plugin: types.ModuleType, name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        pipelines_plugin.Pipeline.Valves(**{name: value})
